// Helpers shared by the tests: msquic set-up, a certificate in memory, waiting, a UDP relay.
#pragma once
#include "precomp.h"
#include <openssl/evp.h>
#include <openssl/ec.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void MsQuicLibraryLoad(void);
void MsQuicLibraryUnload(void);

#define FAIL(...) do { printf("%s:%d: ", __FILE__, __LINE__); printf(__VA_ARGS__); printf("\n"); fflush(stdout); _exit(1); } while (0)
#define CHECK(X) do { if (!(X)) FAIL("failed: %s", #X); } while (0)
#define OK(X) do { QUIC_STATUS S_ = (X); if (QUIC_FAILED(S_)) FAIL("%s: status 0x%x", #X, (unsigned)S_); } while (0)

static const QUIC_API_TABLE* Api;
static HQUIC Reg;
static const QUIC_BUFFER Alpn = { 4, (uint8_t*)"test" };

static void UnitOpen(QUIC_EXECUTION_PROFILE Profile)
{
    alarm(20);
    MsQuicLibraryLoad();
    OK(MsQuicOpenVersion(2, (const void**)&Api));
    QUIC_REGISTRATION_CONFIG C = { "unit", Profile };
    OK(Api->RegistrationOpen(&C, &Reg));
}

static HQUIC UnitClientConfig(const QUIC_SETTINGS* Settings)
{
    HQUIC Config;
    OK(Api->ConfigurationOpen(Reg, &Alpn, 1, Settings, sizeof(*Settings), NULL, &Config));
    QUIC_CREDENTIAL_CONFIG Cred = { 0 };
    Cred.Type = QUIC_CREDENTIAL_TYPE_NONE;
    Cred.Flags = QUIC_CREDENTIAL_FLAG_CLIENT | QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION;
    OK(Api->ConfigurationLoadCredential(Config, &Cred));
    return Config;
}

static HQUIC UnitServerConfig(const QUIC_SETTINGS* Settings)
{
    EVP_PKEY* Key = EVP_EC_gen("P-256");
    X509* Cert = X509_new();
    X509_set_version(Cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(Cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(Cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(Cert), 3600);
    X509_set_pubkey(Cert, Key);
    X509_NAME_add_entry_by_txt(
        X509_get_subject_name(Cert), "CN", MBSTRING_ASC, (const unsigned char*)"unit", -1, -1, 0);
    X509_set_issuer_name(Cert, X509_get_subject_name(Cert));
    CHECK(X509_sign(Cert, Key, EVP_sha256()) > 0);
    PKCS12* P12 = PKCS12_create("pw", "unit", Key, Cert, NULL, 0, 0, 0, 0, 0);
    CHECK(P12 != NULL);
    uint8_t* Blob = NULL;
    int BlobLength = i2d_PKCS12(P12, &Blob);
    CHECK(BlobLength > 0);

    HQUIC Config;
    OK(Api->ConfigurationOpen(Reg, &Alpn, 1, Settings, sizeof(*Settings), NULL, &Config));
    QUIC_CERTIFICATE_PKCS12 Pkcs12 = { Blob, (uint32_t)BlobLength, "pw" };
    QUIC_CREDENTIAL_CONFIG Cred = { 0 };
    Cred.Type = QUIC_CREDENTIAL_TYPE_CERTIFICATE_PKCS12;
    Cred.CertificatePkcs12 = &Pkcs12;
    OK(Api->ConfigurationLoadCredential(Config, &Cred));
    OPENSSL_free(Blob);
    PKCS12_free(P12);
    X509_free(Cert);
    EVP_PKEY_free(Key);
    return Config;
}

static void UnitClose(void)
{
    Api->RegistrationClose(Reg);
    MsQuicClose(Api);
    MsQuicLibraryUnload();
}

// Waits until *Value is not zero; returns whether that happened in time.
static int UnitWait(volatile int* Value, int Ms)
{
    for (int i = 0; i < Ms && !*Value; i++) { usleep(1000); }
    return *Value != 0;
}

// The events that the callback of one connection has got.
typedef struct UNIT_CONN {
    HQUIC Handle;
    volatile int Connected, ByTransport, ByPeer, Complete;
    QUIC_STATUS TransportStatus;
    uint64_t TransportError, PeerError;
} UNIT_CONN;

static QUIC_STATUS QUIC_API UnitConnCallback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    UNIT_CONN* C = Context;
    UNREFERENCED_PARAMETER(Handle);
    switch (Event->Type) {
    case QUIC_CONNECTION_EVENT_CONNECTED: C->Connected = 1; break;
    case QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_TRANSPORT:
        C->TransportStatus = Event->SHUTDOWN_INITIATED_BY_TRANSPORT.Status;
        C->TransportError = Event->SHUTDOWN_INITIATED_BY_TRANSPORT.ErrorCode;
        C->ByTransport = 1;
        break;
    case QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_PEER:
        C->PeerError = Event->SHUTDOWN_INITIATED_BY_PEER.ErrorCode;
        C->ByPeer = 1;
        break;
    case QUIC_CONNECTION_EVENT_SHUTDOWN_COMPLETE: C->Complete = 1; break;
    default: break;
    }
    return QUIC_STATUS_SUCCESS;
}

static void UnitConnect(UNIT_CONN* C, HQUIC Config, uint16_t Port)
{
    OK(Api->ConnectionOpen(Reg, UnitConnCallback, C, &C->Handle));
    OK(Api->ConnectionStart(C->Handle, Config, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));
}

// A listener that accepts one connection.
static UNIT_CONN UnitAccepted;
static HQUIC UnitAcceptConfig;
static QUIC_CONNECTION_CALLBACK_HANDLER UnitAcceptCallback = UnitConnCallback; // a test may set its own
static QUIC_STATUS QUIC_API UnitListenerCallback(HQUIC Listener, void* Context, QUIC_LISTENER_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Listener);
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_LISTENER_EVENT_NEW_CONNECTION) {
        UnitAccepted.Handle = Event->NEW_CONNECTION.Connection;
        Api->SetCallbackHandler(UnitAccepted.Handle, (void*)UnitAcceptCallback, &UnitAccepted);
        return Api->ConnectionSetConfiguration(UnitAccepted.Handle, UnitAcceptConfig);
    }
    return QUIC_STATUS_SUCCESS;
}

