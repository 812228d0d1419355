// N62: a search that begins below 1500 bytes tries 1500 before more, also if that was lost before.
#include "unit.h"

static volatile int Lost1500, Carries1500;

// A path of Ethernet that loses its largest packets at first.
static int OnEthernet(int FromClient, const uint8_t* Data, int Length)
{
    UNREFERENCED_PARAMETER(Data);
    const int IsFull = Length == 1500 - 28;
    if (IsFull && FromClient && !Carries1500) { Lost1500++; }
    return Length < 1500 - 28 || (IsFull && Carries1500);
}

int main(void)
{
    QUIC_SETTINGS S = { 0 };
    S.MaximumMtu = 9000; S.IsSet.MaximumMtu = TRUE;
    S.KeepAliveIntervalMs = 10; S.IsSet.KeepAliveIntervalMs = TRUE;
    S.MtuDiscoveryMissingProbeCount = 2; S.IsSet.MtuDiscoveryMissingProbeCount = TRUE;
    S.MtuDiscoverySearchCompleteTimeoutUs = 20000; S.IsSet.MtuDiscoverySearchCompleteTimeoutUs = TRUE;
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    HQUIC Listener = UnitListen(ServerConfig, &Port);
    UNIT_RELAY Relay;
    UnitRelayStart(&Relay, Port, OnEthernet);
    UNIT_CONN Client = { 0 };
    UnitConnect(&Client, ClientConfig, Relay.Port);
    CHECK(UnitWait(&Client.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));

    const volatile QUIC_PATH* Path = &((QUIC_CONNECTION*)Client.Handle)->Paths[0];
    CHECK(UnitWait(&Lost1500, 5000));
    for (int i = 0; i < 5000 && !Path->MtuDiscovery.IsSearchComplete; i++) { usleep(1000); }
    CHECK(Path->Mtu < 1500);
    Carries1500 = 1;
    for (int i = 0; i < 5000 && Path->Mtu < 1500; i++) { usleep(1000); }
    if (Path->Mtu != 1500) { FAIL("packets have %d bytes on a path for 1500", (int)Path->Mtu); }

    Api->ConnectionClose(Client.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
    UnitRelayStop(&Relay);
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ServerConfig);
    Api->ConfigurationClose(ClientConfig);
    UnitClose();
    return 0;
}
