// A flood on one socket must not keep the worker in its receive loop.
#include "datapath.h"

static int InRow, MaxInRow; // receive calls since the last epoll_wait

int epoll_wait(int Fd, struct epoll_event* Events, int Max, int Timeout)
{
    InRow = 0;
    return (int)syscall(SYS_epoll_pwait, Fd, Events, Max, Timeout, NULL, 0);
}

int recvmmsg(int Fd, struct mmsghdr* Msgs, unsigned Count, int Flags, struct timespec* Timeout)
{
    if (++InRow > MaxInRow) MaxInRow = InRow;
    if (Count > 2) Count = 2; // so that the socket buffer holds enough for many calls
    return (int)syscall(SYS_recvmmsg, Fd, Msgs, Count, Flags, Timeout);
}

static int Gate;
static void Block(CXPLAT_RECV_DATA* D) { (void)D; while (GET(Gate)) usleep(100); }

static void Run(void)
{
    DpOpen("127.0.0.1");
    MaxInRow = 0;
    Gate = 1;
    for (int i = 0; i < 150; i++) CHECK(send(Peer, "x", 1, 0) == 1);
    __atomic_store_n(&Gate, 0, __ATOMIC_SEQ_CST);
    CHECK(WAIT_FOR(GET(RecvPackets) == 150, 5000));
    CHECK(send(Peer, "x", 1, 0) == 1);
    CHECK(WAIT_FOR(GET(RecvPackets) == 151, 5000));
    DpClose();
    if (MaxInRow > 32) FAIL("gro %d: %d receive calls for one event", !NoGro, MaxInRow);
}

int main(void)
{
    OnReceive = Block;
    Run();
    NoGro = 1;
    Run();
    return 0;
}
