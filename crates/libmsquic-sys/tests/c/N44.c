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

    SendTickets(3);
    CHECK(AllocationCount > Before, "tickets needed no buffers");
    CHECK(Allocated == 0, "%ld bytes after tickets", Allocated);

    CloseBoth();
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
