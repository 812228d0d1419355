// A datagram that waits for its connection must not hold a block that has room for 64 KiB.
#include "datapath.h"

#define COUNT 100

static size_t Used(void)
{
    struct mallinfo2 M = mallinfo2();
    return M.uordblks + M.hblkhd;
}

static uint8_t Data[9000];

// Sends one datagram, or several of one size with one call, and waits until they have arrived.
static void Send(int Length, int Segment)
{
    const uint64_t Expected = GET(RecvPackets) + (Segment ? (Length + Segment - 1) / Segment : 1);
    CHECK(setsockopt(Peer, SOL_UDP, UDP_SEGMENT, &Segment, sizeof(Segment)) == 0);
    CHECK(send(Peer, Data, Length, 0) == Length);
    CHECK(WAIT_FOR(GET(RecvPackets) == Expected, 5000));
}

// Checks the datagram that was kept last and removes it.
static void Take(int Offset, int Length, uint16_t Port)
{
    CXPLAT_RECV_DATA* D = Kept;
    CHECK(D != NULL && D->BufferLength == Length && memcmp(D->Buffer, Data + Offset, Length) == 0);
    CHECK(QuicAddrGetPort(&D->Route->RemoteAddress) == Port);
    Kept = D->Next;
    D->Next = NULL;
    CxPlatRecvDataReturn(D);
}

static void Run(int WithoutGro)
{
    NoGro = WithoutGro;
    DpOpen("127.0.0.1");
    QUIC_ADDR Local = { 0 };
    socklen_t Size = sizeof(Local);
    CHECK(getsockname(Peer, &Local.Ip, &Size) == 0);
    const uint16_t Port = QuicAddrGetPort(&Local);
    Keeps = 1;
    Send(1, 0);
    const size_t Before = Used();
    for (int i = 1; i <= COUNT; i++) Send(i * 14, 0);
    const size_t Held = Used() - Before;
    // Several at once, and one that is too large for a small block.
    Send(1000, 300);
    if (!WithoutGro) {
        Send(sizeof(Data), 0);
        Take(0, sizeof(Data), Port);
    }
    Take(900, 100, Port);
    for (int i = 2; i >= 0; i--) Take(i * 300, 300, Port);
    for (int i = COUNT; i >= 1; i--) Take(0, i * 14, Port);
    Take(0, 1, Port);
    CHECK(Kept == NULL);
    Keeps = 0;
    DpClose();
    if (Held > COUNT * 4096) FAIL("gro %d: %zu bytes for each datagram", !WithoutGro, Held / COUNT);
}

int main(void)
{
    for (size_t i = 0; i < sizeof(Data); i++) Data[i] = (uint8_t)(i * 31 >> 3);
    Run(0);
    Run(1);
    return 0;
}
