// N28: if a queue of the system drops a datagram, which is reported to shared sockets, the rest of
// its batch is still sent.
#include "datapath.h"

static int Drops;

static int Fails(void)
{
    if (GET(Drops) == 0) { return 0; }
    ADD(Drops, -1);
    errno = ENOBUFS;
    return 1;
}

ssize_t sendmsg(int Fd, const struct msghdr* Msg, int Flags)
{
    return Fails() ? -1 : (ssize_t)syscall(SYS_sendmsg, Fd, Msg, Flags);
}

int sendmmsg(int Fd, struct mmsghdr* Msgs, unsigned Count, int Flags)
{
    return Fails() ? -1 : (int)syscall(SYS_sendmmsg, Fd, Msgs, Count, Flags);
}

int main(void)
{
    Drops = 1; // The first send uses segmentation; without segmentation a batch has several datagrams.
    DpOpen("127.0.0.1");
    CHECK(GET(Drops) == 0 && !(Dp->Features & CXPLAT_DATAPATH_FEATURE_SEND_SEGMENTATION));
    CXPLAT_ROUTE Route = { 0 };
    socklen_t Length = sizeof(Route.RemoteAddress);
    CHECK(getsockname(Peer, &Route.RemoteAddress.Ip, &Length) == 0);
    CxPlatSocketGetLocalAddress(Sock, &Route.LocalAddress);
    CXPLAT_SEND_CONFIG Config = { &Route, 100, 0, 0, 0 };
    CXPLAT_SEND_DATA* Data = CxPlatSendDataAlloc(Sock, &Config);
    CHECK(Data != NULL);
    for (uint8_t i = 0; i < 5; i++) {
        QUIC_BUFFER* Buffer = CxPlatSendDataAllocBuffer(Data, 100);
        CHECK(Buffer != NULL);
        Buffer->Buffer[0] = i;
    }
    Drops = 2;
    CxPlatSocketSend(Sock, &Route, Data);
    for (uint8_t i = 2; i < 5; i++) {
        uint8_t Received[100];
        struct pollfd Poll = { Peer, POLLIN, 0 };
        CHECK(poll(&Poll, 1, 2000) == 1 && recv(Peer, Received, sizeof(Received), 0) == 100);
        CHECK(Received[0] == i);
    }
    DpClose();
    return 0;
}
