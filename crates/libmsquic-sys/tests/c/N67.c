// The windows of streams grow only as far as the window of the connection has room for all of them.
#include "unit.h"

void QuicStreamOnBytesDelivered(QUIC_STREAM* Stream, uint64_t BytesDelivered);

enum { MIB = 1 << 20, FIRST = MIB / 8, STREAMS = 32, WINDOW = 16 * MIB };

static QUIC_CONNECTION* Connection;

static QUIC_STREAM* Open(void)
{
    QUIC_STREAM* Stream = calloc(1, sizeof(*Stream));
    Stream->Connection = Connection;
    OK(QuicRecvBufferInitialize(&Stream->RecvBuffer, 4096, FIRST, QUIC_RECV_BUF_MODE_CIRCULAR, NULL));
    Stream->MaxAllowedRecvOffset = FIRST;
    Stream->Flags.InWaitingList = TRUE;
    CxPlatListInitializeHead(&Stream->WaitingLink);
    Connection->Streams.Types[0].CurrentStreamCount++;
    return Stream;
}

// A reader that keeps up.
static uint32_t Grow(QUIC_STREAM* Stream)
{
    for (int i = 0; i < 20; i++) {
        Stream->RecvWindowLastUpdate = CxPlatTimeUs64();
        QuicStreamOnBytesDelivered(Stream, Stream->RecvBuffer.VirtualBufferLength / QUIC_RECV_BUFFER_DRAIN_RATIO);
    }
    return Stream->RecvBuffer.VirtualBufferLength;
}

static void Close(QUIC_STREAM* Stream)
{
    QuicStreamSetReleaseStream(&Connection->Streams, Stream);
    CxPlatListEntryRemove(&Stream->ClosedLink);
    QuicRecvBufferUninitialize(&Stream->RecvBuffer);
    free(Stream);
}

int main(void)
{
    alarm(5);
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(CxPlatInitialize()));
    Connection = calloc(1, sizeof(*Connection));
    CxPlatListInitializeHead(&Connection->Streams.ClosedStreams);
    Connection->State.ClosedLocally = TRUE; // so that no flag is queued on the sender
    Connection->Paths[0].SmoothedRtt = 1000000;
    Connection->Settings.ConnFlowControlWindow = WINDOW;
    Connection->Settings.PeerUnidiStreamCount = STREAMS / 2;
    Connection->Settings.PeerBidiStreamCount = STREAMS / 2;
    Connection->Settings.StreamRecvWindowUnidiDefault = FIRST;
    Connection->Settings.StreamRecvWindowBidiRemoteDefault = FIRST;

    QUIC_STREAM* Streams[STREAMS];
    for (int Round = 0; Round < 2; Round++) { // what closed streams had is free again
        uint64_t Sum = 0;
        for (int i = 0; i < STREAMS; i++) {
            Streams[i] = Open();
            Sum += Grow(Streams[i]);
        }
        if (Sum > WINDOW / 4 * 3) { FAIL("streams may fill %llu bytes", (unsigned long long)Sum); }
        CHECK(Streams[0]->RecvBuffer.VirtualBufferLength == 8 * MIB);
        for (int i = 0; i < STREAMS; i++) { Close(Streams[i]); }
    }

    // If the first windows do not fit, the growth is not limited.
    Connection->Settings.PeerUnidiStreamCount = 100;
    Streams[0] = Open();
    CHECK(Grow(Streams[0]) == WINDOW);
    Close(Streams[0]);

    free(Connection);
    CxPlatUninitialize();
    MsQuicLibraryUnload();
    return 0;
}
