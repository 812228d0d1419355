// N49: the two ends of a connection within one host have different workers.
#include "tls.h"

#define ROUNDS 16

static pthread_t ClientThread, ServerThread;

static void SawConnected(SIDE* Side)
{
    *(Side == &ClientSide ? &ClientThread : &ServerThread) = pthread_self();
}

// Shares its socket: its connection IDs tell its partition.
static void Dial(HQUIC ClientConfig)
{
    uint8_t Share = TRUE;
    MUST(QUIC_SUCCEEDED(Api->ConnectionOpen(Registration, OnConnection, &ClientSide, &ClientSide.Connection)));
    MUST(QUIC_SUCCEEDED(Api->SetParam(ClientSide.Connection, QUIC_PARAM_CONN_SHARE_UDP_BINDING, 1, &Share)));
    MUST(QUIC_SUCCEEDED(Api->ConnectionStart(
        ClientSide.Connection, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port)));
}

int main(void)
{
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    StartLibrary();
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) { return StopLibrary(); } // There is one worker.
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    HQUIC ClientConfig = OpenConfig(1, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    StartListener();
    ConnectedHook = SawConnected;
    for (int i = 0; i < ROUNDS; i++) {
        ResetSides();
        Dial(ClientConfig);
        MUST(WaitFor(&ClientSide.Connected, 5000) && WaitFor(&ServerSide.Connected, 5000));
        CHECK(!pthread_equal(ClientThread, ServerThread), "round %d: one thread does the work of both", i);
        CloseBoth();
    }
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
