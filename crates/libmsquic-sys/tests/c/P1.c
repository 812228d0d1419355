// A forged packet of another version neither ends a client's attempt nor changes the version of
// its connection; the server's own change of the version still works.
#define QUIC_API_ENABLE_PREVIEW_FEATURES 1
#include "unit.h"

static UNIT_RELAY Relay;
static volatile int Forging;

static void SendForged(uint8_t Type)
{
    // Version 2, no connection ID for the client, 80 bytes of payload.
    uint8_t P[100] = { (uint8_t)(0xc0 | Type << 4), 0x6b, 0x33, 0x43, 0xcf, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8 };
    int n = 15;
    if (Type == 1) { P[n++] = 0; } // Initial: no token
    P[n++] = 0x40;
    P[n] = (uint8_t)(sizeof(P) - (size_t)n - 1); n++;
    memset(P + n, 0x5a, sizeof(P) - (size_t)n);
    CHECK(sendto(Relay.ClientFd, P, sizeof(P), 0, (struct sockaddr*)&Relay.Client, sizeof(Relay.Client)) > 0);
}

static int Filter(int FromClient, const uint8_t* Data, int Length)
{
    UNREFERENCED_PARAMETER(Data);
    UNREFERENCED_PARAMETER(Length);
    if (FromClient && Forging) { SendForged(1); SendForged(3); Forging = 0; }
    return 1;
}

static void Run(int Forge, HQUIC Config, uint32_t Version)
{
    UNIT_CONN C = { 0 };
    memset(&UnitAccepted, 0, sizeof(UnitAccepted));
    Forging = Forge;
    UnitConnect(&C, Config, Relay.Port);
    QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)C.Handle;
    if (!UnitWait(&C.Connected, 3000)) { FAIL("no connection%s", Forge ? " after forged packets" : ""); }
    if (Forge) { SendForged(1); SendForged(3); usleep(50000); }
    if (Connection->Stats.QuicVersion != Version) {
        FAIL("version %08x instead of %08x", CxPlatByteSwapUint32(Connection->Stats.QuicVersion), CxPlatByteSwapUint32(Version));
    }
    CHECK(Version == QUIC_VERSION_2 || !Connection->State.CompatibleVerNegotiationAttempted);
    CHECK(UnitWait(&UnitAccepted.Connected, 3000) && !C.ByTransport);
    Api->ConnectionClose(C.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
}

int main(void)
{
    QUIC_SETTINGS S = { 0 };
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    for (uint8_t Extension = 0; Extension <= 1; Extension++) {
        OK(Api->SetParam(NULL, QUIC_PARAM_GLOBAL_VERSION_NEGOTIATION_ENABLED, sizeof(Extension), &Extension));
        HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
        uint16_t Port;
        HQUIC Listener = UnitListen(ServerConfig, &Port);
        UnitRelayStart(&Relay, Port, Filter);
        Run(0, ClientConfig, Extension ? QUIC_VERSION_2 : QUIC_VERSION_1);
        Run(1, ClientConfig, Extension ? QUIC_VERSION_2 : QUIC_VERSION_1);
        UnitRelayStop(&Relay);
        Api->ListenerClose(Listener);
        Api->ConfigurationClose(ClientConfig);
        Api->ConfigurationClose(ServerConfig);
    }
    UnitClose();
    return 0;
}
