//
// N44: no connection keeps buffers for TLS records, neither after its handshake nor after tickets.
//
#include "allocations.h"

int main(void)
{
    WatchAllocations("ssl/record/ssl3_buffer.c");
    StartLibrary();
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_RESUME_ONLY);
    StartListener();
    HQUIC ClientConfig = OpenConfig(1, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);

    Connect(ClientConfig, 0);
    MUST(WaitFor(&ClientSide.Connected, 5000) && WaitFor(&ServerSide.Connected, 5000));
    int Before = AllocationCount;
    CHECK(Before > 0, "nothing was watched");
    CHECK(Allocated == 0, "%ld bytes after the handshake", Allocated);

    for (int i = 0; i < 3; i++) {
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
    CHECK(AllocationCount > Before, "tickets needed no buffers");
    CHECK(Allocated == 0, "%ld bytes after tickets", Allocated);

    CloseBoth();
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
