// N5: a token of another server is ignored: the client is accepted, or sent a Retry under load.
#include "unit.h"

static void Attempt(HQUIC Config, uint16_t Port, uint16_t Length, uint8_t First, int ExpectRetry)
{
    UNIT_CONN C = { 0 };
    memset(&UnitAccepted, 0, sizeof(UnitAccepted));
    OK(Api->ConnectionOpen(Reg, UnitConnCallback, &C, &C.Handle));
    QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)C.Handle;
    uint8_t* Token = CXPLAT_ALLOC_PAGED(Length, QUIC_POOL_INITIAL_TOKEN);
    memset(Token, 0x5a, Length);
    Token[0] = First;
    Connection->Send.InitialToken = Token;
    Connection->Send.InitialTokenLength = Length;
    OK(Api->ConnectionStart(C.Handle, Config, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));
    if (!UnitWait(&C.Connected, 2000)) {
        FAIL("no handshake with a token of %u bytes, first byte 0x%02x, retry %d", Length, First, ExpectRetry);
    }
    CHECK(Connection->Stats.StatelessRetry == (uint32_t)ExpectRetry);
    if (Connection->Send.InitialToken != Token) {
        CXPLAT_FREE(Token, QUIC_POOL_INITIAL_TOKEN); // Replaced by the Retry token.
    }
    CHECK(UnitWait(&UnitAccepted.Connected, 2000));
    Api->ConnectionShutdown(C.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 0);
    CHECK(UnitWait(&C.Complete, 2000));
    Api->ConnectionClose(C.Handle);
    CHECK(UnitWait(&UnitAccepted.Complete, 2000));
    Api->ConnectionClose(UnitAccepted.Handle);
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    HQUIC Client = UnitClientConfig(&S), Server = UnitServerConfig(&S);
    uint16_t Port;
    HQUIC Listener = UnitListen(Server, &Port);

    for (int Retry = 0; Retry < 2; Retry++) {
        uint16_t Limit = Retry ? 0 : 65;
        OK(Api->SetParam(NULL, QUIC_PARAM_GLOBAL_RETRY_MEMORY_PERCENT, sizeof(Limit), &Limit));
        Attempt(Client, Port, 40, 0x5b, Retry);
        Attempt(Client, Port, 40, 0x5a, Retry);
        Attempt(Client, Port, sizeof(QUIC_TOKEN_CONTENTS), 0x5a, Retry);
        Attempt(Client, Port, 1, 0x5a, Retry);
    }

    Api->ListenerClose(Listener);
    Api->ConfigurationClose(Client);
    Api->ConfigurationClose(Server);
    UnitClose();
    return 0;
}
