// N33: a server follows a client that uses connection IDs and moves from time to time.
#include "tls.h"

static volatile int Followed;

static QUIC_STATUS QUIC_API OnServer(HQUIC Connection, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_PEER_ADDRESS_CHANGED) {
        Followed++;
    }
    return OnConnection(Connection, Context, Event);
}

static void Hook(SIDE* Side)
{
    if (Side == &ServerSide) {
        Api->SetCallbackHandler(Side->Connection, (void*)OnServer, Side);
    }
}

int main(void)
{
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    StartLibrary();
    alarm(60);
    ConnectedHook = Hook;
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    HQUIC ClientConfig = OpenConfig(1, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    StartListener();

    uint8_t Share = TRUE;
    QUIC_ADDR Local = { 0 };
    QuicAddrFromString("127.0.0.1", 0, &Local);
    HQUIC Client;
    MUST(QUIC_SUCCEEDED(Api->ConnectionOpen(Registration, OnConnection, &ClientSide, &Client)));
    ClientSide.Connection = Client;
    MUST(QUIC_SUCCEEDED(Api->SetParam(Client, QUIC_PARAM_CONN_SHARE_UDP_BINDING, 1, &Share)));
    MUST(QUIC_SUCCEEDED(Api->ConnectionStart(Client, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port)));
    MUST(WaitFor(&ClientSide.Connected, 5000) && WaitFor(&ServerSide.Connected, 5000));

    for (int Move = 1; Move <= 4 && Failures == 0; Move++) {
        QUIC_STATUS Status = QUIC_STATUS_INVALID_STATE;
        for (int i = 0; i < 200 && Status == QUIC_STATUS_INVALID_STATE; i++) {
            Status = Api->SetParam(Client, QUIC_PARAM_CONN_LOCAL_ADDRESS, sizeof(Local), &Local);
            if (Status) usleep(10000);
        }
        CHECK(QUIC_SUCCEEDED(Status), "move %d: 0x%x", Move, Status);
        for (int i = 0; i < 3000 && Followed < Move; i++) {
            usleep(1000);
        }
        CHECK(Followed >= Move, "the server does not follow move %d", Move);
        usleep(500000); // for the connection IDs of the old path to be replaced
    }
    CHECK(!ClientSide.Down && !ServerSide.Down, "the connection has ended");
    CloseBoth();
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
