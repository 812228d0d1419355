//
// An IP address that was dialled must not be sent as server name.
//
#include "listen.h"

static volatile int Done;
static char Seen[256];

static QUIC_STATUS QUIC_API
OnListener(HQUIC Listener, void* Context, QUIC_LISTENER_EVENT* Event)
{
    (void)Listener; (void)Context;
    if (Event->Type == QUIC_LISTENER_EVENT_NEW_CONNECTION) {
        const QUIC_NEW_CONNECTION_INFO* Info = Event->NEW_CONNECTION.Info;
        snprintf(Seen, sizeof(Seen), "%.*s", (int)Info->ServerNameLength, Info->ServerName ? Info->ServerName : "");
        return QUIC_STATUS_INVALID_STATE;
    }
    return 0;
}

static QUIC_STATUS QUIC_API
OnConnection(HQUIC Connection, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    (void)Connection; (void)Context;
    if (Event->Type == QUIC_CONNECTION_EVENT_SHUTDOWN_COMPLETE) {
        Done = 1;
    }
    return 0;
}

int main(void)
{
    static const struct { const char* Host; const char* Sent; } Hosts[] = {
        { "127.0.0.1", "" },
        { "::1", "" },
        { "fe80::1%4", "" },
        { "localhost", "localhost" },
        { "1.example", "1.example" },
        { "dead.beef", "dead.beef" },
    };
    HQUIC Listener, Configuration, Connection;
    QUIC_BUFFER Alpn = { 1, (uint8_t*)"a" };
    QUIC_CREDENTIAL_CONFIG Cred = {0};

    OpenMsQuic();
    MUST(ListenWith(OnListener, NULL, "a", &Listener) == 0);
    QUIC_ADDR Bound = ListenerAddr(Listener);
    QUIC_ADDR Remote = MakeAddr(AF_INET, "127.0.0.1", QuicAddrGetPort(&Bound));
    Cred.Flags = QUIC_CREDENTIAL_FLAG_CLIENT | QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION;
    MUST(Api->ConfigurationOpen(Registration, &Alpn, 1, NULL, 0, NULL, &Configuration) == 0);
    MUST(Api->ConfigurationLoadCredential(Configuration, &Cred) == 0);

    for (size_t i = 0; i < sizeof(Hosts) / sizeof(*Hosts); i++) {
        Done = 0;
        strcpy(Seen, "(no connection)");
        MUST(Api->ConnectionOpen(Registration, OnConnection, NULL, &Connection) == 0);
        MUST(Api->SetParam(Connection, QUIC_PARAM_CONN_REMOTE_ADDRESS, sizeof(Remote), &Remote) == 0);
        MUST(Api->ConnectionStart(
            Connection, Configuration, AF_UNSPEC, Hosts[i].Host, QuicAddrGetPort(&Bound)) == QUIC_STATUS_PENDING);
        for (int t = 0; t < 500 && !Done; t++) {
            usleep(10000);
        }
        Api->ConnectionClose(Connection);
        CHECK(strcmp(Seen, Hosts[i].Sent) == 0, "dialling %s sends the name \"%s\"", Hosts[i].Host, Seen);
    }

    Api->ConfigurationClose(Configuration);
    Api->ListenerClose(Listener);
    CloseMsQuic();
    return Result;
}
