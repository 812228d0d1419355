// N70: a client keeps a ticket of a server that announces only what every server has to announce.
#include "unit.h"

int main(void)
{
    alarm(20);
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(CxPlatInitialize()));
    static const uint8_t Announced[] = { 0, 2, 'i', 'd', 15, 2, 'i', 'd' };
    static const uint8_t Received[] = "ticket";
    QUIC_TRANSPORT_PARAMETERS Server = { 0 }, Kept = { 0 };
    const uint8_t* Ticket;
    uint8_t* Found = NULL;
    uint32_t Length, FoundLength, Version;

    CHECK(QuicCryptoTlsDecodeTransportParameters(NULL, TRUE, Announced, sizeof(Announced), &Server));
    OK(QuicCryptoEncodeClientTicket(NULL, sizeof(Received), Received, &Server, QUIC_VERSION_1, &Ticket, &Length));
    OK(QuicCryptoDecodeClientTicket(NULL, (uint16_t)Length, Ticket, &Kept, &Found, &FoundLength, &Version));
    CHECK(Kept.Flags == 0 && Version == QUIC_VERSION_1);
    CHECK(FoundLength == sizeof(Received) && memcmp(Found, Received, sizeof(Received)) == 0);
    return 0;
}
