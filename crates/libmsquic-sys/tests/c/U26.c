// The network statistics event does not divide by an RTT of zero.
#include "unit.h"

static volatile int Seen;
static QUIC_STATUS QUIC_API Callback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Handle);
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_CONNECTION_EVENT_NETWORK_STATISTICS) {
        Seen = 1;
        if (Event->NETWORK_STATISTICS.Bandwidth != 0) { FAIL("a bandwidth without a sample"); }
    }
    return QUIC_STATUS_SUCCESS;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    HQUIC Handle;
    OK(Api->ConnectionOpen(Reg, Callback, NULL, &Handle));
    QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)Handle;
    Connection->Settings.NetStatsEventEnabled = TRUE;
    Connection->Paths[0].SmoothedRtt = 0;
    QUIC_ACK_EVENT Ack = { .IsImplicit = TRUE, .TimeNow = CxPlatTimeUs64() };
    QuicCongestionControlOnDataAcknowledged(&Connection->CongestionControl, &Ack);
    CHECK(Seen);
    Connection->Paths[0].SmoothedRtt = 1;
    Api->ConnectionClose(Handle);
    UnitClose();
    return 0;
}
