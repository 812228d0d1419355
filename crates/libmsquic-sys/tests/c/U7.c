// U7: every block of an ACK frame lies within 0..previous block; the range holds the largest number.
#include "unit.h"

static BOOLEAN Decode(const uint64_t* Values, int Count, BOOLEAN* Invalid, QUIC_RANGE* Range)
{
    uint8_t Frame[256], *End = Frame;
    uint16_t Offset = 0;
    uint64_t Delay;
    QUIC_ACK_ECN_EX Ecn;
    for (int i = 0; i < Count; i++) { End = QuicVarIntEncode(Values[i], End); }
    QuicRangeReset(Range);
    return QuicAckFrameDecode(QUIC_FRAME_ACK, (uint16_t)(End - Frame), Frame, &Offset, Invalid, Range, &Ecn, &Delay);
}
#define DECODE(...) Decode((const uint64_t[]) { __VA_ARGS__ }, sizeof((const uint64_t[]) { __VA_ARGS__ }) / 8, &Invalid, &Range)

int main(void)
{
    QUIC_RANGE Range;
    BOOLEAN Invalid;
    uint64_t Largest;
    alarm(20);
    QuicRangeInitialize(QUIC_MAX_RANGE_DECODE_ACKS, &Range);

    // Largest, delay, count of further blocks, first block, then pairs of gap and length.
    CHECK(DECODE(10, 0, 1, 2, 0, 6) && QuicRangeSize(&Range) == 2); // 8..10, 0..6
    CHECK(QuicRangeGet(&Range, 0)->Low == 0 && QuicRangeGetHigh(QuicRangeGet(&Range, 0)) == 6);
    CHECK(QuicRangeGetMaxSafe(&Range, &Largest) && Largest == 10);
    CHECK(DECODE(2, 0, 1, 0, 0, 0) && QuicRangeSize(&Range) == 2); // 2, 0
    CHECK(!DECODE(10, 0, 0, 11) && Invalid);                        // the first block below zero
    if (DECODE(10, 0, 1, 2, 0, 7)) {                                // 8..10, -1..6
        QuicRangeGetMaxSafe(&Range, &Largest);
        FAIL("a block below zero was accepted, the largest number is %llu", (unsigned long long)Largest);
    }
    CHECK(Invalid);
    // As observed: 3..1000000, which were never sent, behind a block that wraps.
    CHECK(!DECODE(1000000, 0, 1, 1000000 - 3, 0, 2) && Invalid);    // -1..1
    CHECK(!DECODE(1000000, 0, 1, 1000000 - 3, 0, QUIC_VAR_INT_MAX) && Invalid);
    CHECK(!DECODE(100, 0, 2, 0, 0, 90, 0, 7) && Invalid);           // the third block below zero
    CHECK(!DECODE(100, 0, 1, 99, 0, 0) && QuicRangeSize(&Range) == 1 && Invalid); // gap below zero
    CHECK(!DECODE(100, 0, 2, 0, 0, 98, 0, 0) && Invalid);           // nothing left for a third block
    QuicRangeUninitialize(&Range);
    return 0;
}
