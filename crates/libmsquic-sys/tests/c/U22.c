// U22: the route of a received datagram has only the fields that the receive path has set.
#include "datapath.h"

void* malloc(size_t Size) // fresh memory is not zero
{
    static void* (*Real)(size_t);
    if (Real == NULL) Real = (void* (*)(size_t))dlsym(RTLD_NEXT, "malloc");
    void* P = Real(Size);
    if (P != NULL && Size >= 1024) memset(P, 0xA5, Size);
    return P;
}

static void Check(CXPLAT_RECV_DATA* D)
{
    const CXPLAT_ROUTE* R = D->Route;
    if (R->UseQTIP) FAIL("UseQTIP is set");
    static const uint8_t Zero[64];
    if (memcmp(R->LocalLinkLayerAddress, Zero, 6) || memcmp(R->NextHopLinkLayerAddress, Zero, 6))
        FAIL("link layer addresses are set");
    if (memcmp(&R->TcpState, Zero, sizeof(R->TcpState))) FAIL("TcpState is set");
    if (R->LocalAddress.Ip.sa_family == QUIC_ADDRESS_FAMILY_INET6 && R->LocalAddress.Ipv6.sin6_flowinfo != 0)
        FAIL("flow label 0x%x", R->LocalAddress.Ipv6.sin6_flowinfo);
    if (R->State != RouteResolved || R->Queue != &Sock->SocketContexts[0]) FAIL("route not set");
}

int main(void)
{
    OnReceive = Check;
    for (NoGro = 0; NoGro < 2; NoGro++) {
        for (int V6 = 0; V6 < 2; V6++) {
            DpOpen(V6 ? "::1" : "127.0.0.1");
            for (int i = 0; i < 20; i++) CHECK(send(Peer, "x", 1, 0) == 1);
            CHECK(WAIT_FOR(GET(RecvPackets) == 20, 5000));
            DpClose();
        }
    }
    return 0;
}
