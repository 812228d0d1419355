// A client drops a Retry of a version that its program excluded.
#include "unit.h"

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    HQUIC Config = UnitClientConfig(&S);
    uint16_t Port;
    int Fd = UnitUdp(&Port);
    UNIT_CONN C = { 0 };
    OK(Api->ConnectionOpen(Reg, UnitConnCallback, &C, &C.Handle));
    uint32_t Versions[1] = { 1 };
    QUIC_VERSION_SETTINGS V = { Versions, Versions, Versions, 1, 1, 1 };
    OK(Api->SetParam(C.Handle, QUIC_PARAM_CONN_VERSION_SETTINGS, sizeof(V), &V));
    OK(Api->ConnectionStart(C.Handle, Config, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));

    uint8_t D[2048], Retry[256], Token[32] = { 0 };
    struct sockaddr_in From;
    socklen_t FromLength = sizeof(From);
    CHECK(recvfrom(Fd, D, sizeof(D), 0, (struct sockaddr*)&From, &FromLength) >= 1200);
    CHECK(memcmp(D + 1, "\0\0\0\1", 4) == 0);
    uint16_t Length =
        QuicPacketEncodeRetryV1(
            QUIC_VERSION_2, NULL, 0, (const uint8_t*)"serverid", 8, D + 6, D[5],
            sizeof(Token), Token, sizeof(Retry), Retry);
    CHECK(Length != 0);
    CHECK(sendto(Fd, Retry, Length, 0, (struct sockaddr*)&From, sizeof(From)) == Length);
    usleep(200000);
    if (((QUIC_CONNECTION*)C.Handle)->Stats.StatelessRetry) {
        FAIL("a Retry of an excluded version was accepted");
    }

    Api->ConnectionClose(C.Handle);
    Api->ConfigurationClose(Config);
    close(Fd);
    UnitClose();
    return 0;
}
