// U18: doubling a receive window of 2 GiB, and growing a receive buffer beyond it, must not wrap to 0.
#include "unit.h"

void QuicStreamOnBytesDelivered(QUIC_STREAM* Stream, uint64_t BytesDelivered);
static uint8_t Byte;

int main(void)
{
    alarm(5);
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(CxPlatInitialize()));

    //
    // A fast reader of a stream, whose connection allows 3 GiB. An ACK that is
    // queued makes the stream send its new limit; sending is not part of the test.
    //
    for (uint32_t Window = 1u << 16; Window != 0; Window <<= 1) {
        QUIC_CONNECTION* Connection = calloc(1, sizeof(*Connection));
        QUIC_STREAM* Stream = calloc(1, sizeof(*Stream));
        Stream->Connection = Connection;
        Connection->Settings.ConnFlowControlWindow = 3u << 30;
        Connection->Paths[0].SmoothedRtt = 1000000;
        OK(QuicRecvBufferInitialize(&Stream->RecvBuffer, 4096, Window, QUIC_RECV_BUF_MODE_CIRCULAR, NULL));
        Stream->RecvWindowLastUpdate = CxPlatTimeUs64();
        Stream->MaxAllowedRecvOffset = Window;
        Connection->State.ClosedLocally = TRUE; // so that no flag is queued on the sender
        QuicStreamOnBytesDelivered(Stream, Window / QUIC_RECV_BUFFER_DRAIN_RATIO);
        uint32_t Expected = Window <= 1u << 30 ? Window * 2 : Window;
        if (Stream->RecvBuffer.VirtualBufferLength != Expected) {
            FAIL("a window of %u became %u", Window, Stream->RecvBuffer.VirtualBufferLength);
        }
        CHECK(Stream->MaxAllowedRecvOffset == Expected);
        QuicRecvBufferUninitialize(&Stream->RecvBuffer);
        free(Stream);
        free(Connection);
    }

    //
    // A buffer that fills 2 GiB (only the length is needed, not the memory) and a frame behind it.
    //
    QUIC_RECV_BUFFER B;
    QUIC_RECV_CHUNK* Chunk;
    uint64_t Limit = UINT64_MAX;
    BOOLEAN Ready;
    OK(QuicRecvBufferInitialize(&B, 4096, 1u << 31, QUIC_RECV_BUF_MODE_SINGLE, NULL));
    Chunk = CXPLAT_CONTAINING_RECORD(B.Chunks.Flink, QUIC_RECV_CHUNK, Link);
    Chunk->AllocLength = B.Capacity = 1u << 31;
    B.VirtualBufferLength = UINT32_MAX;
    CHECK(QuicRecvBufferWrite(&B, 1u << 31, 1, &Byte, &Limit, &Ready) == QUIC_STATUS_OUT_OF_MEMORY);
    CHECK(Chunk->AllocLength == 1u << 31 && QuicRangeSize(&B.WrittenRanges) == 0);
    QuicRecvBufferUninitialize(&B);

    CxPlatUninitialize();
    MsQuicLibraryUnload();
    return 0;
}
