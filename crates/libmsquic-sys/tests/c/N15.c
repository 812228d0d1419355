//
// N15: the status with which the application rejects a certificate selects the
// TLS alert that the peer sees.
//
#include "tls.h"

static EVP_PKEY* Key;
static X509* Cert;

//
// One connection in which one end answers PEER_CERTIFICATE_RECEIVED with
// Status; returns the error code that the other end received.
//
static unsigned long long Reject(int ServerRejects, QUIC_STATUS Status, int ClientHasCert)
{
    HQUIC ClientConfig =
        OpenConfig(1, ClientHasCert ? Key : NULL, Cert, NULL, QUIC_SERVER_NO_RESUME);
    ResetSides();
    SIDE* Told = ServerRejects ? &ClientSide : &ServerSide;
    (ServerRejects ? &ServerSide : &ClientSide)->CertStatus = Status;
    Connect(ClientConfig, 0);
    CHECK(WaitFor(&Told->Down, 5000), "the connection did not end");
    unsigned long long Code = Told->ErrorCode;
    CloseBoth();
    Api->ConfigurationClose(ClientConfig);
    return Code;
}

int main(void)
{
    StartLibrary();
    Key = MakeKey();
    Cert = MakeCert("peer", Key, NULL, NULL, 0);
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    StartListener();
    static const struct {
        QUIC_STATUS Status;
        int Alert;
    } Cases[] = {
        { QUIC_STATUS_BAD_CERTIFICATE, 42 },
        { QUIC_STATUS_UNSUPPORTED_CERTIFICATE, 43 },
        { QUIC_STATUS_REVOKED_CERTIFICATE, 44 },
        { QUIC_STATUS_EXPIRED_CERTIFICATE, 45 },
        { QUIC_STATUS_TLS_ALERT(QUIC_TLS_ALERT_CODE_UNKNOWN_CA), 48 },
        { QUIC_STATUS_TLS_ALERT(QUIC_TLS_ALERT_CODE_ACCESS_DENIED), 49 },
        { QUIC_STATUS_TLS_ALERT(255), 255 },
        { QUIC_STATUS_TLS_ALERT(0), 42 },       // no alert: the default
        { QUIC_STATUS_CERT_EXPIRED, 42 },       // not a TLS alert
        { QUIC_STATUS_INTERNAL_ERROR, 42 },
    };
    for (size_t i = 0; i < sizeof(Cases) / sizeof(Cases[0]); i++) {
        for (int ServerRejects = 0; ServerRejects < 2; ServerRejects++) {
            unsigned long long Code = Reject(ServerRejects, Cases[i].Status, 1);
            CHECK(Code == 0x100ull + Cases[i].Alert, "%s rejects with status 0x%x: code 0x%llx",
                ServerRejects ? "server" : "client", Cases[i].Status, Code);
        }
    }
    unsigned long long Code = Reject(1, QUIC_STATUS_BAD_CERTIFICATE, 0);
    CHECK(Code == 0x100 + 116, "no certificate: code 0x%llx", Code);
    return StopLibrary();
}
