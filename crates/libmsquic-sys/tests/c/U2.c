// Empty datagrams, alone and among datagrams with data, must not keep their receive blocks.
#include "datapath.h"

static size_t Used(void)
{
    struct mallinfo2 M = mallinfo2();
    return M.uordblks + M.hblkhd;
}

static void Burst(int Empty, int Mixed)
{
    const uint64_t Start = GET(RecvPackets);
    int Data = 1;
    for (int i = 0; i < Empty; i++) {
        CHECK(send(Peer, "", 0, 0) == 0);
        if (Mixed) { CHECK(send(Peer, "x", 1, 0) == 1); Data++; }
    }
    CHECK(send(Peer, "x", 1, 0) == 1);
    CHECK(WAIT_FOR(GET(RecvPackets) == Start + Data, 5000));
}

static void Run(int WithoutGro, int Mixed)
{
    NoGro = WithoutGro;
    DpOpen("127.0.0.1");
    Burst(60, 1);
    const size_t Before = Used();
    for (int i = 0; i < 20; i++) Burst(60, Mixed);
    const size_t After = Used();
    const size_t Size = Sock->SocketContexts[0].DatapathPartition->RecvBlockPool.Size;
    if (After > Before + 300 * Size) {
        FAIL("gro %d mixed %d: 1200 empty datagrams keep %zu blocks of %zu bytes",
            !WithoutGro, Mixed, (After - Before) / Size, Size);
    }
    DpClose();
}

int main(void)
{
    Run(0, 0); Run(0, 1); Run(1, 0); Run(1, 1);
    return 0;
}
