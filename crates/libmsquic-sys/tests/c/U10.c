// A Version Negotiation packet whose source connection ID is not the one that the client chose is
// discarded, and does not keep the client from accepting the server's own.
#include "unit.h"

static void SendVn(int Fd, const struct sockaddr_in* To, const uint8_t* Cid, uint8_t CidLength)
{
    uint8_t P[64] = { 0x80, 0, 0, 0, 0, 0, CidLength };
    memcpy(P + 7, Cid, CidLength);
    memcpy(P + 7 + CidLength, "\xab\xcd\xef\x01", 4);
    CHECK(sendto(Fd, P, 11u + CidLength, 0, (const struct sockaddr*)To, sizeof(*To)) > 0);
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    HQUIC Config = UnitClientConfig(&S);
    uint16_t Port;
    int Fd = UnitUdp(&Port);
    UNIT_CONN C = { 0 };
    UnitConnect(&C, Config, Port);

    uint8_t D[2048];
    struct sockaddr_in From;
    socklen_t FromLength = sizeof(From);
    CHECK(recvfrom(Fd, D, sizeof(D), 0, (struct sockaddr*)&From, &FromLength) >= 1200);
    uint8_t CidLength = D[5];
    CHECK(CidLength >= 8 && CidLength <= 20);

    SendVn(Fd, &From, (const uint8_t*)"forgedid", 8);
    SendVn(Fd, &From, D + 6, (uint8_t)(CidLength - 1));
    if (UnitWait(&C.ByTransport, 300)) {
        FAIL("a forged Version Negotiation ended the attempt, status 0x%x", (unsigned)C.TransportStatus);
    }

    SendVn(Fd, &From, D + 6, CidLength);
    if (!UnitWait(&C.ByTransport, 2000) || C.TransportStatus != QUIC_STATUS_VER_NEG_ERROR) {
        FAIL("the server's Version Negotiation was ignored");
    }

    Api->ConnectionClose(C.Handle);
    Api->ConfigurationClose(Config);
    close(Fd);
    UnitClose();
    return 0;
}
