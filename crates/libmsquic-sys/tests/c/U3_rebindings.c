// U3: the connection IDs of removed paths must be retired. Otherwise the peer never replaces them,
// and the connection of a client whose address changes for the fourth time ends.
#include "rebind.h"

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    alarm(60);
    QUIC_SETTINGS S = { 0 };
    S.InitialRttMs = 10; S.IsSet.InitialRttMs = TRUE;
    S.DatagramReceiveEnabled = TRUE; S.IsSet.DatagramReceiveEnabled = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    HQUIC Listener = HookListen(ServerConfig, &Port);
    UNREFERENCED_PARAMETER(Listener);
    RebindStart(Port);

    // A client with a shared socket has connection IDs that are not empty.
    UNIT_CONN C = { 0 };
    uint8_t Share = 1;
    OK(Api->ConnectionOpen(Reg, UnitConnCallback, &C, &C.Handle));
    OK(Api->SetParam(C.Handle, QUIC_PARAM_CONN_SHARE_UDP_BINDING, sizeof(Share), &Share));
    OK(Api->ConnectionStart(C.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", RebindPort));
    CHECK(UnitWait(&C.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    CHECK(HookSend(&C, 2000));

    QUIC_CONNECTION* Server = (QUIC_CONNECTION*)UnitAccepted.Handle;
    for (int Change = 1; Change <= 8; Change++) {
        int Next = !RebindUse, Old = RebindServerFd[Next], Followed = 0;
        uint16_t NewPort;
        RebindServerFd[Next] = UnitUdp(&NewPort);
        close(Old);
        usleep(30000); // The relay polls the new socket from now on.
        RebindUse = Next;
        for (int i = 0; i < 300 && !Followed; i++) {
            (void)Api->DatagramSend(C.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL);
            usleep(10000);
            Followed =
                QuicAddrGetPort(&Server->Paths[0].Route.RemoteAddress) == NewPort &&
                Server->Paths[0].IsPeerValidated;
        }
        if (!Followed) { FAIL("address change %d was not followed", Change); }
    }
    _exit(0);
}
