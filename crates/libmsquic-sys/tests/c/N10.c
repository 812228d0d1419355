// No descriptor may survive exec: feature probe, UDP and TCP sockets, event queues, files.
#include "datapath.h"
#include <dirent.h>

static char What[256];
static void Note(const char* Call) { if (!What[0]) snprintf(What, sizeof(What), "%s", Call); }

int socket(int Family, int Type, int Protocol)
{
    if (!(Type & SOCK_CLOEXEC)) Note("socket without SOCK_CLOEXEC");
    return (int)syscall(SYS_socket, Family, Type, Protocol);
}

int accept4(int Fd, struct sockaddr* Address, socklen_t* Length, int Flags)
{
    if (!(Flags & SOCK_CLOEXEC)) Note("accept4 without SOCK_CLOEXEC");
    return (int)syscall(SYS_accept4, Fd, Address, Length, Flags);
}

FILE* fopen(const char* Path, const char* Mode)
{
    static FILE* (*Real)(const char*, const char*);
    if (Real == NULL) Real = (FILE* (*)(const char*, const char*))dlsym(RTLD_NEXT, "fopen");
    if (strchr(Mode, 'e') == NULL) Note("fopen without \"e\"");
    return Real(Path, Mode);
}

static void Inherited(void)
{
    DIR* Dir = opendir("/proc/self/fd");
    CHECK(Dir != NULL);
    for (struct dirent* E; (E = readdir(Dir)) != NULL;) {
        char Path[300], Target[200] = "";
        const int Fd = atoi(E->d_name);
        snprintf(Path, sizeof(Path), "/proc/self/fd/%s", E->d_name);
        if (Fd < 3 || readlink(Path, Target, sizeof(Target) - 1) < 0) continue;
        if ((strncmp(Target, "socket:", 7) == 0 || strncmp(Target, "anon_inode:", 11) == 0 ||
             strncmp(Target, "/dev/", 5) == 0) && !(fcntl(Fd, F_GETFD) & FD_CLOEXEC)) {
            snprintf(Path, sizeof(Path), "descriptor %d (%s) is inherited", Fd, Target);
            Note(Path);
        }
    }
    closedir(Dir);
}

static CXPLAT_SOCKET* Accepted;
static QUIC_STATUS Accept(CXPLAT_SOCKET* L, void* LC, CXPLAT_SOCKET* S, void** C)
{
    (void)L; (void)LC; *C = NULL;
    __atomic_store_n(&Accepted, S, __ATOMIC_SEQ_CST);
    return QUIC_STATUS_SUCCESS;
}
static void Connect(CXPLAT_SOCKET* S, void* C, BOOLEAN Up) { (void)S; (void)C; (void)Up; }
static void Complete(CXPLAT_SOCKET* S, void* C, QUIC_STATUS X, uint32_t N) { (void)S; (void)C; (void)X; (void)N; }

int main(void)
{
    // Descriptors that this test has inherited itself are ignored.
    for (int Fd = 3; Fd < 64; Fd++) if (fcntl(Fd, F_GETFD) >= 0) fcntl(Fd, F_SETFD, FD_CLOEXEC);

    DpOpen("127.0.0.1");
    const CXPLAT_TCP_DATAPATH_CALLBACKS Tcp = { Accept, Connect, DpReceive, Complete };
    Dp->TcpHandlers = Tcp;
    QUIC_ADDR Local = { 0 };
    CXPLAT_SOCKET *Listener, *Client;
    QuicAddrFromString("127.0.0.1", 0, &Local);
    OK(CxPlatSocketCreateTcpListener(Dp, &Local, NULL, &Listener));
    CxPlatSocketGetLocalAddress(Listener, &Local);
    OK(CxPlatSocketCreateTcp(Dp, NULL, &Local, NULL, &Client));
    CHECK(WAIT_FOR(GET(Accepted) != NULL, 2000));
    Inherited();
    CxPlatSocketDelete(Client);
    CxPlatSocketDelete(Accepted);
    CxPlatSocketDelete(Listener);
    DpClose();
    if (What[0]) FAIL("%s", What);
    return 0;
}
