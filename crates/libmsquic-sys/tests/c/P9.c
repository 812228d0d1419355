// A ClientHello without an ALPN extension is rejected with no_application_protocol.
#include <openssl/ssl.h>
static int UnitSetAlpn(void) { return 0; }
#define SSL_set_alpn_protos(...) UnitSetAlpn()
#include "tls_quictls.c"
#undef SSL_set_alpn_protos
#include "unit.h"

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS Settings = { 0 };
    HQUIC ServerConfig = UnitServerConfig(&Settings), ClientConfig = UnitClientConfig(&Settings);
    uint16_t Port;
    HQUIC Listener = UnitListen(ServerConfig, &Port);
    UNIT_CONN Client = { 0 };
    UnitConnect(&Client, ClientConfig, Port);
    for (int i = 0; i < 5000 && !Client.Connected && !Client.ByTransport; i++) { usleep(1000); }
    CHECK(!Client.Connected && Client.ByTransport);
    if (Client.TransportError != 0x178) {
        FAIL("error 0x%llx instead of 0x178", (unsigned long long)Client.TransportError);
    }
    Api->ConnectionClose(Client.Handle);
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ClientConfig);
    Api->ConfigurationClose(ServerConfig);
    UnitClose();
    return 0;
}
