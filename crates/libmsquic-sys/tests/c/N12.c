//
// N12: with QUIC_SERVER_RESUME_ONLY neither end offers or accepts 0-RTT, and
// sessions are still resumed.
//
#pragma GCC diagnostic ignored "-Wmultichar"
#include "precomp.h"
#undef CHECK
#include "tls.h"

static volatile int ClientEarly;

static void LookAtEarlyData(SIDE* Side)
{
    if (Side == &ClientSide) {
        ClientEarly = ((QUIC_CONNECTION*)Side->Connection)->Crypto.TlsState.EarlyDataState;
    }
}

int main(void)
{
    StartLibrary();
    ClientAuth = 0;
    ConnectedHook = LookAtEarlyData;
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("server", Key, NULL, NULL, 0);
    static const QUIC_SERVER_RESUMPTION_LEVEL Levels[] = { QUIC_SERVER_RESUME_ONLY, QUIC_SERVER_RESUME_AND_ZERORTT };
    HQUIC Servers[2], Clients[2];
    QUIC_TICKET_KEY_CONFIG TicketKey = { { 1, 2, 3 }, { 4, 5, 6 }, 32 };
    for (int i = 0; i < 2; i++) {
        Servers[i] = OpenConfig(0, Key, Cert, NULL, Levels[i]);
        Clients[i] = OpenConfig(1, NULL, NULL, NULL, Levels[i]);
        MUST(QUIC_SUCCEEDED(Api->SetParam(
            Servers[i], QUIC_PARAM_CONFIGURATION_TICKET_KEYS, sizeof(TicketKey), &TicketKey)));
    }
    StartListener();

    //
    // Every combination of the server that makes the ticket, the server that
    // gets it, and the client.
    //
    for (int i = 0; i < 8; i++) {
        int Maker = i & 1, Taker = (i >> 1) & 1, Client = (i >> 2) & 1;
        ServerConfig = Servers[Maker];
        ResetSides();
        ClientSide.TicketLength = 0;
        ServerSide.SendTicket = 1;
        Connect(Clients[Client], 0);
        MUST(WaitFor((volatile int*)&ClientSide.TicketLength, 3000));
        CloseBoth();

        ResetSides();
        ServerConfig = Servers[Taker];
        ClientEarly = -1;
        Connect(Clients[Client], 1);
        CHECK(WaitFor(&ClientSide.Connected, 3000) && WaitFor(&ServerSide.Connected, 3000), "no handshake");
        CHECK(ClientSide.Resumed && ServerSide.Resumed, "case %d is not resumed", i);
        int Offered = ClientEarly == CXPLAT_TLS_EARLY_DATA_REJECTED || ClientEarly == CXPLAT_TLS_EARLY_DATA_ACCEPTED;
        int Accepted = ClientEarly == CXPLAT_TLS_EARLY_DATA_ACCEPTED;
        CHECK(Offered == (Maker && Client), "ticket of level %d, client of level %d: 0-RTT %soffered",
            Levels[Maker], Levels[Client], Offered ? "" : "not ");
        CHECK(Accepted == (Maker && Client && Taker), "ticket of level %d, server of level %d, client of level %d: 0-RTT %saccepted",
            Levels[Maker], Levels[Taker], Levels[Client], Accepted ? "" : "not ");
        CloseBoth();
    }
    for (int i = 0; i < 2; i++) {
        Api->ConfigurationClose(Servers[i]);
        Api->ConfigurationClose(Clients[i]);
    }
    ServerConfig = NULL;
    return StopLibrary();
}
