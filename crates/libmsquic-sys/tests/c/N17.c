// On a host without IPv6 a listener and a connection over IPv4 must work.
#include "unit.h"
#include <sys/syscall.h>

static int Refused, Inet;
static const char* On;
int socket(int Family, int Type, int Protocol)
{
    if (Family == AF_INET6) {
        Refused++;
        errno = EAFNOSUPPORT;
        return -1;
    }
    Inet++;
    return (int)syscall(SYS_socket, Family, Type, Protocol);
}

static void Connect(HQUIC Client, const char* Name, uint16_t Port, uint16_t Family, int Works)
{
    UNIT_CONN C = { 0 };
    memset((void*)&UnitAccepted, 0, sizeof(UnitAccepted));
    OK(Api->ConnectionOpen(Reg, UnitConnCallback, &C, &C.Handle));
    const QUIC_STATUS Status = Api->ConnectionStart(C.Handle, Client, Family, Name, Port);
    if (Works) {
        OK(Status);
        if (!UnitWait(&C.Connected, 3000)) FAIL("listener %s: no connection to %s, status %u", On, Name, C.TransportStatus);
        CHECK(UnitWait(&UnitAccepted.Connected, 3000));
        QUIC_ADDR Local = { 0 }, Remote = { 0 };
        uint32_t Size = sizeof(Local);
        OK(Api->GetParam(UnitAccepted.Handle, QUIC_PARAM_CONN_LOCAL_ADDRESS, &Size, &Local));
        Size = sizeof(Remote);
        OK(Api->GetParam(UnitAccepted.Handle, QUIC_PARAM_CONN_REMOTE_ADDRESS, &Size, &Remote));
        if (Local.Ip.sa_family != AF_INET || Local.Ipv4.sin_addr.s_addr != htonl(INADDR_LOOPBACK) ||
            QuicAddrGetPort(&Local) != Port ||
            Remote.Ip.sa_family != AF_INET || Remote.Ipv4.sin_addr.s_addr != htonl(INADDR_LOOPBACK))
            FAIL("wrong address at the server");
        Size = sizeof(Remote);
        OK(Api->GetParam(C.Handle, QUIC_PARAM_CONN_LOCAL_ADDRESS, &Size, &Remote));
        CHECK(Remote.Ip.sa_family == AF_INET && Remote.Ipv4.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
        Api->ConnectionShutdown(C.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 7);
        CHECK(UnitWait(&UnitAccepted.Complete, 3000));
        CHECK(UnitAccepted.PeerError == 7);
        Api->ConnectionClose(UnitAccepted.Handle);
    } else {
        CHECK(QUIC_FAILED(Status) || UnitWait(&C.ByTransport, 3000));
        CHECK(!C.Connected);
    }
    Api->ConnectionClose(C.Handle);
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS Settings = { 0 };
    HQUIC Client = UnitClientConfig(&Settings), Server = UnitServerConfig(&Settings);
    const char* Addresses[] = { "any", "0.0.0.0", "127.0.0.1" };
    for (int i = 0; i < 3; i++) {
        HQUIC Listener;
        QUIC_ADDR Addr = { 0 };
        UnitAcceptConfig = Server;
        On = Addresses[i];
        CHECK(strcmp(On, "any") == 0 || QuicAddrFromString(Addresses[i], 0, &Addr));
        OK(Api->ListenerOpen(Reg, UnitListenerCallback, NULL, &Listener));
        QUIC_STATUS Status = Api->ListenerStart(Listener, &Alpn, 1, &Addr);
        if (QUIC_FAILED(Status)) FAIL("listener on %s: status %u", Addresses[i], Status);
        uint32_t Size = sizeof(Addr);
        OK(Api->GetParam(Listener, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Size, &Addr));
        for (int j = 0; j < 5; j++)
            Connect(Client, "127.0.0.1", QuicAddrGetPort(&Addr), j & 1 ? QUIC_ADDRESS_FAMILY_INET : QUIC_ADDRESS_FAMILY_UNSPEC, 1);
        Connect(Client, "::ffff:127.0.0.1", QuicAddrGetPort(&Addr), QUIC_ADDRESS_FAMILY_UNSPEC, 1);
        Connect(Client, "::1", QuicAddrGetPort(&Addr), QUIC_ADDRESS_FAMILY_UNSPEC, 0);
        Api->ListenerClose(Listener);
    }
    CHECK(Refused > 0 && Inet > 0);
    Api->ConfigurationClose(Client);
    Api->ConfigurationClose(Server);
    UnitClose();
    return 0;
}
