// N49: the two ends of a connection within one host have different workers, also after they have
// exchanged data: an end may move to another worker when it is connected.
#include "rebind.h"

#define ROUNDS 16
#define EXCHANGES 5

static volatile pthread_t ClientThread, ServerThread;
static volatile int ClientGot;

static void OnServer(QUIC_CONNECTION* Connection)
{
    ServerThread = pthread_self();
    OK(Api->DatagramSend((HQUIC)Connection, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL));
}

static QUIC_STATUS QUIC_API OnClient(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED) {
        ClientThread = pthread_self();
        ClientGot++;
    }
    return UnitConnCallback(Handle, Context, Event);
}

int main(void)
{
    QUIC_SETTINGS S = { 0 };
    S.DatagramReceiveEnabled = TRUE; S.IsSet.DatagramReceiveEnabled = TRUE;
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) { return 0; } // There is one worker.
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    HQUIC Listener = HookListen(ServerConfig, &Port);
    Hook = OnServer;
    int Same = 0;
    for (int i = 0; i < ROUNDS; i++) {
        memset(&UnitAccepted, 0, sizeof(UnitAccepted));
        UNIT_CONN Client = { 0 };
        OK(Api->ConnectionOpen(Reg, OnClient, &Client, &Client.Handle));
        // The connection IDs of a client that shares its socket tell its partition.
        uint8_t Share = TRUE;
        OK(Api->SetParam(Client.Handle, QUIC_PARAM_CONN_SHARE_UDP_BINDING, sizeof(Share), &Share));
        OK(Api->ConnectionStart(Client.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));
        CHECK(UnitWait(&Client.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
        for (int j = 0; j < EXCHANGES; j++) {
            ClientGot = 0;
            CHECK(HookSend(&Client, 5000) && UnitWait(&ClientGot, 5000));
        }
        Same += pthread_equal(ClientThread, ServerThread);
        Api->ConnectionClose(Client.Handle);
        Api->ConnectionClose(UnitAccepted.Handle);
    }
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ServerConfig);
    Api->ConfigurationClose(ClientConfig);
    UnitClose();
    if (Same != 0) { FAIL("one thread does the work of both ends in %d of %d rounds", Same, ROUNDS); }
    return 0;
}
