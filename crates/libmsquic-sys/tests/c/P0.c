// P0: acknowledgements on a path that the client moved to must measure its round-trip time.
#include "rebind.h"

static volatile uint8_t PathId;
static volatile int Sampled;
static void Look(QUIC_CONNECTION* Connection)
{
    PathId = Connection->Paths[0].ID;
    Sampled = Connection->Paths[0].GotFirstRttSample;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.DatagramReceiveEnabled = TRUE; S.IsSet.DatagramReceiveEnabled = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    HQUIC Listener = HookListen(ServerConfig, &Port);
    UNREFERENCED_PARAMETER(Listener);
    RebindStart(Port);

    UNIT_CONN C = { 0 };
    UnitConnect(&C, ClientConfig, RebindPort);
    CHECK(UnitWait(&C.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    Hook = Look;
    CHECK(HookSend(&C, 2000));
    uint8_t First = PathId;

    RebindUse = 1;
    for (int i = 0; i < 200 && !(PathId != First && Sampled); i++) {
        CHECK(HookSend(&C, 2000));
        // The server sends something that the client acknowledges.
        (void)Api->DatagramSend(UnitAccepted.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL);
        usleep(5000);
    }
    CHECK(PathId != First);
    if (!Sampled) { FAIL("no round-trip time was measured on path %u", PathId); }
    _exit(0);
}
