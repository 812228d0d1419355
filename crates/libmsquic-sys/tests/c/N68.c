// BBR sends at its pacing rate: the estimated bandwidth times the gain of its state, whatever the size of a packet.
#include "unit.h"

enum { PACKET = 1200, RTT_US = 40000, INTERVAL_US = 1000 };

static QUIC_STATUS QUIC_API Callback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Handle);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Event);
    return QUIC_STATUS_SUCCESS;
}

// Sends what is allowed after the interval, and has it all acknowledged. Returns the bytes.
static uint64_t Flush(QUIC_CONGESTION_CONTROL* Cc, uint64_t Interval)
{
    uint64_t Sent = 0;
    int64_t Allowance = QuicCongestionControlGetSendAllowance(Cc, Interval, TRUE);
    for (; Allowance > 0; Allowance -= PACKET) {
        QuicCongestionControlOnDataSent(Cc, PACKET);
        Sent += PACKET;
    }
    Cc->Bbr.BytesInFlight = 0;
    return Sent;
}

// Sends for a second with such an estimate of the bandwidth, in bytes per second, of which `Gain` 256ths are
// expected, but at least those of four packets for each round trip.
static void Second(QUIC_CONNECTION* Connection, uint32_t State, uint64_t Bandwidth, uint32_t Gain)
{
    QUIC_CONGESTION_CONTROL* Cc = &Connection->CongestionControl;
    QUIC_CONGESTION_CONTROL_BBR* Bbr = &Cc->Bbr;
    QuicCongestionControlReset(Cc, TRUE);
    Bbr->MinRtt = RTT_US;
    Bbr->MinRttTimestampValid = TRUE;
    Bbr->BbrState = State;
    Bbr->PacingGain = Gain;
    Bbr->CongestionWindow = (uint32_t)CXPLAT_MAX(2 * Bandwidth * RTT_US / 1000000, 4 * PACKET);
    QuicSlidingWindowExtremumUpdateMax(&Bbr->BandwidthFilter.WindowedMaxFilter, 8 * Bandwidth, 1);
    uint64_t Sent = 0;
    for (uint64_t Us = 0; Us < 1000000; Us += INTERVAL_US) { Sent += Flush(Cc, INTERVAL_US); }
    const uint64_t Least = 4ull * QuicPathGetDatagramPayloadSize(&Connection->Paths[0]) * 1000000 / RTT_US;
    const uint64_t Expected = CXPLAT_MAX(Bandwidth, Least) * Gain / 256;
    if (Sent > Expected + PACKET || Sent + 2 * PACKET + Expected / 50 < Expected) {
        FAIL("state %u, %llu bytes/s with gain %u/256: sent %llu", State,
            (unsigned long long)Bandwidth, Gain, (unsigned long long)Sent);
    }
    // After a pause, a quarter of the window at most, and the packet that exceeds it.
    Sent = Flush(Cc, 60ull * 1000000);
    if (Sent > Bbr->CongestionWindow / 4 + PACKET) { FAIL("a burst of %llu", (unsigned long long)Sent); }
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    HQUIC Handle;
    OK(Api->ConnectionOpen(Reg, Callback, NULL, &Handle));
    QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)Handle;
    QUIC_CONGESTION_CONTROL* Cc = &Connection->CongestionControl;
    Connection->Settings.CongestionControlAlgorithm = QUIC_CONGESTION_CONTROL_ALGORITHM_BBR;
    QuicCongestionControlInitialize(Cc, &Connection->Settings);

    static const uint64_t Bandwidths[] = { 20000, 150000, 12500000, 1000000000 };
    static const struct { uint32_t State, Gain; } States[] = {
        { 1 /* DRAIN */, 88 }, { 2 /* PROBE_BW */, 192 }, { 2, 256 }, { 2, 320 },
    };
    for (size_t i = 0; i < ARRAYSIZE(Bandwidths); i++) {
        for (size_t j = 0; j < ARRAYSIZE(States); j++) {
            Second(Connection, States[j].State, Bandwidths[i], States[j].Gain);
        }
    }

    Api->ConnectionClose(Handle);
    UnitClose();
    return 0;
}
