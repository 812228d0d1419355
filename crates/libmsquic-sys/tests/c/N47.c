// An acknowledgement that is due carries no window update while the peer has credit.
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
    BOOLEAN Updated;
    QuicRangeInitialize(QUIC_MAX_RANGE_ALLOC_SIZE, &Stream.RecvBuffer.WrittenRanges);
    CHECK(QuicRangeAddRange(&Stream.RecvBuffer.WrittenRanges, 0, 128, &Updated) != NULL);
    Stream.MaxAllowedRecvOffset = 65536;
    Stream.Flags.RemoteCloseAcked = TRUE; // so that nothing is sent for it
    uint32_t Before = Connection->Send.SendFlags;
    Connection->Send.SendFlags |= QUIC_CONN_SEND_FLAG_ACK;
    QuicStreamOnBytesDelivered(&Stream, 128);
    uint32_t After = Connection->Send.SendFlags;
    Connection->Send.SendFlags = Before;
    CHECK(Stream.MaxAllowedRecvOffset == 65536 && !((After & ~Before) & QUIC_CONN_SEND_FLAG_MAX_DATA));
    // With little credit left, the update goes with the ACK.
    Stream.MaxAllowedRecvOffset = 16000;
    Connection->Send.SendFlags |= QUIC_CONN_SEND_FLAG_ACK;
    Connection->Send.Uninitialized = TRUE; // an assertion would expect a packet to acknowledge
    QuicStreamOnBytesDelivered(&Stream, 128);
    Connection->Send.Uninitialized = FALSE;
    Connection->Send.SendFlags &= ~QUIC_CONN_SEND_FLAG_ACK;
    CHECK(Stream.MaxAllowedRecvOffset == 65536 + 128);
    Stream.RecvBuffer.BaseOffset = 60000;
    QuicStreamOnBytesDelivered(&Stream, 60000 - 256);
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
