// N16: a connection continues with smaller packets when its path stops carrying large ones, or when
// the socket refuses them (EMSGSIZE).
#include "rebind.h"
#include <errno.h>
#include <sys/syscall.h>
#include <sys/uio.h>

static volatile int Refuse; // sendmsg and sendmmsg fail for segments longer than this; 0: never
static int TooLong(const struct msghdr* M)
{
    size_t Length = 0;
    if (Refuse == 0) { return 0; }
    for (size_t i = 0; i < M->msg_iovlen; i++) { Length += M->msg_iov[i].iov_len; }
    for (struct cmsghdr* C = CMSG_FIRSTHDR(M); C != NULL; C = CMSG_NXTHDR((struct msghdr*)M, C)) {
        if (C->cmsg_level == 17 /* SOL_UDP */ && C->cmsg_type == 103 /* UDP_SEGMENT */) {
            Length = *(uint16_t*)CMSG_DATA(C);
        }
    }
    return Length > (size_t)Refuse;
}
ssize_t sendmsg(int Fd, const struct msghdr* M, int Flags)
{
    if (TooLong(M)) { errno = EMSGSIZE; return -1; }
    return syscall(SYS_sendmsg, Fd, M, Flags);
}
int sendmmsg(int Fd, struct mmsghdr* M, unsigned int Count, int Flags)
{
    for (unsigned int i = 0; i < Count; i++) {
        if (TooLong(&M[i].msg_hdr)) {
            if (i == 0) { errno = EMSGSIZE; return -1; }
            Count = i;
        }
    }
    return (int)syscall(SYS_sendmmsg, Fd, M, Count, Flags);
}

static volatile int Sent;
static QUIC_STATUS QUIC_API StreamCallback(HQUIC Stream, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Stream);
    if (Event->Type == QUIC_STREAM_EVENT_SEND_COMPLETE && !Event->SEND_COMPLETE.Canceled) { Sent = 1; }
    return QUIC_STATUS_SUCCESS;
}

static volatile uint64_t Received;
static QUIC_STATUS QUIC_API PeerStreamCallback(HQUIC Stream, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Stream);
    if (Event->Type == QUIC_STREAM_EVENT_RECEIVE) { Received += Event->RECEIVE.TotalBufferLength; }
    return QUIC_STATUS_SUCCESS;
}
static QUIC_STATUS QUIC_API ServerCallback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_PEER_STREAM_STARTED) {
        Api->SetCallbackHandler(Event->PEER_STREAM_STARTED.Stream, (void*)PeerStreamCallback, NULL);
    }
    return UnitConnCallback(Handle, Context, Event);
}

static uint16_t PathMtu(HQUIC Connection)
{
    QUIC_STATISTICS_V2 Stats;
    uint32_t Length = sizeof(Stats);
    OK(Api->GetParam(Connection, QUIC_PARAM_CONN_STATISTICS_V2, &Length, &Stats));
    return Stats.SendPathMtu;
}

int main(void)
{
    static uint8_t Bytes[300000];
    static const QUIC_BUFFER Data = { sizeof(Bytes), Bytes };
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.PeerUnidiStreamCount = 10; S.IsSet.PeerUnidiStreamCount = TRUE;
    S.SendBufferingEnabled = FALSE; S.IsSet.SendBufferingEnabled = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S), Stream;
    UnitAcceptCallback = ServerCallback;
    uint16_t Port;
    UnitListen(ServerConfig, &Port);
    RebindStart(Port);

    for (int Round = 0; Round < 2; Round++) {
        UNIT_CONN C = { 0 };
        RebindMaxToServer = Refuse = 0;
        Sent = 0; Received = 0;
        UnitConnect(&C, ClientConfig, RebindPort);
        CHECK(UnitWait(&C.Connected, 5000));
        for (int i = 0; i < 3000 && PathMtu(C.Handle) < 1500; i++) { usleep(1000); }
        if (PathMtu(C.Handle) != 1500) { FAIL("round %d: path MTU %u", Round, PathMtu(C.Handle)); }

        if (Round == 0) { RebindMaxToServer = 1300; } else { Refuse = 1300; }
        OK(Api->StreamOpen(C.Handle, QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL, StreamCallback, NULL, &Stream));
        OK(Api->StreamStart(Stream, QUIC_STREAM_START_FLAG_NONE));
        OK(Api->StreamSend(Stream, &Data, 1, QUIC_SEND_FLAG_FIN, NULL));
        if (!UnitWait(&Sent, 4000)) { FAIL("round %d: not acknowledged, %u bytes arrived", Round, (unsigned)Received); }
        CHECK(Received == sizeof(Bytes) && !C.ByTransport);
        for (int i = 0; i < 3000 && PathMtu(C.Handle) < 1280; i++) { usleep(1000); }
        CHECK(PathMtu(C.Handle) >= 1248 && PathMtu(C.Handle) <= 1328);
        Api->ConnectionShutdown(C.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_SILENT, 0);
        CHECK(UnitWait(&C.Complete, 2000));
    }
    _exit(0);
}
