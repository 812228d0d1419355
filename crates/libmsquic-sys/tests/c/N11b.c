//
// A ticket that the server can no longer use (here: issued under a larger
// stream limit) must lead to a full handshake, not to a handshake that waits
// for an answer of the application for ever.
//
#include "tls.h"

int main(void)
{
    StartLibrary();
    ClientAuth = 0;
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("server", Key, NULL, NULL, 0);
    QUIC_TICKET_KEY_CONFIG TicketKey = { { 1 }, { 1, 2, 3 }, 32 };
    PeerBidiStreams = 100;
    HQUIC Before = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_RESUME_ONLY);
    PeerBidiStreams = 10;
    HQUIC After = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_RESUME_ONLY);
    PeerBidiStreams = 0;
    HQUIC ClientConfig = OpenConfig(1, NULL, NULL, NULL, QUIC_SERVER_RESUME_ONLY);
    MUST(QUIC_SUCCEEDED(Api->SetParam(Before, QUIC_PARAM_CONFIGURATION_TICKET_KEYS, sizeof(TicketKey), &TicketKey)));
    MUST(QUIC_SUCCEEDED(Api->SetParam(After, QUIC_PARAM_CONFIGURATION_TICKET_KEYS, sizeof(TicketKey), &TicketKey)));
    StartListener();

    ServerConfig = Before;
    ServerSide.SendTicket = 1;
    Connect(ClientConfig, 0);
    MUST(WaitFor((volatile int*)&ClientSide.TicketLength, 3000));
    CloseBoth();

    for (int Changed = 0; Changed < 2; Changed++) {
        ServerConfig = Changed ? After : Before;
        ResetSides();
        Connect(ClientConfig, 1);
        CHECK(WaitFor(&ClientSide.Connected, 2000) && WaitFor(&ServerSide.Connected, 2000),
            "%s: no handshake", Changed ? "smaller limit" : "same limit");
        CHECK(ClientSide.Resumed == !Changed, "%s: resumed %d", Changed ? "smaller limit" : "same limit", ClientSide.Resumed);
        CloseBoth();
    }
    Api->ConfigurationClose(Before);
    Api->ConfigurationClose(After);
    Api->ConfigurationClose(ClientConfig);
    ServerConfig = NULL;
    return StopLibrary();
}
