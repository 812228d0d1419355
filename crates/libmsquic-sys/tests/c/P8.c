// Data for a stream whose receive window is smaller than 4 bytes does not end in a division by zero.
#include "forge.h"

void QuicStreamOnBytesDelivered(QUIC_STREAM*, uint64_t); // not declared in a header

static int Done;
static void TestHook(QUIC_CONNECTION* Connection)
{
    static QUIC_STREAM Stream;
    if (Done) { return; }
    Stream.Connection = Connection;
    Stream.RecvBuffer.VirtualBufferLength = 1;
    Stream.RecvBuffer.BaseOffset = 1;
    Stream.Flags.RemoteCloseAcked = TRUE; // so that nothing is sent for it
    QuicStreamOnBytesDelivered(&Stream, 1);
    CHECK(Stream.RecvWindowBytesDelivered == 0 && Stream.MaxAllowedRecvOffset >= 2);
    Done = 1;
}

int main(void)
{
    ForgeOpen();
    Hook = TestHook;
    CHECK(HookSend(&ForgeClient, 5000));
    CHECK(Done);
    _exit(0);
}
