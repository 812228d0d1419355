// U5: bytes of a stream that were already received are never written again, in any receive mode.
#include "unit.h"

static uint8_t First[1 << 16]; // the value that was received first for each offset, 0 = not yet
static QUIC_RECV_BUFFER B;
static uint8_t AppMemory[4][1024];
static QUIC_RECV_CHUNK* AppChunks[4];

static void Init(QUIC_RECV_BUF_MODE Mode)
{
    memset(First, 0, sizeof(First));
    if (Mode == QUIC_RECV_BUF_MODE_APP_OWNED) {
        static CXPLAT_POOL Pool;
        CXPLAT_LIST_ENTRY List;
        CxPlatPoolInitialize(FALSE, sizeof(QUIC_RECV_CHUNK), QUIC_POOL_APP_BUFFER_CHUNK, &Pool);
        OK(QuicRecvBufferInitialize(&B, 0, 0, Mode, NULL));
        CxPlatListInitializeHead(&List);
        for (int i = 0; i < 4; i++) {
            AppChunks[i] = CxPlatPoolAlloc(&Pool);
            QuicRecvChunkInitialize(AppChunks[i], sizeof(AppMemory[i]), AppMemory[i], TRUE);
            CxPlatListInsertTail(&List, &AppChunks[i]->Link);
        }
        OK(QuicRecvBufferProvideChunks(&B, &List));
    } else {
        OK(QuicRecvBufferInitialize(&B, 64, 4096, Mode, NULL));
    }
}

static void Write(uint64_t Offset, uint16_t Length, uint8_t Value)
{
    uint8_t Data[4096];
    uint64_t Limit = UINT64_MAX;
    BOOLEAN Ready;
    memset(Data, Value, Length);
    OK(QuicRecvBufferWrite(&B, Offset, Length, Data, &Limit, &Ready));
    for (uint64_t i = Offset; i < Offset + Length; i++) {
        if (i >= B.BaseOffset && First[i] == 0) { First[i] = Value; }
    }
    const QUIC_SUBRANGE* R = QuicRangeGet(&B.WrittenRanges, 0);
    uint64_t Readable = R->Low == 0 ? R->Count - B.BaseOffset : 0;
    if (B.ReadLength != CXPLAT_MIN(Readable, B.Capacity)) {
        FAIL("mode %d: ReadLength %u, but %llu bytes are readable", B.RecvMode, B.ReadLength, (unsigned long long)Readable);
    }
}

static QUIC_BUFFER Lent[8];
static uint32_t LentCount;
static uint64_t LentOffset, LentLength;

static void Check(const char* When)
{
    uint64_t Offset = LentOffset;
    for (uint32_t i = 0; i < LentCount; i++) {
        for (uint32_t j = 0; j < Lent[i].Length; j++, Offset++) {
            if (Lent[i].Buffer[j] != First[Offset]) {
                FAIL("mode %d, %s: offset %llu holds '%c', first received was '%c'",
                    B.RecvMode, When, (unsigned long long)Offset, Lent[i].Buffer[j], First[Offset]);
            }
        }
    }
}

static void Read(void)
{
    LentCount = B.RecvMode == QUIC_RECV_BUF_MODE_SINGLE ? 1 : B.RecvMode == QUIC_RECV_BUF_MODE_CIRCULAR ? 2 :
        B.RecvMode == QUIC_RECV_BUF_MODE_MULTIPLE ? 3 : 8;
    QuicRecvBufferRead(&B, &LentOffset, &LentCount, Lent);
    LentLength = 0;
    for (uint32_t i = 0; i < LentCount; i++) { LentLength += Lent[i].Length; }
}

static uint32_t Random(uint32_t Limit)
{
    static uint32_t State = 12345;
    State = State * 1103515245 + 12345;
    return (State >> 8) % Limit;
}

int main(void)
{
    alarm(20);
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(CxPlatInitialize()));
    for (int Mode = QUIC_RECV_BUF_MODE_SINGLE; Mode <= QUIC_RECV_BUF_MODE_APP_OWNED; Mode++) {
        // Repeated from the start, and two holes in the middle; then again below a pending read.
        Init(Mode);
        Write(0, 10, 'A');
        Write(0, 20, 'B');
        Write(25, 5, 'C');
        Write(32, 3, 'D');
        Write(15, 30, 'E');
        Read();
        CHECK(LentLength == 45);
        Check("read");
        Write(0, 60, 'F');
        Check("pending read");
        CHECK(QuicRecvBufferDrain(&B, LentLength) == FALSE);
        Read();
        CHECK(LentLength == 15);
        Check("after drain");
        QuicRecvBufferUninitialize(&B);

        // Random frames, reads and partial drains.
        for (int Round = 0; Round < 300; Round++) {
            Init(Mode);
            LentCount = 0;
            uint64_t Total = 0;
            for (int i = 0; i < 200; i++) {
                uint64_t Offset = B.BaseOffset + Random(400);
                uint64_t Back = Random(100);
                Offset -= CXPLAT_MIN(Offset, Back);
                uint16_t Length = (uint16_t)(1 + Random(200));
                if (Offset + Length > 4096) { break; }
                Write(Offset, Length, (uint8_t)('A' + Random(58)));
                Check("pending read");
                if (LentCount == 0 && QuicRecvBufferHasUnreadData(&B) && Random(2)) {
                    Read();
                    Check("read");
                } else if (LentCount != 0 && Random(2)) {
                    uint64_t Drain = Random(2) ? LentLength : Random((uint32_t)LentLength + 1);
                    QuicRecvBufferDrain(&B, Drain);
                    Total += Drain;
                    LentCount = 0;
                    if (Mode == QUIC_RECV_BUF_MODE_MULTIPLE && B.ReadPendingLength != 0) {
                        // What was not drained stays lent; drain it too.
                        Total += B.ReadPendingLength;
                        QuicRecvBufferDrain(&B, B.ReadPendingLength);
                    }
                    if (CxPlatListIsEmpty(&B.Chunks)) { break; }
                }
            }
            CHECK(Total == B.BaseOffset);
            QuicRecvBufferUninitialize(&B);
        }
    }
    CxPlatUninitialize();
    MsQuicLibraryUnload();
    return 0;
}
