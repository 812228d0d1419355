//
// Loopback client and server with certificates made in memory, for the tests of the TLS patches.
//
#pragma once
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "msquic.h"
#include "openssl/err.h"
#include "openssl/evp.h"
#include "openssl/pkcs12.h"
#include "openssl/pkcs7.h"
#include "openssl/ssl.h"
#include "openssl/x509v3.h"

void MsQuicLibraryLoad(void);
void MsQuicLibraryUnload(void);

static const QUIC_API_TABLE* Api;
static HQUIC Registration;
static int Failures;

#define CHECK(Cond, ...) \
    do { \
        if (!(Cond)) { \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #Cond); \
            printf(__VA_ARGS__); \
            printf("\n"); \
            Failures++; \
        } \
    } while (0)
#define MUST(Cond) \
    do { \
        if (!(Cond)) { \
            printf("%s:%d: setup failed: %s\n", __FILE__, __LINE__, #Cond); \
            exit(1); \
        } \
    } while (0)

//
// The events that one end of a connection has got, and its answers.
//
typedef struct SIDE {
    HQUIC Connection;
    volatile int Connected;
    volatile int Resumed;           // as reported by CONNECTED
    volatile int CertEvents;
    volatile int Down;              // SHUTDOWN_INITIATED_BY_*
    volatile int Complete;
    volatile int ByPeer;
    volatile QUIC_UINT62 ErrorCode;
    QUIC_STATUS CertStatus;         // the answer to PEER_CERTIFICATE_RECEIVED
    uint8_t Leaf[16384];
    int LeafLength;                 // -1: null certificate
    int ChainLength;                // -1: null chain
    X509* Chain[16];
    int ChainCount;
    int SendTicket;
    uint8_t Ticket[32768];
    volatile uint32_t TicketLength;
    volatile int EarlyDataTried;
} SIDE;

static SIDE ClientSide, ServerSide;
static HQUIC ServerConfig;
static int Portable = 1;            // portable certificates, or pointers to X509 and X509_STORE_CTX
static int ClientAuth = 1;          // servers request a certificate
static void (*ConnectedHook)(SIDE* Side);    // on the worker thread
static uint16_t PeerBidiStreams;    // setting of the next configuration, if not 0
static int AllowedCipherSuites;     // of the next configuration, if not 0
static int LoadMayFail;             // OpenConfig returns NULL then
static HQUIC Listener;
static uint16_t Port;

static void SawCertificate(SIDE* Side, const QUIC_CONNECTION_EVENT* Event)
{
    if (!Portable) {
        unsigned char* Der = Side->Leaf;
        X509* Cert = (X509*)Event->PEER_CERTIFICATE_RECEIVED.Certificate;
        X509_STORE_CTX* StoreContext = (X509_STORE_CTX*)Event->PEER_CERTIFICATE_RECEIVED.Chain;
        Side->LeafLength = Cert ? i2d_X509(Cert, &Der) : -1;
        STACK_OF(X509)* Sent = StoreContext ? X509_STORE_CTX_get0_untrusted(StoreContext) : NULL;
        for (Side->ChainCount = 0; Side->ChainCount < sk_X509_num(Sent) && Side->ChainCount < 16; ) {
            X509* Cert = sk_X509_value(Sent, Side->ChainCount);
            X509_up_ref(Cert);
            Side->Chain[Side->ChainCount++] = Cert;
        }
        Side->CertEvents++;
        return;
    }
    const QUIC_BUFFER* Leaf = (const QUIC_BUFFER*)Event->PEER_CERTIFICATE_RECEIVED.Certificate;
    const QUIC_BUFFER* Chain = (const QUIC_BUFFER*)Event->PEER_CERTIFICATE_RECEIVED.Chain;
    Side->LeafLength = Leaf ? (int)Leaf->Length : -1;
    if (Leaf && Leaf->Length <= sizeof(Side->Leaf)) {
        memcpy(Side->Leaf, Leaf->Buffer, Leaf->Length);
    }
    Side->ChainLength = Chain ? (int)Chain->Length : -1;
    Side->ChainCount = 0;
    if (Chain && Chain->Length) {
        const unsigned char* Der = Chain->Buffer;
        PKCS7* P7 = d2i_PKCS7(NULL, &Der, Chain->Length);
        MUST(P7 != NULL);
        STACK_OF(X509)* Certs = P7->d.sign->cert;
        for (int i = 0; i < sk_X509_num(Certs) && i < 16; i++) {
            Side->Chain[i] = X509_dup(sk_X509_value(Certs, i));
            Side->ChainCount++;
        }
        PKCS7_free(P7);
    }
    Side->CertEvents++;
}

static QUIC_STATUS QUIC_API OnConnection(HQUIC Connection, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    SIDE* Side = (SIDE*)Context;
    switch (Event->Type) {
    case QUIC_CONNECTION_EVENT_CONNECTED:
        Side->Resumed = Event->CONNECTED.SessionResumed;
        if (Side->SendTicket) {
            MUST(QUIC_SUCCEEDED(Api->ConnectionSendResumptionTicket(
                Connection, QUIC_SEND_RESUMPTION_FLAG_FINAL, 0, NULL)));
        }
        if (ConnectedHook) {
            ConnectedHook(Side);
        }
        Side->Connected = 1;
        break;
    case QUIC_CONNECTION_EVENT_PEER_CERTIFICATE_RECEIVED:
        SawCertificate(Side, Event);
        return Side->CertStatus;
    case QUIC_CONNECTION_EVENT_RESUMPTION_TICKET_RECEIVED:
        MUST(Event->RESUMPTION_TICKET_RECEIVED.ResumptionTicketLength <= sizeof(Side->Ticket));
        memcpy(Side->Ticket, Event->RESUMPTION_TICKET_RECEIVED.ResumptionTicket,
            Event->RESUMPTION_TICKET_RECEIVED.ResumptionTicketLength);
        Side->TicketLength = Event->RESUMPTION_TICKET_RECEIVED.ResumptionTicketLength;
        break;
    case QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_TRANSPORT:
        Side->ErrorCode = Event->SHUTDOWN_INITIATED_BY_TRANSPORT.ErrorCode;
        Side->Down = 1;
        break;
    case QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_PEER:
        Side->ErrorCode = Event->SHUTDOWN_INITIATED_BY_PEER.ErrorCode;
        Side->ByPeer = 1;
        Side->Down = 1;
        break;
    case QUIC_CONNECTION_EVENT_SHUTDOWN_COMPLETE:
        Side->Complete = 1;
        break;
    default:
        break;
    }
    return QUIC_STATUS_SUCCESS;
}

static QUIC_STATUS QUIC_API OnListener(HQUIC L, void* Context, QUIC_LISTENER_EVENT* Event)
{
    (void)L; (void)Context;
    if (Event->Type == QUIC_LISTENER_EVENT_NEW_CONNECTION) {
        ServerSide.Connection = Event->NEW_CONNECTION.Connection;
        Api->SetCallbackHandler(ServerSide.Connection, (void*)OnConnection, &ServerSide);
        return Api->ConnectionSetConfiguration(ServerSide.Connection, ServerConfig);
    }
    return QUIC_STATUS_SUCCESS;
}

static int WaitFor(volatile int* Flag, int Milliseconds)
{
    for (int i = 0; i < Milliseconds && !*Flag; i++) {
        usleep(1000);
    }
    return *Flag;
}

static EVP_PKEY* MakeKey(void)
{
    return EVP_EC_gen("P-256");
}

static X509* MakeCert(const char* Name, EVP_PKEY* Key, X509* Issuer, EVP_PKEY* IssuerKey, int Ca)
{
    static long Serial = 1;
    X509* Cert = X509_new();
    X509_set_version(Cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(Cert), Serial++);
    X509_gmtime_adj(X509_getm_notBefore(Cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(Cert), 86400);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(Cert), "CN", MBSTRING_ASC,
        (const unsigned char*)Name, -1, -1, 0);
    X509_set_issuer_name(Cert, X509_get_subject_name(Issuer ? Issuer : Cert));
    X509_set_pubkey(Cert, Key);
    X509_EXTENSION* Ext =
        X509V3_EXT_conf_nid(NULL, NULL, NID_basic_constraints, Ca ? "critical,CA:TRUE" : "CA:FALSE");
    X509_add_ext(Cert, Ext, -1);
    X509_EXTENSION_free(Ext);
    MUST(X509_sign(Cert, IssuerKey ? IssuerKey : Key, EVP_sha256()) > 0);
    return Cert;
}

static HQUIC OpenConfig(int Client, EVP_PKEY* Key, X509* Cert, STACK_OF(X509)* Ca,
    QUIC_SERVER_RESUMPTION_LEVEL Level)
{
    HQUIC Config = NULL;
    QUIC_BUFFER Alpn = { 4, (uint8_t*)"test" };
    QUIC_SETTINGS Settings = { 0 };
    Settings.IsSet.IdleTimeoutMs = TRUE;
    Settings.IdleTimeoutMs = 5000;
    Settings.IsSet.ServerResumptionLevel = TRUE;
    Settings.ServerResumptionLevel = Level;
    if (PeerBidiStreams) {
        Settings.IsSet.PeerBidiStreamCount = TRUE;
        Settings.PeerBidiStreamCount = PeerBidiStreams;
    }
    unsigned char* Der = NULL;
    int DerLength = 0;
    if (Key != NULL) {
        PKCS12* P12 = PKCS12_create("secret", NULL, Key, Cert, Ca, 0, 0, 1, 1, 0);
        MUST(P12 != NULL);
        DerLength = i2d_PKCS12(P12, &Der);
        PKCS12_free(P12);
        MUST(DerLength > 0);
    }
    QUIC_CERTIFICATE_PKCS12 Pkcs12 = { Der, (uint32_t)DerLength, "secret" };
    QUIC_CREDENTIAL_CONFIG Credential = { 0 };
    Credential.Type = Key ? QUIC_CREDENTIAL_TYPE_CERTIFICATE_PKCS12 : QUIC_CREDENTIAL_TYPE_NONE;
    Credential.CertificatePkcs12 = &Pkcs12;
    Credential.Flags =
        QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION |
        QUIC_CREDENTIAL_FLAG_INDICATE_CERTIFICATE_RECEIVED |
        (Portable ? QUIC_CREDENTIAL_FLAG_USE_PORTABLE_CERTIFICATES : 0) |
        (Client ? QUIC_CREDENTIAL_FLAG_CLIENT :
            ClientAuth ? QUIC_CREDENTIAL_FLAG_REQUIRE_CLIENT_AUTHENTICATION : 0);
    if (AllowedCipherSuites) {
        Credential.Flags |= QUIC_CREDENTIAL_FLAG_SET_ALLOWED_CIPHER_SUITES;
        Credential.AllowedCipherSuites = AllowedCipherSuites;
    }
    MUST(QUIC_SUCCEEDED(Api->ConfigurationOpen(
        Registration, &Alpn, 1, &Settings, sizeof(Settings), NULL, &Config)));
    QUIC_STATUS Status = Api->ConfigurationLoadCredential(Config, &Credential);
    OPENSSL_free(Der);
    if (LoadMayFail && QUIC_FAILED(Status)) {
        Api->ConfigurationClose(Config);
        return NULL;
    }
    MUST(QUIC_SUCCEEDED(Status));
    return Config;
}

static void StartLibrary(void)
{
    alarm(20);
    setvbuf(stdout, NULL, _IONBF, 0);
    QUIC_REGISTRATION_CONFIG Config = { "test", QUIC_EXECUTION_PROFILE_LOW_LATENCY };
    MsQuicLibraryLoad();
    MUST(QUIC_SUCCEEDED(MsQuicOpenVersion(QUIC_API_VERSION_2, (const void**)&Api)));
    MUST(QUIC_SUCCEEDED(Api->RegistrationOpen(&Config, &Registration)));
}

static void StartListener(void)
{
    QUIC_BUFFER Alpn = { 4, (uint8_t*)"test" };
    QUIC_ADDR Address = { 0 };
    QuicAddrFromString("127.0.0.1", 0, &Address);
    MUST(QUIC_SUCCEEDED(Api->ListenerOpen(Registration, OnListener, NULL, &Listener)));
    MUST(QUIC_SUCCEEDED(Api->ListenerStart(Listener, &Alpn, 1, &Address)));
    uint32_t Length = sizeof(Address);
    MUST(QUIC_SUCCEEDED(Api->GetParam(Listener, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Length, &Address)));
    Port = QuicAddrGetPort(&Address);
}

//
// Clears the results of the last connection; keeps the ticket of the client.
//
static void ResetSides(void)
{
    static uint8_t Ticket[sizeof(ClientSide.Ticket)];
    uint32_t TicketLength = ClientSide.TicketLength;
    memcpy(Ticket, ClientSide.Ticket, TicketLength);
    memset(&ClientSide, 0, sizeof(ClientSide));
    memset(&ServerSide, 0, sizeof(ServerSide));
    memcpy(ClientSide.Ticket, Ticket, TicketLength);
    ClientSide.TicketLength = TicketLength;
}

static void Connect(HQUIC ClientConfig, int UseTicket)
{
    MUST(QUIC_SUCCEEDED(Api->ConnectionOpen(Registration, OnConnection, &ClientSide, &ClientSide.Connection)));
    if (UseTicket) {
        MUST(QUIC_SUCCEEDED(Api->SetParam(ClientSide.Connection, QUIC_PARAM_CONN_RESUMPTION_TICKET,
            ClientSide.TicketLength, ClientSide.Ticket)));
    }
    MUST(QUIC_SUCCEEDED(Api->ConnectionStart(
        ClientSide.Connection, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port)));
}

static void CloseBoth(void)
{
    if (ServerSide.Connection) {
        Api->ConnectionClose(ServerSide.Connection);
    }
    Api->ConnectionClose(ClientSide.Connection);
}

static int StopLibrary(void)
{
    if (Listener) {
        Api->ListenerClose(Listener);
    }
    if (ServerConfig) {
        Api->ConfigurationClose(ServerConfig);
    }
    Api->RegistrationClose(Registration);
    MsQuicClose(Api);
    MsQuicLibraryUnload();
    if (Failures == 0) {
        printf("passed\n");
    }
    return Failures == 0 ? 0 : 1;
}

static inline int SameCert(const SIDE* Side, X509* Cert)
{
    unsigned char* Der = NULL;
    int Length = i2d_X509(Cert, &Der);
    int Same = Length == Side->LeafLength && memcmp(Der, Side->Leaf, Length) == 0;
    OPENSSL_free(Der);
    return Same;
}
