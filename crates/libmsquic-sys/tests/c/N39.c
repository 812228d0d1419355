// N39: the length of datagrams follows the active path, and the MTU of a path is discovered once it is active.
#include "forge.h"

static int Done;

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    const uint8_t Ping = QUIC_FRAME_PING;
    const uint16_t Mtu = Connection->Paths[0].Mtu;
    const uint16_t Length = Connection->Datagram.MaxSendLength;
    CXPLAT_ROUTE OtherPort = Connection->Paths[0].Route, OtherIp = OtherPort, Probed = OtherPort;
    QuicAddrSetPort(&OtherPort.RemoteAddress, QuicAddrGetPort(&OtherPort.RemoteAddress) ^ 1);
    OtherIp.RemoteAddress.Ipv4.sin_addr.s_addr = htonl(0x7f000005);
    Probed.RemoteAddress.Ipv4.sin_addr.s_addr = htonl(0x7f000006);

    ForgeReceive(Connection, Forge(Connection, &OtherPort, 0, &Ping, 1), 1);
    CHECK(QuicAddrCompare(&Connection->Paths[0].Route.RemoteAddress, &OtherPort.RemoteAddress));
    CHECK(Connection->Paths[0].Mtu == Mtu && Connection->Datagram.MaxSendLength == Length);

    ForgeReceive(Connection, Forge(Connection, &OtherIp, 0, &Ping, 1), 1);
    CHECK(QuicAddrCompare(&Connection->Paths[0].Route.RemoteAddress, &OtherIp.RemoteAddress));
    CHECK(Connection->Paths[0].Mtu == Connection->Settings.MinimumMtu);
    if (Connection->Datagram.MaxSendLength != Length - (Mtu - Connection->Settings.MinimumMtu)) {
        FAIL("datagrams of %u bytes, of %u before, with an MTU of %u instead of %u",
            Connection->Datagram.MaxSendLength, Length, Connection->Paths[0].Mtu, Mtu);
    }

    // A path that is validated first, then used.
    const QUIC_PATH_CHALLENGE_EX Challenge = { { 1 } };
    QUIC_PATH_CHALLENGE_EX Response;
    ForgePathFrame(Connection, &Probed, QUIC_FRAME_PATH_CHALLENGE, &Challenge);
    memcpy(Response.Data, Connection->Paths[1].Challenge, sizeof(Response.Data));
    ForgePathFrame(Connection, &Probed, QUIC_FRAME_PATH_RESPONSE, &Response);
    CHECK(Connection->Paths[1].IsPeerValidated && !Connection->Paths[0].IsPeerValidated);
    QuicSendFlush(&Connection->Send); // Nothing is discovered on the active path, which is not validated.
    CHECK(!(Connection->Send.SendFlags & QUIC_CONN_SEND_FLAG_DPLPMTUD));
    ForgeReceive(Connection, Forge(Connection, &Probed, 0, &Ping, 1), 1);
    CHECK(QuicAddrCompare(&Connection->Paths[0].Route.RemoteAddress, &Probed.RemoteAddress));
    CHECK(Connection->Send.SendFlags & QUIC_CONN_SEND_FLAG_DPLPMTUD);
    Done = 1;
}

int main(void)
{
    ForgeOpen();
    QUIC_CONNECTION* Server = (QUIC_CONNECTION*)UnitAccepted.Handle;
    for (int i = 0; i < 5000 && !Server->Paths[0].MtuDiscovery.IsSearchComplete; i++) { usleep(1000); }
    CHECK(Server->Paths[0].Mtu > Server->Settings.MinimumMtu);
    Hook = Receive;
    CHECK(HookSend(&ForgeClient, 2000) && Done);
    _exit(0);
}
