// U12: the answer to a pending certificate check that comes after the connection closed is ignored.
#include "unit.h"

static HQUIC ServerConfig;
static UNIT_CONN Server;
static volatile int Pending, Answered, When;

static QUIC_STATUS QUIC_API ServerCallback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_PEER_CERTIFICATE_RECEIVED) {
        Pending = 1;
        return QUIC_STATUS_PENDING;
    }
    if (Event->Type == (QUIC_CONNECTION_EVENT_TYPE)When) {
        OK(Api->ConnectionCertificateValidationComplete(Handle, TRUE, QUIC_TLS_ALERT_CODE_SUCCESS));
        Answered = 1;
    }
    return UnitConnCallback(Handle, Context, Event);
}

static QUIC_STATUS QUIC_API ListenerCallback(HQUIC Listener, void* Context, QUIC_LISTENER_EVENT* Event)
{
    (void)Listener; (void)Context;
    if (Event->Type != QUIC_LISTENER_EVENT_NEW_CONNECTION) { return QUIC_STATUS_SUCCESS; }
    Server.Handle = Event->NEW_CONNECTION.Connection;
    Api->SetCallbackHandler(Server.Handle, (void*)ServerCallback, &Server);
    return Api->ConnectionSetConfiguration(Server.Handle, ServerConfig);
}

static HQUIC Config(BOOLEAN IsServer)
{
    EVP_PKEY* Key = EVP_EC_gen("P-256");
    X509* Cert = X509_new();
    X509_set_version(Cert, 2);
    X509_gmtime_adj(X509_getm_notBefore(Cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(Cert), 3600);
    X509_set_pubkey(Cert, Key);
    CHECK(X509_sign(Cert, Key, EVP_sha256()) > 0);
    PKCS12* P12 = PKCS12_create("pw", "unit", Key, Cert, NULL, 0, 0, 0, 0, 0);
    uint8_t* Blob = NULL;
    int BlobLength = i2d_PKCS12(P12, &Blob);
    QUIC_CERTIFICATE_PKCS12 Pkcs12 = { Blob, (uint32_t)BlobLength, "pw" };
    QUIC_CREDENTIAL_CONFIG Cred = { 0 };
    Cred.Type = QUIC_CREDENTIAL_TYPE_CERTIFICATE_PKCS12;
    Cred.CertificatePkcs12 = &Pkcs12;
    Cred.Flags = QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION |
        (IsServer ?
            QUIC_CREDENTIAL_FLAG_INDICATE_CERTIFICATE_RECEIVED | QUIC_CREDENTIAL_FLAG_REQUIRE_CLIENT_AUTHENTICATION :
            QUIC_CREDENTIAL_FLAG_CLIENT);
    HQUIC C;
    QUIC_SETTINGS Settings = { 0 };
    OK(Api->ConfigurationOpen(Reg, &Alpn, 1, &Settings, sizeof(Settings), NULL, &C));
    OK(Api->ConfigurationLoadCredential(C, &Cred));
    OPENSSL_free(Blob);
    PKCS12_free(P12);
    X509_free(Cert);
    EVP_PKEY_free(Key);
    return C;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    ServerConfig = Config(TRUE);
    HQUIC ClientConfig = Config(FALSE);
    HQUIC Listener;
    OK(Api->ListenerOpen(Reg, ListenerCallback, NULL, &Listener));
    QUIC_ADDR Addr = { 0 };
    QuicAddrSetFamily(&Addr, QUIC_ADDRESS_FAMILY_INET);
    OK(Api->ListenerStart(Listener, &Alpn, 1, &Addr));
    uint32_t Size = sizeof(Addr);
    OK(Api->GetParam(Listener, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Size, &Addr));

    static const int Whens[] = {
        QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_TRANSPORT, QUIC_CONNECTION_EVENT_SHUTDOWN_COMPLETE };
    for (int i = 0; i < 2; i++) {
        UNIT_CONN Client = { 0 };
        memset(&Server, 0, sizeof(Server));
        Pending = Answered = 0;
        When = Whens[i];
        UnitConnect(&Client, ClientConfig, QuicAddrGetPort(&Addr));
        CHECK(UnitWait(&Pending, 5000));
        CHECK(UnitWait(&Client.Connected, 5000));
        Api->ConnectionShutdown(Client.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 7);
        CHECK(UnitWait(&Server.Complete, 5000));
        CHECK(UnitWait(&Answered, 5000));
        Api->ConnectionClose(Server.Handle); // waits for the queued answer
        Api->ConnectionClose(Client.Handle);
        if (Server.Connected) { FAIL("round %d: CONNECTED although the connection had closed", i); }
    }
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ClientConfig);
    Api->ConfigurationClose(ServerConfig);
    UnitClose();
    return 0;
}
