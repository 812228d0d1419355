// N7: a packet from a new address that does not authenticate follows a valid packet of the client's
// second path in one batch. The valid packet must not be credited to the new address.
#include "forge.h"

static int Done, ActivePort, SecondPort, ForgedPort;

static void Interleave(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    QUIC_PATH* Path = ForgePath(Connection, 101);
    CXPLAT_ROUTE Second = Path->Route, New = Path->Route;
    QuicAddrSetPort(&New.RemoteAddress, (uint16_t)(QuicAddrGetPort(&New.RemoteAddress) + 1));

    const uint8_t Ping = QUIC_FRAME_PING;
    QUIC_RX_PACKET* Valid = Forge(Connection, &Second, 0, &Ping, 1);
    Valid->Next = (CXPLAT_RECV_DATA*)Forge(Connection, &New, 0, &Ping, 1); // dropped: same packet number
    ForgeReceive(Connection, Valid, 2);

    SecondPort = QuicAddrGetPort(&Second.RemoteAddress);
    ForgedPort = QuicAddrGetPort(&New.RemoteAddress);
    ActivePort = QuicAddrGetPort(&Connection->Paths[0].Route.RemoteAddress);
    Done = 1;
}

int main(void)
{
    ForgeOpen();
    Hook = Interleave;
    CHECK(HookSend(&ForgeClient, 2000) && Done);
    CHECK(ActivePort != ForgedPort);
    CHECK(ActivePort == SecondPort);
    _exit(0);
}
