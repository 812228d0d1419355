// A connection ID change after an idle period is marked as local: the change by which the
// peer answers it is not answered in turn.
#include "unit.h"

static volatile int SendEnabled;
static QUIC_STATUS QUIC_API Client(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_STATE_CHANGED) {
        SendEnabled = Event->DATAGRAM_STATE_CHANGED.SendEnabled;
    }
    return UnitConnCallback(Handle, Context, Event);
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_TYPE_SCAVENGER); // No change of the worker, which changes IDs too.
    QUIC_SETTINGS S = { 0 };
    S.DatagramReceiveEnabled = S.IsSet.DatagramReceiveEnabled = TRUE;
    S.IsSet.DestCidUpdateIdleTimeoutMs = TRUE; // 0: the server only answers.
    HQUIC ServerConfig = UnitServerConfig(&S);
    S.DestCidUpdateIdleTimeoutMs = 300;
    HQUIC ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    HQUIC Listener = UnitListen(ServerConfig, &Port);

    UNIT_CONN C = { 0 };
    OK(Api->ConnectionOpen(Reg, Client, &C, &C.Handle));
    BOOLEAN Share = TRUE; // A client on a shared socket has connection IDs of its own.
    OK(Api->SetParam(C.Handle, QUIC_PARAM_CONN_SHARE_UDP_BINDING, sizeof(Share), &Share));
    OK(Api->ConnectionStart(C.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));
    CHECK(UnitWait(&C.Connected, 2000) && UnitWait(&UnitAccepted.Connected, 2000));
    CHECK(UnitWait(&SendEnabled, 2000));

    usleep(500000); // Idle.
    static uint8_t Payload[100];
    QUIC_BUFFER Buffer = { sizeof(Payload), Payload };
    for (int i = 0; i < 10; i++) { // Answers travel with the acknowledgements.
        OK(Api->DatagramSend(C.Handle, &Buffer, 1, QUIC_SEND_FLAG_NONE, NULL));
        usleep(30000);
    }
    uint32_t Own = ((QUIC_CONNECTION*)C.Handle)->Stats.Misc.DestCidUpdateCount;
    uint32_t Answers = ((QUIC_CONNECTION*)UnitAccepted.Handle)->Stats.Misc.DestCidUpdateCount;
    if (Own != 1 || Answers != 1) {
        FAIL("%u changes by the client and %u answers after one idle period", Own, Answers);
    }

    Api->ConnectionShutdown(C.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 0);
    CHECK(UnitWait(&C.Complete, 2000));
    Api->ConnectionClose(C.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ClientConfig);
    Api->ConfigurationClose(ServerConfig);
    UnitClose();
    return 0;
}
