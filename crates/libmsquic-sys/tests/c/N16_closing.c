// N16: a connection that is closing must not enable datagrams again when it returns to the minimum MTU.
#include "rebind.h"

static volatile int Closing, Changed;

static QUIC_STATUS QUIC_API Client(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_STATE_CHANGED && Closing) { Changed++; }
    return UnitConnCallback(Handle, Context, Event);
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    alarm(60);
    QUIC_SETTINGS S = { 0 };
    S.DatagramReceiveEnabled = TRUE; S.IsSet.DatagramReceiveEnabled = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    HQUIC Listener = HookListen(ServerConfig, &Port);
    UNREFERENCED_PARAMETER(Listener);
    RebindStart(Port);

    UNIT_CONN C = { 0 };
    OK(Api->ConnectionOpen(Reg, Client, &C, &C.Handle));
    OK(Api->ConnectionStart(C.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", RebindPort));
    CHECK(UnitWait(&C.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)C.Handle;
    for (int i = 0; i < 3000 && Connection->Paths[0].Mtu <= 1248; i++) {
        CHECK(HookSend(&C, 2000));
        usleep(1000);
    }

    // All packets are lost from here on. The close comes just before the third probe timeout.
    RebindMaxToServer = 1;
    RebindDropToClient = 1;
    (void)Api->DatagramSend(C.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL);
    for (int i = 0; i < 3000 && Connection->LossDetection.ProbeCount < 2; i++) { usleep(1000); }
    while (Connection->LossDetection.ProbeCount == 2 &&
        Connection->ExpirationTimes[QUIC_CONN_TIMER_LOSS_DETECTION] > CxPlatTimeUs64() + 12000) {
        usleep(300);
    }
    Closing = 1;
    Api->ConnectionShutdown(C.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 1);
    CHECK(UnitWait(&C.Complete, 15000));
    if (Changed != 0) { FAIL("%d changes of the datagram state while closing", Changed); }
    _exit(0);
}
