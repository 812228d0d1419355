// N27: a peer without transport parameters receives missing_extension (RFC 9001, section 8.2).
static int Skip; // 1: the client sends no transport parameters, 2: the server sends none
#include <openssl/ssl.h>
static int Count;
static int UnitSetParams(SSL* Ssl, const uint8_t* Params, size_t Length)
{
    int IsServer = SSL_is_server(Ssl);
    Count++;
    return Skip == (IsServer ? 2 : 1) ? 1 : SSL_set_quic_transport_params(Ssl, Params, Length);
}
#define SSL_set_quic_transport_params UnitSetParams
#include "tls_quictls.c"
#undef SSL_set_quic_transport_params
#include "unit.h"

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS Settings = { 0 };
    HQUIC ServerConfig = UnitServerConfig(&Settings), ClientConfig = UnitClientConfig(&Settings);
    uint16_t Port;
    HQUIC Listener = UnitListen(ServerConfig, &Port);

    for (Skip = 0; Skip < 3; Skip++) {
        UNIT_CONN Client = { 0 };
        memset(&UnitAccepted, 0, sizeof(UnitAccepted));
        UnitConnect(&Client, ClientConfig, Port);
        for (int i = 0; i < 5000 && !Client.Connected && !Client.ByTransport; i++) { usleep(1000); }
        if (Skip == 0) {
            CHECK(Client.Connected);
        } else {
            CHECK(!Client.Connected && Client.ByTransport);
            if (Client.TransportError != 0x16d) {
                FAIL("%s without transport parameters: error 0x%llx instead of 0x16d", Skip == 1 ? "client" : "server",
                    (unsigned long long)Client.TransportError);
            }
        }
        Api->ConnectionClose(Client.Handle);
        if (UnitAccepted.Handle != NULL) { Api->ConnectionClose(UnitAccepted.Handle); }
    }
    CHECK(Count >= 4);
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ClientConfig);
    Api->ConfigurationClose(ServerConfig);
    UnitClose();
    return 0;
}
