// An acknowledgement that is due carries no window update before the window needs one.
#include "forge.h"

void QuicStreamOnBytesDelivered(QUIC_STREAM*, uint64_t); // not declared in a header

static int Done;
static void TestHook(QUIC_CONNECTION* Connection)
{
    static QUIC_STREAM Stream;
    if (Done) { return; }
    Stream.Connection = Connection;
    Stream.RecvBuffer.VirtualBufferLength = 65536;
    Stream.RecvBuffer.BaseOffset = 128;
    Stream.MaxAllowedRecvOffset = 65536;
    Stream.Flags.RemoteCloseAcked = TRUE; // so that nothing is sent for it
    uint32_t Before = Connection->Send.SendFlags;
    Connection->Send.SendFlags |= QUIC_CONN_SEND_FLAG_ACK;
    QuicStreamOnBytesDelivered(&Stream, 128);
    uint32_t After = Connection->Send.SendFlags;
    Connection->Send.SendFlags = Before;
    CHECK(Stream.MaxAllowedRecvOffset == 65536 && !((After & ~Before) & QUIC_CONN_SEND_FLAG_MAX_DATA));
    Stream.RecvBuffer.BaseOffset = 60000;
    QuicStreamOnBytesDelivered(&Stream, 60000 - 128);
    CHECK(Stream.MaxAllowedRecvOffset == 65536 + 60000);
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
