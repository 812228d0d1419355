// When no operation can be allocated, received packets are dropped and not queued for ever, and
// an expired timer fires again later.
#include "forge.h"

extern void* __libc_malloc(size_t);
static __thread int FailMalloc;
void* malloc(size_t Size) { return FailMalloc ? NULL : __libc_malloc(Size); }

static int Pass;
static uint32_t Left;
static uint64_t Timer;
static void TestHook(QUIC_CONNECTION* Connection)
{
    if (Pass++ != 0) { return; }
    QUIC_RX_PACKET* Packet = Forge(Connection, &Connection->Paths[0].Route, 0, "\x01", 1);
    uint64_t Now = CxPlatTimeUs64();
    Connection->ExpirationTimes[QUIC_CONN_TIMER_KEEP_ALIVE] = Now;

    uint32_t Count = 0;
    FailMalloc = 1;
    CXPLAT_SLIST_ENTRY* Taken[1000];
    while (Count < 1000 && (Taken[Count] = CxPlatPoolAlloc(&Connection->Partition->OperPool)) != NULL) { Count++; }
    QuicConnQueueRecvPackets(Connection, Packet, 1, Packet->BufferLength);
    QuicConnTimerExpired(Connection, Now);
    FailMalloc = 0;
    while (Count != 0) { CxPlatPoolFree(Taken[--Count]); }

    Left = Connection->ReceiveQueueCount;
    Timer = Connection->ExpirationTimes[QUIC_CONN_TIMER_KEEP_ALIVE];
}

int main(void)
{
    ForgeOpen();
    Hook = TestHook;
    CHECK(HookSend(&ForgeClient, 5000));
    if (Left != 0) { FAIL("%u packets stay in the queue", Left); }
    if (Timer == UINT64_MAX) { FAIL("the timer is lost"); }
    CHECK(HookSend(&ForgeClient, 5000)); // the connection still receives
    _exit(0); // the forged packet is not freed
}
