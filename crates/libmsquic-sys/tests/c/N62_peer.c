// N62: packets above 1500 bytes need the permission of both peers.
#include "unit.h"

static QUIC_CONNECTION* Dial(uint16_t Port, UNIT_CONN* Client, uint16_t Minimum, uint16_t Maximum)
{
    QUIC_SETTINGS S = { 0 };
    S.MinimumMtu = Minimum; S.IsSet.MinimumMtu = Minimum != 0;
    S.MaximumMtu = Maximum; S.IsSet.MaximumMtu = Maximum != 0;
    HQUIC Config = UnitClientConfig(&S);
    memset(&UnitAccepted, 0, sizeof(UnitAccepted));
    UnitConnect(Client, Config, Port);
    CHECK(UnitWait(&Client->Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    Api->ConfigurationClose(Config);
    return (QUIC_CONNECTION*)Client->Handle;
}

static void Close(UNIT_CONN* Client)
{
    Api->ConnectionClose(Client->Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
}

// Waits until the connection looks for no larger packets.
static int FinalMtu(HQUIC Handle)
{
    const volatile QUIC_PATH* Path = &((QUIC_CONNECTION*)Handle)->Paths[0];
    for (int i = 0; i < 5000 && !Path->MtuDiscovery.IsSearchComplete; i++) { usleep(1000); }
    CHECK(Path->MtuDiscovery.IsSearchComplete);
    return Path->Mtu;
}

int main(void)
{
    QUIC_SETTINGS Default = { 0 };
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    HQUIC ServerConfig = UnitServerConfig(&Default);
    uint16_t Port;
    HQUIC Listener = UnitListen(ServerConfig, &Port);

    // The client permits {minimum, maximum}; the server the default.
    static const struct { uint16_t Minimum, Maximum, Announced, Mtu; } Cases[] = {
        { 0, 9000, 9000 - 28, 1500 },
        { 0, 0, 1500 - 28, 1500 },
        { 0, 1300, 1500 - 28, 1300 },
        { 2000, 2000, 2000 - 28, 1500 },
    };
    for (size_t i = 0; i < ARRAYSIZE(Cases); i++) {
        UNIT_CONN Client = { 0 };
        const QUIC_CONNECTION* Connection = Dial(Port, &Client, Cases[i].Minimum, Cases[i].Maximum);
        const QUIC_CONNECTION* Server = (QUIC_CONNECTION*)UnitAccepted.Handle;
        const uint64_t ByServer = Connection->PeerTransportParams.MaxUdpPayloadSize;
        const uint64_t ByClient = Server->PeerTransportParams.MaxUdpPayloadSize;
        if (ByServer != 1500 - 28 || ByClient != Cases[i].Announced) {
            FAIL("case %zu: the peers announce %llu and %llu", i,
                (unsigned long long)ByServer, (unsigned long long)ByClient);
        }
        const int Mtu = FinalMtu(Client.Handle), ServerMtu = FinalMtu(UnitAccepted.Handle);
        if (Mtu != Cases[i].Mtu || ServerMtu != 1500) {
            FAIL("case %zu: packets have %d and %d bytes", i, Mtu, ServerMtu);
        }
        Close(&Client);
    }
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ServerConfig);
    UnitClose();
    return 0;
}
