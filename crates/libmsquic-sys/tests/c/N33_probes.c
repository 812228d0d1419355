// N33: paths that were probed, or opened by forged packets, do not keep a server from following its
// client. The previously active path is kept.
#include "forge.h"

static int Done;

static CXPLAT_ROUTE At(const CXPLAT_ROUTE* Real, uint32_t LastByte)
{
    CXPLAT_ROUTE Route = *Real;
    Route.RemoteAddress.Ipv4.sin_addr.s_addr = htonl(0x7f000000 + LastByte);
    return Route;
}

static int IsAt(const QUIC_CONNECTION* Connection, int Index, const CXPLAT_ROUTE* Route)
{
    return Index < Connection->PathsCount &&
        QuicAddrCompare(&Connection->Paths[Index].Route.RemoteAddress, &Route->RemoteAddress);
}

// The client probes an address and answers the server's challenge.
static void Probe(QUIC_CONNECTION* Connection, CXPLAT_ROUTE* Route)
{
    QUIC_PATH_CHALLENGE_EX Frame = { { 1 } };
    ForgePathFrame(Connection, Route, QUIC_FRAME_PATH_CHALLENGE, &Frame);
    CHECK(IsAt(Connection, 1, Route));
    memcpy(Frame.Data, Connection->Paths[1].Challenge, sizeof(Frame.Data));
    ForgePathFrame(Connection, Route, QUIC_FRAME_PATH_RESPONSE, &Frame);
    CHECK(Connection->Paths[1].IsPeerValidated);
}

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    const uint8_t Ping = QUIC_FRAME_PING;
    CXPLAT_ROUTE Real = Connection->Paths[0].Route;
    CXPLAT_ROUTE One = At(&Real, 5), Two = At(&Real, 6), Three = At(&Real, 7), Four = At(&Real, 8);
    CXPLAT_ROUTE False[3] = { At(&Real, 9), At(&Real, 10), At(&Real, 11) };

    // Of two probed paths the client uses the older one.
    Probe(Connection, &One);
    Probe(Connection, &Two);
    ForgeReceive(Connection, Forge(Connection, &One, 0, &Ping, 1), 1);
    CHECK(IsAt(Connection, 0, &One));
    if (!IsAt(Connection, 1, &Real)) { FAIL("the path that was active before is gone"); }

    // After probing other addresses it moves to a new one.
    Probe(Connection, &Two);
    Probe(Connection, &Three);
    Probe(Connection, &Four);
    CXPLAT_ROUTE Five = At(&Real, 12);
    ForgeReceive(Connection, Forge(Connection, &Five, 0, &Ping, 1), 1);
    if (!IsAt(Connection, 0, &Five)) { FAIL("a client that has probed %u paths is not followed", Connection->PathsCount); }
    CHECK(Connection->PathsCount == 2 && IsAt(Connection, 1, &One));

    // Before it, packets with duplicate numbers arrive from other addresses; they are dropped
    // before authentication.
    CXPLAT_ROUTE Six = At(&Real, 13);
    QUIC_RX_PACKET* Packets[4];
    for (int i = 0; i < 3; i++) { Packets[i] = Forge(Connection, &False[i], -11, &Ping, 1); }
    Packets[3] = Forge(Connection, &Six, 0, &Ping, 1);
    for (int i = 0; i < 3; i++) { Packets[i]->Next = (CXPLAT_RECV_DATA*)Packets[i + 1]; }
    ForgeReceive(Connection, Packets[0], 4);
    if (!IsAt(Connection, 0, &Six)) { FAIL("forged packets keep the server from following its client"); }
    CHECK(Connection->PathsCount == 2 && IsAt(Connection, 1, &One));
    Done = 1;
}

int main(void)
{
    ForgeRun(Receive, &Done);
}
