// N61: the port of a listener that has stopped is free, however busy the workers are.
#include "rebind.h"

static HQUIC Stopped;
static uint16_t StoppedPort;
static int Done;

static void Stop(QUIC_CONNECTION* Connection)
{
    UNREFERENCED_PARAMETER(Connection);
    Hook = NULL;
    Api->ListenerClose(Stopped);
    const int Fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in Addr = { .sin_family = AF_INET, .sin_port = htons(StoppedPort) };
    if (bind(Fd, (struct sockaddr*)&Addr, sizeof(Addr)) != 0) { FAIL("the port is in use: %d", errno); }
    close(Fd);
    Done = 1;
}

int main(void)
{
    static UNIT_CONN Client;
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.DatagramReceiveEnabled = TRUE; S.IsSet.DatagramReceiveEnabled = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    (void)HookListen(ServerConfig, &Port);
    Stopped = HookListen(ServerConfig, &StoppedPort);
    OK(Api->ConnectionOpen(Reg, UnitConnCallback, &Client, &Client.Handle));
    OK(Api->ConnectionStart(Client.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));
    CHECK(UnitWait(&Client.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    Hook = Stop; // in the worker, which closes no socket meanwhile
    CHECK(HookSend(&Client, 2000) && Done);
    _exit(0);
}
