// How libmsquic puts received data together: receive buffers and sets of numbers, compared with simple models. The
// bytes of an input choose the operations.
//
// What is read is what was written, in order and once, wherever the writes overlap. What a program was given does not
// change until the program has returned it, which receiving without a copy relies on.
#include "feedback.h"

// The longest stream of an input, and how many reads may be pending.
#define STREAM_LENGTH 0x4000
#define READS 64

static const uint8_t* Next;
static const uint8_t* End;

static uint32_t Byte(void) { return Next < End ? *Next++ : 0; }

static uint8_t Content(uint64_t Offset) { return (uint8_t)((Offset * 0x9e3779b97f4a7c15) >> 56); }

int LLVMFuzzerInitialize(int* Count, char*** Arguments)
{
    (void)Count; (void)Arguments;
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(CxPlatInitialize()));
    return 0;
}

// Bytes that the program was given and has not returned.
typedef struct READ {
    uint64_t Offset;
    QUIC_BUFFER Buffer;
} READ;

static void CheckRead(const READ* Read)
{
    for (uint32_t i = 0; i < Read->Buffer.Length; i++) {
        CHECK(Read->Buffer.Buffer[i] == Content(Read->Offset + i));
    }
}

static void ReceiveBuffer(void)
{
    static uint8_t Received[STREAM_LENGTH];
    static READ Reads[READS];
    QUIC_RECV_BUFFER Buffer;
    uint8_t Data[256];
    uint64_t Returned = 0, Pending = 0, Contiguous = 0, Total = 0;
    uint32_t Count = 0;
    const QUIC_RECV_BUF_MODE Mode = (QUIC_RECV_BUF_MODE)(Byte() % 3);
    const uint32_t Sizes = Byte(), Allocated = 8u << (Sizes & 3);
    memset(Received, 0, sizeof(Received));
    CHECK(QUIC_SUCCEEDED(QuicRecvBufferInitialize(&Buffer, Allocated, Allocated << (Sizes >> 2 & 3), Mode, NULL)));
    while (Next < End) {
        const uint32_t Operation = Byte();
        switch (Operation & 3) {
        case 0:
        case 1: { // A frame arrives: near what was returned, or behind what is contiguous.
            const uint64_t Start = Operation & 1 ? Contiguous : Returned - (Returned < 16 ? Returned : 16);
            const uint64_t Offset = Start + (Operation >> 2) * (Operation & 1 ? 1 : 4);
            const uint16_t Length = (uint16_t)(1 + Byte() % 255);
            const uint64_t Limit = Operation & 64 ? 64 : UINT64_MAX;
            const BOOLEAN IsOld = Offset + Length <= Returned;
            const uint64_t Added = IsOld || Offset + Length <= Total ? 0 : Offset + Length - Total;
            const BOOLEAN IsRejected = !IsOld &&
                (Offset + Length > Returned + Buffer.VirtualBufferLength || Added > Limit);
            uint64_t Taken = Limit;
            BOOLEAN IsReady;
            if (Offset + Length > STREAM_LENGTH) { break; }
            for (uint16_t i = 0; i < Length; i++) { // A peer may send other bytes the second time.
                Data[i] = Content(Offset + i) ^ (Received[Offset + i] ? 0xff : 0);
            }
            const QUIC_STATUS Status = QuicRecvBufferWrite(&Buffer, Offset, Length, Data, &Taken, &IsReady);
            CHECK(Status == (IsRejected ? QUIC_STATUS_BUFFER_TOO_SMALL : QUIC_STATUS_SUCCESS));
            if (IsRejected) { break; }
            CHECK(Taken == Added);
            if (Offset + Length > Total) { Total = Offset + Length; }
            memset(Received + Offset, 1, Length);
            const uint64_t Before = Contiguous;
            while (Contiguous < STREAM_LENGTH && Received[Contiguous]) { Contiguous++; }
            CHECK(IsReady == (Contiguous > Before));
            break;
        }
        case 2: { // The program reads.
            QUIC_BUFFER Buffers[3];
            uint32_t BufferCount = QuicRecvBufferReadBufferNeededCount(&Buffer);
            uint64_t Offset;
            if (Contiguous == Returned + Pending || (Pending != 0 && Mode != QUIC_RECV_BUF_MODE_MULTIPLE) ||
                Count + BufferCount > READS) {
                break;
            }
            QuicRecvBufferRead(&Buffer, &Offset, &BufferCount, Buffers);
            CHECK(Offset == Returned + Pending && BufferCount > 0);
            for (uint32_t i = 0; i < BufferCount; i++) {
                CHECK(Buffers[i].Length != 0);
                Reads[Count++] = (READ){ Offset, Buffers[i] };
                Offset += Buffers[i].Length;
            }
            CHECK(Offset == Contiguous);
            Pending = Contiguous - Returned;
            break;
        }
        default: { // The program returns the first bytes; or the limit of the stream grows.
            if (Operation & 128) {
                if (Buffer.VirtualBufferLength < 0x1000) {
                    QuicRecvBufferIncreaseVirtualBufferLength(&Buffer, Buffer.VirtualBufferLength * 2);
                }
                break;
            }
            if (Pending == 0) { break; }
            const uint64_t Length = Operation & 64 ? Pending : Byte() % (Pending + 1);
            CHECK(QuicRecvBufferDrain(&Buffer, Length) == (Returned + Length == Contiguous));
            Returned += Length;
            Pending = Mode == QUIC_RECV_BUF_MODE_MULTIPLE ? Pending - Length : 0;
            uint32_t Left = 0;
            for (uint32_t i = 0; i < Count && Pending != 0; i++) {
                READ Read = Reads[i];
                if (Read.Offset + Read.Buffer.Length <= Returned) { continue; }
                if (Read.Offset < Returned) {
                    const uint32_t Done = (uint32_t)(Returned - Read.Offset);
                    Read = (READ){ Returned, { Read.Buffer.Length - Done, Read.Buffer.Buffer + Done } };
                }
                Reads[Left++] = Read;
            }
            Count = Left;
            break;
        }
        }
        CHECK(QuicRecvBufferGetTotalLength(&Buffer) == Total);
        CHECK(QuicRecvBufferHasUnreadData(&Buffer) == (Contiguous > Returned + Pending));
        for (uint32_t i = 0; i < Count; i++) { CheckRead(&Reads[i]); }
    }
    QuicRecvBufferUninitialize(&Buffer);
}

