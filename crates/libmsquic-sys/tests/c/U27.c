//
// U27: the ticket callback takes the declared 32-bit length and rejects one
// that its consumers cannot hold, instead of using the low 16 bits of it.
//
#pragma GCC diagnostic ignored "-Wmultichar"
#include "precomp.h"
#undef CHECK
#include "tls.h"

static void Offer(SIDE* Side)
{
    static uint8_t Ticket[0x10000 + 16];
    static const struct {
        uint32_t Length;
        BOOLEAN Accepted;
    } Cases[] = { { 16, TRUE }, { 4000, TRUE }, { 0x10000, FALSE }, { 0x10000 + 16, FALSE } };
    if (Side != &ClientSide) {
        return;
    }
    for (size_t i = 0; i < sizeof(Cases) / sizeof(Cases[0]); i++) {
        ClientSide.TicketLength = 0;
        BOOLEAN Accepted =
            QuicTlsCallbacks.ReceiveTicket(
                (QUIC_CONNECTION*)ClientSide.Connection, Cases[i].Length, Ticket);
        CHECK(Accepted == Cases[i].Accepted, "length %u: result %d", Cases[i].Length, Accepted);
        CHECK((ClientSide.TicketLength != 0) == Cases[i].Accepted,
            "length %u: %u bytes indicated", Cases[i].Length, ClientSide.TicketLength);
    }
}

int main(void)
{
    StartLibrary();
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    HQUIC ClientConfig = OpenConfig(1, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    StartListener();
    ConnectedHook = Offer;
    Connect(ClientConfig, 0);
    CHECK(WaitFor(&ClientSide.Connected, 3000), "no handshake");
    CloseBoth();
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
