// Helpers shared by the tests of the Linux datapath: one worker, one UDP socket on loopback.
#pragma once
#include "platform_internal.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <sys/epoll.h>

void MsQuicLibraryLoad(void);
void MsQuicLibraryUnload(void);

#define FAIL(...) do { printf("%s:%d: ", __FILE__, __LINE__); printf(__VA_ARGS__); printf("\n"); fflush(stdout); _exit(1); } while (0)
#define CHECK(X) do { if (!(X)) FAIL("failed: %s (errno %d)", #X, errno); } while (0)
#define OK(X) do { QUIC_STATUS S_ = (X); if (QUIC_FAILED(S_)) FAIL("%s: status 0x%x", #X, (unsigned)S_); } while (0)
#define GET(X) __atomic_load_n(&(X), __ATOMIC_SEQ_CST)
#define ADD(X, N) __atomic_add_fetch(&(X), N, __ATOMIC_SEQ_CST)
#define WAIT_FOR(X, Ms) ({ int I_ = 0; while (!(X) && ++I_ < (Ms)) { usleep(1000); } !!(X); })

static CXPLAT_WORKER_POOL* Pool;
static CXPLAT_DATAPATH* Dp;
static CXPLAT_SOCKET* Sock;
static int Peer;
static int NoGro;                       // makes UDP_GRO fail, so that recvmmsg with many messages is used
static uint64_t RecvPackets, RecvBytes; // what the datapath delivered
static void (*OnReceive)(CXPLAT_RECV_DATA*);
static int Keeps;                       // put received datagrams into Kept, the last one first
static CXPLAT_RECV_DATA* Kept;

#ifndef DP_OWN_SETSOCKOPT
int setsockopt(int Fd, int Level, int Name, const void* Value, socklen_t Length)
{
    if (NoGro && Level == SOL_UDP && Name == UDP_GRO) {
        errno = ENOPROTOOPT;
        return -1;
    }
    return (int)syscall(SYS_setsockopt, Fd, Level, Name, Value, Length);
}
#endif

static void DpReceive(CXPLAT_SOCKET* Socket, void* Context, CXPLAT_RECV_DATA* Chain)
{
    (void)Socket; (void)Context;
    for (CXPLAT_RECV_DATA* D = Chain, *Next; D != NULL; D = Next) {
        Next = D->Next;
        if (OnReceive) OnReceive(D);
        if (Keeps) { D->Next = Kept; Kept = D; }
        ADD(RecvBytes, D->BufferLength);
        ADD(RecvPackets, 1);
    }
    if (!Keeps) CxPlatRecvDataReturn(Chain);
}

static void DpUnreachable(CXPLAT_SOCKET* Socket, void* Context, const QUIC_ADDR* Address)
{
    (void)Socket; (void)Context; (void)Address;
}

// Opens the library, a datapath with one worker, a bound UDP socket (Sock) and a peer connected to it (Peer).
static __attribute__((unused)) void DpOpen(const char* Address)
{
    const CXPLAT_UDP_DATAPATH_CALLBACKS Udp = { DpReceive, DpUnreachable };
    alarm(20);
    RecvPackets = RecvBytes = 0;
    MsQuicLibraryLoad();
    OK(CxPlatInitialize());
    QUIC_GLOBAL_EXECUTION_CONFIG Config = { 0, 0, 1, { 0 } };
    CHECK((Pool = CxPlatWorkerPoolCreate(&Config)) != NULL);
    OK(CxPlatDataPathInitialize(256, &Udp, NULL, Pool, &Dp));
    QUIC_ADDR Local = { 0 };
    QuicAddrFromString(Address, 0, &Local);
    CXPLAT_UDP_CONFIG UdpConfig = { .LocalAddress = &Local };
    OK(CxPlatSocketCreateUdp(Dp, &UdpConfig, &Sock));
    CxPlatSocketGetLocalAddress(Sock, &Local);
    if (Local.Ip.sa_family == QUIC_ADDRESS_FAMILY_INET6) Local.Ip.sa_family = AF_INET6;
    CHECK((Peer = socket(Local.Ip.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0)) >= 0);
    CHECK(connect(Peer, &Local.Ip, Local.Ip.sa_family == AF_INET ? sizeof(Local.Ipv4) : sizeof(Local.Ipv6)) == 0);
}

static __attribute__((unused)) void DpClose(void)
{
    close(Peer);
    CxPlatSocketDelete(Sock);
    CxPlatDataPathUninitialize(Dp);
    CxPlatWorkerPoolDelete(Pool);
    CxPlatUninitialize();
    MsQuicLibraryUnload();
}
