//
// N45: what a client holds does not grow with the tickets that its server sends.
//
#include "allocations.h"

enum { ROUNDS = 3, TICKETS = 30, KEPT = 4096 };

static void SendTickets(void)
{
    for (int i = 0; i < TICKETS; i++) {
        ClientSide.TicketLength = 0;
        MUST(QUIC_SUCCEEDED(Api->ConnectionSendResumptionTicket(
            ServerSide.Connection, QUIC_SEND_RESUMPTION_FLAG_NONE, 0, NULL)));
        MUST(WaitFor((volatile int*)&ClientSide.TicketLength, 5000));
    }
    // The event of a ticket comes while the TLS library processes it.
    uint32_t Length = sizeof(QUIC_STATISTICS_V2);
    QUIC_STATISTICS_V2 Statistics;
    MUST(QUIC_SUCCEEDED(Api->GetParam(
        ClientSide.Connection, QUIC_PARAM_CONN_STATISTICS_V2, &Length, &Statistics)));
}

int main(void)
{
    WatchAllocations("crypto/buffer/buffer.c");
    StartLibrary();
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_RESUME_ONLY);
    StartListener();
    HQUIC ClientConfig = OpenConfig(1, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);

    long Before = Allocated;
    Connect(ClientConfig, 0);
    MUST(WaitFor(&ClientSide.Connected, 5000) && WaitFor(&ServerSide.Connected, 5000));
    CHECK(AllocationCount > 0, "nothing was watched");
    for (int i = 0; i <= ROUNDS; i++) {
        CHECK(Allocated - Before < KEPT, "%ld bytes after %d tickets", Allocated - Before, i * TICKETS);
        SendTickets();
    }

    CloseBoth();
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
