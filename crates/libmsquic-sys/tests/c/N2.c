// A send queued while the flusher is about to disarm EPOLLOUT must not lose its wake-up.
#include "datapath.h"

static __thread int Again;      // the next sends of this thread fail with EAGAIN
static int Every;               // every n-th send of any thread fails with EAGAIN
static unsigned Sends;
static int Trap;                // 1: stop at the next disarm, 2: stopped
static pthread_t Second;

static int Fails(void)
{
    const int E = GET(Every);
    if (Again > 0) { Again--; errno = EAGAIN; return 1; }
    if (E != 0 && ADD(Sends, 1) % E == 0) { errno = EAGAIN; return 1; }
    return 0;
}

ssize_t sendmsg(int Fd, const struct msghdr* Msg, int Flags)
{
    return Fails() ? -1 : (ssize_t)syscall(SYS_sendmsg, Fd, Msg, Flags);
}

int sendmmsg(int Fd, struct mmsghdr* Msgs, unsigned Count, int Flags)
{
    return Fails() ? -1 : (int)syscall(SYS_sendmmsg, Fd, Msgs, Count, Flags);
}

static QUIC_ADDR PeerAddress;

static void Send(uint8_t Thread, uint32_t Number)
{
    CXPLAT_ROUTE Route = { 0 };
    Route.RemoteAddress = PeerAddress;
    CxPlatSocketGetLocalAddress(Sock, &Route.LocalAddress);
    CXPLAT_SEND_CONFIG Config = { &Route, 1200, 0, 0, 0 };
    CXPLAT_SEND_DATA* Data = CxPlatSendDataAlloc(Sock, &Config);
    CHECK(Data != NULL);
    QUIC_BUFFER* Buffer = CxPlatSendDataAllocBuffer(Data, 5);
    CHECK(Buffer != NULL);
    Buffer->Buffer[0] = Thread;
    memcpy(Buffer->Buffer + 1, &Number, 4);
    CxPlatSocketSend(Sock, &Route, Data);
}

static void* SendInTrap(void* Done)
{
    Again = 1;
    Send(1, 1);
    ADD(*(int*)Done, 1);
    return NULL;
}

int epoll_ctl(int Ep, int Op, int Fd, struct epoll_event* Event)
{
    int Expected = 1;
    if (Op == EPOLL_CTL_MOD && Event->events == EPOLLIN &&
        __atomic_compare_exchange_n(&Trap, &Expected, 2, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        static int Done;
        Done = 0;
        CHECK(pthread_create(&Second, NULL, SendInTrap, &Done) == 0);
        WAIT_FOR(GET(Done), 200); // with the lock held here, the send has to wait
    }
    return (int)syscall(SYS_epoll_ctl, Ep, Op, Fd, Event);
}

static uint32_t NextOf[2];
static int ReadPeer(int Ms)
{
    uint8_t B[8];
    uint32_t Number;
    struct pollfd P = { Peer, POLLIN, 0 };
    if (poll(&P, 1, Ms) != 1) return 0;
    CHECK(recv(Peer, B, sizeof(B), 0) == 5 && B[0] < 2);
    memcpy(&Number, B + 1, 4);
    if (Number != NextOf[B[0]]) FAIL("thread %u: packet %u instead of %u", B[0], Number, NextOf[B[0]]);
    NextOf[B[0]]++;
    return 1;
}

#define COUNT 2000
static void* Sender(void* Arg)
{
    const uint8_t Thread = (uint8_t)(size_t)Arg;
    for (uint32_t i = 0; i < COUNT; i++) {
        while (i > GET(NextOf[Thread]) + 50) usleep(50);
        Send(Thread, i);
    }
    return NULL;
}

static void Run(void)
{
    DpOpen("127.0.0.1");
    socklen_t Length = sizeof(PeerAddress);
    CHECK(getsockname(Peer, &PeerAddress.Ip, &Length) == 0);

    // The interleaving that loses the wake-up.
    memset(NextOf, 0, sizeof(NextOf));
    NextOf[1] = 1;
    Trap = 1;
    Again = 1;
    Send(0, 0);
    CHECK(WAIT_FOR(GET(Trap) == 2, 2000));
    CHECK(ReadPeer(1000));
    while (!Second) usleep(1000);
    pthread_join(Second, NULL);
    Send(0, 1);
    if (!ReadPeer(1000) || !ReadPeer(1000))
        FAIL("gro %d: queued datagrams are never sent (received %u and %u)", !NoGro, NextOf[0], NextOf[1] - 1);
    Second = 0;

    // Two threads, every third send fails with EAGAIN; each thread's packets arrive complete and in order.
    memset(NextOf, 0, sizeof(NextOf));
    pthread_t T[2];
    __atomic_store_n(&Every, 3, __ATOMIC_SEQ_CST);
    for (size_t i = 0; i < 2; i++) CHECK(pthread_create(&T[i], NULL, Sender, (void*)i) == 0);
    while (NextOf[0] + NextOf[1] < 2 * COUNT)
        if (!ReadPeer(2000)) FAIL("gro %d: nothing is sent after %u and %u packets", !NoGro, NextOf[0], NextOf[1]);
    for (size_t i = 0; i < 2; i++) pthread_join(T[i], NULL);
    __atomic_store_n(&Every, 0, __ATOMIC_SEQ_CST);
    CHECK(WAIT_FOR(CxPlatListIsEmpty(&Sock->SocketContexts[0].TxQueue), 2000));
    DpClose();
}

int main(void)
{
    Run();
    NoGro = 1;
    Run();
    return 0;
}
