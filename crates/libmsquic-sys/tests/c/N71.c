// N71: a client can resume with the ticket of a server that announces a large min_ack_delay.
#include "unit.h"

int main(void)
{
    alarm(20);
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(CxPlatInitialize()));
    static const uint8_t Announced[] = {
        11, 2, 0x40, 100,                                        // max_ack_delay: 100 ms
        0xc0, 0, 0, 0, 0xff, 4, 0xde, 0x1b, 4, 0x80, 0, 0xc3, 0x50, // min_ack_delay: 50,000 us
        4, 1, 1 };                                               // initial_max_data: 1
    QUIC_TRANSPORT_PARAMETERS Server = { 0 }, Kept = { 0 };
    const uint8_t* Ticket;
    uint8_t* Found = NULL;
    uint32_t Length, FoundLength, Version;

    CHECK(QuicCryptoTlsDecodeTransportParameters(NULL, TRUE, Announced, sizeof(Announced), &Server));
    CHECK(Server.MaxAckDelay == 100 && Server.MinAckDelay == 50000);
    OK(QuicCryptoEncodeClientTicket(NULL, 1, Announced, &Server, QUIC_VERSION_1, &Ticket, &Length));
    OK(QuicCryptoDecodeClientTicket(NULL, (uint16_t)Length, Ticket, &Kept, &Found, &FoundLength, &Version));
    CHECK(Kept.Flags == QUIC_TP_FLAG_INITIAL_MAX_DATA && Kept.InitialMaxData == 1);
    return 0;
}
