// U3: a connection whose active path fails returns to the previously active path, not to one that
// was only probed.
#include "forge.h"

static int Done;

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    const uint8_t Ping = QUIC_FRAME_PING;
    CXPLAT_ROUTE Real = Connection->Paths[0].Route, Other = Real, Probed = Real;
    Other.RemoteAddress.Ipv4.sin_addr.s_addr = htonl(0x7f000005);
    Probed.RemoteAddress.Ipv4.sin_addr.s_addr = htonl(0x7f000006);
    ForgeReceive(Connection, Forge(Connection, &Other, 0, &Ping, 1), 1);
    CHECK(QuicAddrCompare(&Connection->Paths[0].Route.RemoteAddress, &Other.RemoteAddress));

    const QUIC_PATH_CHALLENGE_EX Challenge = { { 1 } };
    ForgePathFrame(Connection, &Probed, QUIC_FRAME_PATH_CHALLENGE, &Challenge);
    CHECK(Connection->PathsCount == 3);
    CHECK(QuicAddrCompare(&Connection->Paths[1].Route.RemoteAddress, &Probed.RemoteAddress));

    QuicPathRemove(Connection, 0);
    CHECK(Connection->PathsCount == 2);
    if (!QuicAddrCompare(&Connection->Paths[0].Route.RemoteAddress, &Real.RemoteAddress)) {
        FAIL("a path that was only probed is the active one");
    }
    Done = 1;
}

int main(void)
{
    ForgeRun(Receive, &Done);
}
