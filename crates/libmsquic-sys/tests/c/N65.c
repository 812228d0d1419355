// A readable socket with receive coalescing takes one recvmmsg, and a burst one for two messages.
#include "datapath.h"

static int Calls, Empty; // receive calls, and those that found nothing

int recvmmsg(int Fd, struct mmsghdr* Msgs, unsigned Count, int Flags, struct timespec* Timeout)
{
    int Ret = (int)syscall(SYS_recvmmsg, Fd, Msgs, Count, Flags, Timeout);
    if (Ret < 0) ADD(Empty, 1);
    ADD(Calls, 1);
    return Ret;
}

static int Gate;
static void Block(CXPLAT_RECV_DATA* D) { (void)D; while (GET(Gate)) usleep(100); }

static void Send(int Length) { char Data[1500] = {0}; CHECK(send(Peer, Data, Length, 0) == Length); }

int main(void)
{
    OnReceive = Block;
    DpOpen("127.0.0.1");
    CHECK(Dp->Features & CXPLAT_DATAPATH_FEATURE_RECV_COALESCING);
    __atomic_store_n(&Calls, 0, __ATOMIC_SEQ_CST);
    __atomic_store_n(&Empty, 0, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 100; i++) {
        Send(100);
        CHECK(WAIT_FOR(GET(RecvPackets) == (uint64_t)i + 1, 5000));
    }
    // A call returns before its packet is counted, so the last one may be missing.
    if (GET(Calls) > 101) FAIL("%d receive calls for 100 datagrams, %d of them for nothing", GET(Calls), GET(Empty));

    // The first one of a burst holds the worker up until the others are there.
    __atomic_store_n(&Gate, 1, __ATOMIC_SEQ_CST);
    Send(100);
    CHECK(WAIT_FOR(GET(Calls) == 101, 5000));
    __atomic_store_n(&Calls, 0, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 40; i++) Send(100 + i);
    __atomic_store_n(&Gate, 0, __ATOMIC_SEQ_CST);
    CHECK(WAIT_FOR(GET(RecvPackets) == 141, 5000));
    if (GET(Calls) > 21) FAIL("%d receive calls for a burst of 40 messages", GET(Calls));
    DpClose();
    return 0;
}