// A set of numbers, such as of packets and of bytes, against a bitmap.
static void Range(void)
{
    uint8_t Has[512] = { 0 };
    QUIC_RANGE Set;
    QuicRangeInitialize(QUIC_MAX_RANGE_ALLOC_SIZE, &Set);
    while (Next < End) {
        const uint32_t Operation = Byte(), Low = Byte(), Length = 1 + Byte() % (Operation & 4 ? 8 : 128);
        BOOLEAN IsNew = FALSE, IsUpdated;
        switch (Operation & 3) {
        case 0:
        case 1:
            for (uint32_t i = Low; i < Low + Length; i++) { IsNew |= !Has[i]; Has[i] = 1; }
            CHECK(QuicRangeAddRange(&Set, Low, Length, &IsUpdated) != NULL && IsUpdated == IsNew);
            break;
        case 2:
            memset(Has + Low, 0, Length);
            CHECK(QuicRangeRemoveRange(&Set, Low, Length));
            break;
        default:
            memset(Has, 0, Low);
            QuicRangeSetMin(&Set, Low);
            break;
        }
        // The same numbers in ascending, separate ranges.
        uint32_t Number = 0;
        for (uint32_t i = 0; i < QuicRangeSize(&Set); i++) {
            const QUIC_SUBRANGE* Sub = QuicRangeGet(&Set, i);
            CHECK(Sub->Count != 0 && Sub->Low >= Number && Sub->Low + Sub->Count <= sizeof(Has) && (i == 0 || Sub->Low > Number));
            while (Number < Sub->Low) { CHECK(!Has[Number++]); }
            while (Number < Sub->Low + Sub->Count) { CHECK(Has[Number++]); }
        }
        while (Number < sizeof(Has)) { CHECK(!Has[Number++]); }
    }
    QuicRangeUninitialize(&Set);
}

int LLVMFuzzerTestOneInput(const uint8_t* In, size_t Size)
{
    if (Size < 4 || Size > 2048) { return -1; }
    Next = In + 1;
    End = In + Size;
    if (In[0] & 1) { ReceiveBuffer(); } else { Range(); }
    return 0;
}
