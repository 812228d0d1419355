//
// N69: AES-128-GCM is preferred, also among the cipher suites that a configuration permits.
//
#include "tls.h"

#define AES_128 QUIC_ALLOWED_CIPHER_SUITE_AES_128_GCM_SHA256
#define AES_256 QUIC_ALLOWED_CIPHER_SUITE_AES_256_GCM_SHA384
#define CHACHA QUIC_ALLOWED_CIPHER_SUITE_CHACHA20_POLY1305_SHA256

// Connects with what both sides permit, and returns the suite.
static QUIC_CIPHER_SUITE Negotiated(EVP_PKEY* Key, X509* Cert, int OfClient, int OfServer)
{
    AllowedCipherSuites = OfServer;
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    AllowedCipherSuites = OfClient;
    HQUIC ClientConfig = OpenConfig(1, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    StartListener();
    ResetSides();
    Connect(ClientConfig, 0);
    MUST(WaitFor(&ClientSide.Connected, 5000) && WaitFor(&ServerSide.Connected, 5000));
    QUIC_HANDSHAKE_INFO Info = { 0 };
    uint32_t Length = sizeof(Info);
    MUST(QUIC_SUCCEEDED(Api->GetParam(
        ClientSide.Connection, QUIC_PARAM_TLS_HANDSHAKE_INFO, &Length, &Info)));
    CloseBoth();
    Api->ListenerClose(Listener);
    Listener = NULL;
    Api->ConfigurationClose(ClientConfig);
    Api->ConfigurationClose(ServerConfig);
    ServerConfig = NULL;
    return Info.CipherSuite;
}

int main(void)
{
    StartLibrary();
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    const struct { int OfClient, OfServer; QUIC_CIPHER_SUITE Suite; } Cases[] = {
        { 0, 0, QUIC_CIPHER_SUITE_TLS_AES_128_GCM_SHA256 },
        { AES_128 | AES_256 | CHACHA, AES_128 | AES_256 | CHACHA, QUIC_CIPHER_SUITE_TLS_AES_128_GCM_SHA256 },
        { AES_256 | CHACHA, 0, QUIC_CIPHER_SUITE_TLS_AES_256_GCM_SHA384 },
        { 0, AES_256 | CHACHA, QUIC_CIPHER_SUITE_TLS_AES_256_GCM_SHA384 },
        { 0, AES_256, QUIC_CIPHER_SUITE_TLS_AES_256_GCM_SHA384 },
        { AES_128 | CHACHA, AES_256 | CHACHA, QUIC_CIPHER_SUITE_TLS_CHACHA20_POLY1305_SHA256 },
    };
    for (unsigned I = 0; I < sizeof(Cases) / sizeof(Cases[0]); I++) {
        QUIC_CIPHER_SUITE Suite = Negotiated(Key, Cert, Cases[I].OfClient, Cases[I].OfServer);
        CHECK(Suite == Cases[I].Suite, "case %u: 0x%x", I, Suite);
    }
    return StopLibrary();
}
