// N33: a packet that is not authenticated does not remove the path that a connection falls back to.
#include "forge.h"

static int Done;

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    CXPLAT_ROUTE Real = Connection->Paths[0].Route, Copy = Real, One = Real, Two = Real, Same = Real;
    Copy.RemoteAddress.Ipv4.sin_addr.s_addr = htonl(0x7f000005);
    One.RemoteAddress.Ipv4.sin_addr.s_addr = htonl(0x7f000006);
    Two.RemoteAddress.Ipv4.sin_addr.s_addr = htonl(0x7f000007);
    QuicAddrSetPort(&Same.RemoteAddress, QuicAddrGetPort(&Real.RemoteAddress) ^ 1);
    const uint8_t Ping = QUIC_FRAME_PING;

    // A copy of a packet from another address makes that the active one.
    ForgeReceive(Connection, Forge(Connection, &Copy, 0, &Ping, 1), 1);
    CHECK(Connection->PathsCount == 2);
    CHECK(QuicAddrCompare(&Connection->Paths[1].Route.RemoteAddress, &Real.RemoteAddress));

    // Duplicate numbers: the packets are dropped before they are authenticated.
    QUIC_RX_PACKET* Packets = Forge(Connection, &One, -11, &Ping, 1);
    QUIC_RX_PACKET* Second = Forge(Connection, &Two, -11, &Ping, 1);
    Packets->Next = (CXPLAT_RECV_DATA*)Second;
    Second->Next = (CXPLAT_RECV_DATA*)Forge(Connection, &Same, -11, &Ping, 1);
    ForgeReceive(Connection, Packets, 3);
    if (Connection->PathsCount != 2 ||
        !QuicAddrCompare(&Connection->Paths[1].Route.RemoteAddress, &Real.RemoteAddress)) {
        FAIL("the path to fall back to is gone, %d are left", Connection->PathsCount);
    }
    Done = 1;
}

int main(void)
{
    ForgeRun(Receive, &Done);
}
