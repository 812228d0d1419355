// BBR without an RTT sample does not pace, and does not enter PROBE_RTT.
#include "unit.h"

static QUIC_STATUS QUIC_API Callback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Handle);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Event);
    return QUIC_STATUS_SUCCESS;
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
    CHECK(!Cc->Bbr.MinRttTimestampValid);

    Cc->Bbr.BbrState = 2; // PROBE_BW
    uint32_t Allowance = QuicCongestionControlGetSendAllowance(Cc, 100, TRUE);
    if (Allowance != QuicCongestionControlGetCongestionWindow(Cc)) {
        FAIL("paced without a sample: %u", Allowance);
    }

    Cc->Bbr.BbrState = 0; // STARTUP
    QUIC_ACK_EVENT Ack = { .TimeNow = CxPlatTimeUs64(), .LargestAck = 1, .LargestSentPacketNumber = 1 };
    QuicCongestionControlOnDataAcknowledged(Cc, &Ack);
    if (Cc->Bbr.BbrState == 3) { FAIL("PROBE_RTT without a sample"); }

    Api->ConnectionClose(Handle);
    UnitClose();
    return 0;
}
