//
// Helpers for tests that use the public API over loopback.
//
#pragma once
#include "msquic.h"
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void MsQuicLibraryLoad(void);
void MsQuicLibraryUnload(void);

static const QUIC_API_TABLE* Api;
static HQUIC Registration;
static int Result;

#define CHECK(X, ...) \
    do { if (!(X)) { printf("%s:%d: ", __FILE__, __LINE__); printf(__VA_ARGS__); printf("\n"); Result = 1; } } while (0)
#define MUST(X) \
    do { if (!(X)) { printf("%s:%d: %s failed\n", __FILE__, __LINE__, #X); exit(1); } } while (0)

static inline void
OpenMsQuic(void)
{
    alarm(20);
    setvbuf(stdout, NULL, _IONBF, 0);
    MsQuicLibraryLoad();
    MUST(MsQuicOpenVersion(QUIC_API_VERSION_2, (const void**)&Api) == 0);
    MUST(Api->RegistrationOpen(NULL, &Registration) == 0);
}

static inline void
CloseMsQuic(void)
{
    Api->RegistrationClose(Registration);
    MsQuicClose(Api);
    MsQuicLibraryUnload();
}

static inline QUIC_ADDR
MakeAddr(int Family, const char* Ip, uint16_t Port)
{
    QUIC_ADDR Addr;
    memset(&Addr, 0, sizeof(Addr));
    Addr.Ip.sa_family = Family;
    QuicAddrSetPort(&Addr, Port);
    if (Family != AF_UNSPEC) {
        MUST(inet_pton(
            Family, Ip, Family == AF_INET ? (void*)&Addr.Ipv4.sin_addr : (void*)&Addr.Ipv6.sin6_addr) == 1);
    }
    return Addr;
}

static inline QUIC_STATUS
ListenWith(QUIC_LISTENER_CALLBACK_HANDLER Handler, const QUIC_ADDR* Addr, const char* Alpn, HQUIC* Listener)
{
    QUIC_BUFFER Buffer = { (uint32_t)strlen(Alpn), (uint8_t*)Alpn };
    MUST(Api->ListenerOpen(Registration, Handler, NULL, Listener) == 0);
    QUIC_STATUS Status = Api->ListenerStart(*Listener, &Buffer, 1, Addr);
    if (Status != 0) {
        Api->ListenerClose(*Listener);
        *Listener = NULL;
    }
    return Status;
}

static inline QUIC_ADDR
ListenerAddr(HQUIC Listener)
{
    QUIC_ADDR Addr;
    uint32_t Length = sizeof(Addr);
    MUST(Api->GetParam(Listener, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Length, &Addr) == 0);
    return Addr;
}

static inline socklen_t
AddrLen(const QUIC_ADDR* Addr)
{
    return Addr->Ip.sa_family == AF_INET ? sizeof(Addr->Ipv4) : sizeof(Addr->Ipv6);
}

//
// Sends a long header packet of 1200 bytes with an unknown version, which a
// QUIC server answers with Version Negotiation (RFC 9000, section 6.1). Returns
// whether there was an answer.
//
static inline int
IsAnswered(QUIC_ADDR Addr, int TimeoutMs)
{
    uint8_t Packet[1200] = { 0xC0, 0x1a, 0x2a, 0x3a, 0x4a, 8, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1, 2, 3, 4, 5, 6, 7, 8 };
    int Fd = socket(Addr.Ip.sa_family, SOCK_DGRAM, 0);
    MUST(Fd >= 0);
    struct pollfd Poll = { Fd, POLLIN, 0 };
    int Answered = 0;
    // A worker that is busy drops packets, so they are sent again.
    for (int Waited = 0; Waited < TimeoutMs && !Answered; Waited += 150) {
        uint8_t Answer[1200];
        sendto(Fd, Packet, sizeof(Packet), 0, &Addr.Ip, AddrLen(&Addr));
        Answered =
            poll(&Poll, 1, 150) == 1 && (Poll.revents & POLLIN) && recv(Fd, Answer, sizeof(Answer), 0) > 0;
    }
    close(Fd);
    return Answered;
}
