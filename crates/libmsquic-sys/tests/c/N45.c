//
// N45: what a client holds does not grow with the tickets that its server sends.
//
#include "allocations.h"

enum { ROUNDS = 3, TICKETS = 30, KEPT = 4096 };

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
        SendTickets(TICKETS);
    }

    CloseBoth();
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
