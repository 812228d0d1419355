// U28: a frame that is skipped (its stream is gone, or the connection is closed) is skipped by its
// own format.
#include "unit.h"

int main(void)
{
    alarm(20);
    uint8_t Frames[64] = { 0 };
    uint16_t Length = 0, Offset;
    // Values that need more than one byte, and a PING after the frame.
    QUIC_RELIABLE_RESET_STREAM_EX Reset = { 4, 70, 100000, 20000 };
    CHECK(QuicReliableResetFrameEncode(&Reset, &Length, sizeof(Frames), Frames));
    const uint16_t End = Length;
    Frames[Length++] = QUIC_FRAME_PING;

    Offset = 1; // behind the frame type
    CHECK(QuicStreamFrameSkip(QUIC_FRAME_RELIABLE_RESET_STREAM, Length, Frames, &Offset));
    if (Offset != End) { FAIL("the frame ends at %u, but %u was skipped to", End, Offset); }
    Offset = 1;
    CHECK(!QuicStreamFrameSkip(QUIC_FRAME_RELIABLE_RESET_STREAM, End - 1, Frames, &Offset)); // cut short

    for (uint64_t Type = QUIC_FRAME_STREAM; Type <= QUIC_FRAME_STREAM_7; Type++) {
        const uint8_t Stream[] = { 4, 5, 3, 'a', 'b', 'c', 'd', 'e', 'f' };
        QUIC_STREAM_EX Frame;
        uint16_t Expected = 0;
        Offset = 0;
        CHECK(QuicStreamFrameDecode((QUIC_FRAME_TYPE)Type, sizeof(Stream), Stream, &Expected, &Frame));
        CHECK(QuicStreamFrameSkip((QUIC_FRAME_TYPE)Type, sizeof(Stream), Stream, &Offset) && Offset == Expected);
    }
    Offset = 0;
    CHECK(!QuicStreamFrameSkip(QUIC_FRAME_NEW_TOKEN, Length, Frames, &Offset)); // no frame of a stream
    return 0;
}
