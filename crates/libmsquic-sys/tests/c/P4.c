// A rejected ack_delay_exponent is not used for later ACK frames.
#include "unit.h"

int main(void)
{
    static QUIC_CONNECTION Connection; // only used for logging
    QUIC_TRANSPORT_PARAMETERS Params;
    memset(&Params, 0, sizeof(Params));
    static const uint8_t Encoded[] = { 10, 2, 0x40, 200 };
    alarm(20);
    CHECK(!QuicCryptoTlsDecodeTransportParameters(&Connection, FALSE, Encoded, sizeof(Encoded), &Params));
    if (Params.AckDelayExponent > QUIC_TP_ACK_DELAY_EXPONENT_MAX) {
        FAIL("ack_delay_exponent is %llu", (unsigned long long)Params.AckDelayExponent);
    }
    return 0;
}
