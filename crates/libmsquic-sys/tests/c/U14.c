// A max_ack_delay of 0 does not send a larger min_ack_delay: handshakes work.
#include "unit.h"

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    for (int i = 0; i < 3; i++) { // The client, the server, both.
        QUIC_SETTINGS S = { 0 };
        S.IsSet.MaxAckDelayMs = i != 1;
        HQUIC ClientConfig = UnitClientConfig(&S);
        S.IsSet.MaxAckDelayMs = i != 0;
        HQUIC ServerConfig = UnitServerConfig(&S);
        uint16_t Port;
        HQUIC Listener = UnitListen(ServerConfig, &Port);
        UNIT_CONN C = { 0 };
        memset(&UnitAccepted, 0, sizeof(UnitAccepted));
        UnitConnect(&C, ClientConfig, Port);
        if (!UnitWait(&C.Connected, 2000) || !UnitWait(&UnitAccepted.Connected, 2000)) {
            FAIL("no handshake, case %d, error 0x%llx", i, (unsigned long long)C.TransportError);
        }
        Api->ConnectionShutdown(C.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 0);
        CHECK(UnitWait(&C.Complete, 2000));
        Api->ConnectionClose(C.Handle);
        Api->ConnectionClose(UnitAccepted.Handle);
        Api->ListenerClose(Listener);
        Api->ConfigurationClose(ClientConfig);
        Api->ConfigurationClose(ServerConfig);
    }
    UnitClose();
    return 0;
}
