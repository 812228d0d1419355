//
// N11, A9: a session with client certificates can be resumed; both ends get the
// certificate of the session to verify it again, and rejecting it ends the
// connection.
//
#include "tls.h"

static EVP_PKEY* ServerKey;
static EVP_PKEY* ClientKey;
static X509* ServerCert;
static X509* ClientCert;
static HQUIC ClientConfig;

static void SetTicketKey(HQUIC Config, uint8_t Seed)
{
    QUIC_TICKET_KEY_CONFIG TicketKey = { { Seed }, { Seed, 1, 2, 3 }, 32 };
    MUST(QUIC_SUCCEEDED(Api->SetParam(
        Config, QUIC_PARAM_CONFIGURATION_TICKET_KEYS, sizeof(TicketKey), &TicketKey)));
}

static void GetTicket(HQUIC Server)
{
    ServerConfig = Server;
    ResetSides();
    ClientSide.TicketLength = 0;
    ServerSide.SendTicket = 1;
    Connect(ClientConfig, 0);
    CHECK(WaitFor((volatile int*)&ClientSide.TicketLength, 3000), "no ticket");
    CHECK(!ClientSide.Resumed && ClientSide.CertEvents == 1 && ServerSide.CertEvents == 1,
        "first connection: %d and %d certificates", ClientSide.CertEvents, ServerSide.CertEvents);
    CloseBoth();
    ResetSides();
}

static void Finish(int Resumed, const char* What)
{
    CHECK(WaitFor(&ClientSide.Connected, 3000) && WaitFor(&ServerSide.Connected, 3000),
        "%s: no handshake, error code 0x%llx at the client", What, (unsigned long long)ClientSide.ErrorCode);
    CHECK(ClientSide.Resumed == Resumed && ServerSide.Resumed == Resumed,
        "%s: resumed %d and %d", What, ClientSide.Resumed, ServerSide.Resumed);
    CHECK(ClientSide.CertEvents == 1, "%s: %d certificates at the client", What, ClientSide.CertEvents);
    CHECK(ServerSide.CertEvents == 1, "%s: %d certificates at the server", What, ServerSide.CertEvents);
    CHECK(SameCert(&ClientSide, ServerCert), "%s: leaf at the client", What);
    CHECK(SameCert(&ServerSide, ClientCert), "%s: leaf at the server", What);
    if (Resumed) {
        CHECK(ClientSide.ChainLength <= 0 && ServerSide.ChainLength <= 0, "%s: chain is not empty", What);
    }
    CloseBoth();
}

static void Run(void)
{
    HQUIC Server = OpenConfig(0, ServerKey, ServerCert, NULL, QUIC_SERVER_RESUME_ONLY);
    ClientAuth = 0;
    HQUIC OpenServer = OpenConfig(0, ServerKey, ServerCert, NULL, QUIC_SERVER_RESUME_ONLY);
    ClientAuth = 1;
    ClientConfig = OpenConfig(1, ClientKey, ClientCert, NULL, QUIC_SERVER_RESUME_ONLY);
    SetTicketKey(Server, 1);
    SetTicketKey(OpenServer, 1);

    GetTicket(Server);
    Connect(ClientConfig, 1);
    Finish(1, "resumed");

    //
    // A ticket of a resumed session still identifies the peer.
    //
    GetTicket(Server);
    ServerSide.SendTicket = 1;
    uint32_t Old = ClientSide.TicketLength;
    uint8_t OldTicket[sizeof(ClientSide.Ticket)];
    memcpy(OldTicket, ClientSide.Ticket, Old);
    Connect(ClientConfig, 1);
    for (int i = 0; i < 3000 &&
        (ClientSide.TicketLength != Old || memcmp(OldTicket, ClientSide.Ticket, Old) == 0) &&
        ClientSide.TicketLength == Old; i++) {
        usleep(1000);
    }
    Finish(1, "resumed with a new ticket");
    ResetSides();
    Connect(ClientConfig, 1);
    Finish(1, "resumed twice");

    //
    // Rejected by the server.
    //
    ResetSides();
    ServerSide.CertStatus = QUIC_STATUS_BAD_CERTIFICATE;
    Connect(ClientConfig, 1);
    CHECK(WaitFor(&ClientSide.Down, 3000), "server rejects: the connection does not end");
    CHECK(ClientSide.ErrorCode == 0x12a, "server rejects: 0x%llx", (unsigned long long)ClientSide.ErrorCode);
    CHECK(ServerSide.CertEvents == 1 && !ServerSide.Connected, "server rejects: events");
    CloseBoth();

    //
    // Rejected by the client.
    //
    ResetSides();
    ClientSide.CertStatus = QUIC_STATUS_BAD_CERTIFICATE;
    Connect(ClientConfig, 1);
    CHECK(WaitFor(&ServerSide.Down, 3000), "client rejects: the connection does not end");
    CHECK(ServerSide.ErrorCode == 0x12a, "client rejects: 0x%llx", (unsigned long long)ServerSide.ErrorCode);
    CHECK(ClientSide.CertEvents == 1 && !ClientSide.Connected && !ServerSide.Connected, "client rejects: events");
    CloseBoth();

    //
    // Both answer later.
    //
    ResetSides();
    ClientSide.CertStatus = ServerSide.CertStatus = QUIC_STATUS_PENDING;
    Connect(ClientConfig, 1);
    CHECK(WaitFor(&ClientSide.CertEvents, 3000), "no certificate at the client");
    usleep(20000);
    CHECK(!ClientSide.Connected && !ServerSide.Connected, "connected before the answer");
    Api->ConnectionCertificateValidationComplete(ClientSide.Connection, TRUE, QUIC_TLS_ALERT_CODE_SUCCESS);
    CHECK(WaitFor(&ServerSide.CertEvents, 3000), "no certificate at the server");
    usleep(20000);
    CHECK(!ServerSide.Connected, "connected before the answer of the server");
    Api->ConnectionCertificateValidationComplete(ServerSide.Connection, TRUE, QUIC_TLS_ALERT_CODE_SUCCESS);
    Finish(1, "answered later");

    //
    // A ticket of a server that requests no certificate does not authenticate the client to a
    // server that does.
    //
    ServerConfig = OpenServer;
    ResetSides();
    ClientSide.TicketLength = 0;
    ServerSide.SendTicket = 1;
    Connect(ClientConfig, 0);
    CHECK(WaitFor((volatile int*)&ClientSide.TicketLength, 3000), "no ticket");
    CloseBoth();
    ServerConfig = Server;
    ResetSides();
    Connect(ClientConfig, 1);
    Finish(0, "ticket without a certificate");

    //
    // A new ticket key invalidates the tickets only.
    //
    GetTicket(Server);
    SetTicketKey(Server, 2);
    Connect(ClientConfig, 1);
    Finish(0, "after a change of the key");

    Api->ConfigurationClose(Server);
    Api->ConfigurationClose(OpenServer);
    Api->ConfigurationClose(ClientConfig);
    ServerConfig = NULL;
}

int main(void)
{
    StartLibrary();
    StartListener();
    ServerKey = MakeKey();
    ServerCert = MakeCert("server", ServerKey, NULL, NULL, 0);
    ClientKey = MakeKey();
    ClientCert = MakeCert("client", ClientKey, NULL, NULL, 0);
    Run();
    Portable = 0;
    Run();
    return StopLibrary();
}
