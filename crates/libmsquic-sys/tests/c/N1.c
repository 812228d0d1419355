// Every datagram of a coalesced batch must be delivered.
#include "datapath.h"

static uint8_t Next;
static void Check(CXPLAT_RECV_DATA* D)
{
    if (D->BufferLength != 100 || D->Buffer[0] != Next || D->Buffer[99] != Next)
        FAIL("datagram %u: length %u, first byte %u", Next, D->BufferLength, D->Buffer[0]);
    Next++;
}

static void Burst(int Count)
{
    static uint8_t Buffer[128 * 100];
    for (int i = 0; i < Count; i++) memset(Buffer + i * 100, i, 100);
    int Size = 100;
    if (setsockopt(Peer, SOL_UDP, UDP_SEGMENT, &Size, sizeof(Size)) != 0) {
        printf("no UDP_SEGMENT, skipped\n");
        exit(0);
    }
    for (int Round = 0; Round < 20; Round++) {
        const uint64_t Start = GET(RecvPackets);
        Next = 0;
        const ssize_t Ret = send(Peer, Buffer, Count * 100, 0);
        if (Ret < 0 && Count > 64) { printf("at most 64 segments here\n"); return; }
        CHECK(Ret == Count * 100);
        WAIT_FOR(GET(RecvPackets) >= Start + Count, 1000);
        if (GET(RecvPackets) != Start + Count)
            FAIL("%d datagrams sent in one burst, %d received", Count, (int)(GET(RecvPackets) - Start));
    }
}

int main(void)
{
    OnReceive = Check;
    for (NoGro = 0; NoGro < 2; NoGro++) {
        DpOpen("127.0.0.1"); Burst(53); Burst(64); Burst(128); DpClose();
        DpOpen("::1"); Burst(64); Burst(128); DpClose();
    }
    return 0;
}