static HQUIC UnitListen(HQUIC Config, uint16_t* Port)
{
    HQUIC Listener;
    UnitAcceptConfig = Config;
    OK(Api->ListenerOpen(Reg, UnitListenerCallback, NULL, &Listener));
    QUIC_ADDR Addr = { 0 };
    QuicAddrSetFamily(&Addr, QUIC_ADDRESS_FAMILY_INET);
    OK(Api->ListenerStart(Listener, &Alpn, 1, &Addr));
    uint32_t Size = sizeof(Addr);
    OK(Api->GetParam(Listener, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Size, &Addr));
    *Port = QuicAddrGetPort(&Addr);
    return Listener;
}

static int UnitUdp(uint16_t* Port)
{
    int Fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in A = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t Length = sizeof(A);
    CHECK(Fd >= 0 && bind(Fd, (struct sockaddr*)&A, sizeof(A)) == 0);
    CHECK(getsockname(Fd, (struct sockaddr*)&A, &Length) == 0);
    *Port = ntohs(A.sin_port);
    return Fd;
}

// Relay between one client and a server; Filter returns 0 to drop a datagram.
typedef struct UNIT_RELAY {
    int ClientFd, ServerFd;
    uint16_t Port;
    struct sockaddr_in Client, Server;
    int (*Filter)(int FromClient, const uint8_t* Data, int Length);
    volatile int Stop;
    pthread_t Thread;
} UNIT_RELAY;

static void* UnitRelayRun(void* Context)
{
    UNIT_RELAY* R = Context;
    uint8_t Data[65536];
    while (!R->Stop) {
        struct pollfd P[2] = { { R->ClientFd, POLLIN, 0 }, { R->ServerFd, POLLIN, 0 } };
        if (poll(P, 2, 20) <= 0) { continue; }
        for (int i = 0; i < 2; i++) {
            if (!(P[i].revents & POLLIN)) { continue; }
            struct sockaddr_in From;
            socklen_t FromLength = sizeof(From);
            int n = (int)recvfrom(P[i].fd, Data, sizeof(Data), 0, (struct sockaddr*)&From, &FromLength);
            if (n < 0) { continue; }
            if (i == 0) { R->Client = From; }
            if (R->Filter != NULL && !R->Filter(i == 0, Data, n)) { continue; }
            struct sockaddr_in* To = i == 0 ? &R->Server : &R->Client;
            (void)!sendto(i == 0 ? R->ServerFd : R->ClientFd, Data, (size_t)n, 0, (struct sockaddr*)To, sizeof(*To));
        }
    }
    return NULL;
}

static void UnitRelayStart(UNIT_RELAY* R, uint16_t ServerPort, int (*Filter)(int, const uint8_t*, int))
{
    uint16_t Unused;
    memset(R, 0, sizeof(*R));
    R->Filter = Filter;
    R->ClientFd = UnitUdp(&R->Port);
    R->ServerFd = UnitUdp(&Unused);
    R->Server.sin_family = AF_INET;
    R->Server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    R->Server.sin_port = htons(ServerPort);
    CHECK(pthread_create(&R->Thread, NULL, UnitRelayRun, R) == 0);
}

static void UnitRelayStop(UNIT_RELAY* R)
{
    R->Stop = 1;
    pthread_join(R->Thread, NULL);
    close(R->ClientFd);
    close(R->ServerFd);
}

// One use of each helper, so that a test that does not use some of them compiles without warnings.
static __attribute__((unused)) void* const UnitAll[] = {
    UnitOpen, UnitClientConfig, UnitServerConfig, UnitClose, UnitWait, UnitConnect, UnitListen,
    UnitUdp, UnitRelayStart, UnitRelayStop
};
