// N28: a client that moves to an unspecified address learns its address, although the route is
// queried only once.
#include "unit.h"
#include <errno.h>
#include <sys/syscall.h>

static volatile int Counting, Queries;

int connect(int Fd, const struct sockaddr* Address, socklen_t Length)
{
    if (Counting && __sync_add_and_fetch(&Queries, 1) > 1) {
        errno = ENETUNREACH;
        return -1;
    }
    return (int)syscall(SYS_connect, Fd, Address, Length);
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    (void)UnitListen(ServerConfig, &Port);
    UNIT_CONN C = { 0 };
    uint8_t Share = TRUE;
    OK(Api->ConnectionOpen(Reg, UnitConnCallback, &C, &C.Handle));
    OK(Api->SetParam(C.Handle, QUIC_PARAM_CONN_SHARE_UDP_BINDING, sizeof(Share), &Share));
    OK(Api->ConnectionStart(C.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));
    CHECK(UnitWait(&C.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));

    QUIC_ADDR Local = { 0 };
    uint32_t Length = sizeof(Local);
    QuicAddrSetFamily(&Local, QUIC_ADDRESS_FAMILY_INET);
    QUIC_STATUS Status = QUIC_STATUS_INVALID_STATE;
    for (int i = 0; i < 2000 && Status == QUIC_STATUS_INVALID_STATE; i++) { // until it is confirmed
        Counting = 1;
        Queries = 0;
        Status = Api->SetParam(C.Handle, QUIC_PARAM_CONN_LOCAL_ADDRESS, sizeof(Local), &Local);
        Counting = 0;
        usleep(1000);
    }
    OK(Status);
    OK(Api->GetParam(C.Handle, QUIC_PARAM_CONN_LOCAL_ADDRESS, &Length, &Local));
    if (QuicAddrIsWildCard(&Local)) { FAIL("the client does not know its address, and ignores all packets"); }
    QUIC_CONNECTION* Client = (QUIC_CONNECTION*)C.Handle;
    for (int i = 0; i < 5000 && !Client->Paths[0].IsPeerValidated; i++) { usleep(1000); }
    CHECK(Client->Paths[0].IsPeerValidated);
    _exit(0);
}
