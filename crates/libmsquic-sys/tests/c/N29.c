// N29: a client's packets leave through the interface that it selects.
#include "listen.h"

static volatile int Down;
static volatile QUIC_STATUS DownStatus;

static QUIC_STATUS QUIC_API
OnConnection(HQUIC Connection, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    (void)Connection; (void)Context;
    if (Event->Type == QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_TRANSPORT) {
        DownStatus = Event->SHUTDOWN_INITIATED_BY_TRANSPORT.Status;
    } else if (Event->Type == QUIC_CONNECTION_EVENT_SHUTDOWN_COMPLETE) {
        Down = 1;
    }
    return 0;
}

//
// Dials a socket on 127.0.0.1 and returns whether a packet arrived there.
//
static int
Arrives(uint32_t Interface)
{
    HQUIC Configuration, Connection;
    QUIC_BUFFER Alpn = { 1, (uint8_t*)"a" };
    QUIC_CREDENTIAL_CONFIG Cred = {0};
    Cred.Flags = QUIC_CREDENTIAL_FLAG_CLIENT | QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION;
    QUIC_ADDR Remote = MakeAddr(AF_INET, "127.0.0.1", 0);
    socklen_t Length = sizeof(Remote);
    int Fd = socket(AF_INET, SOCK_DGRAM, 0);
    MUST(bind(Fd, &Remote.Ip, sizeof(Remote.Ipv4)) == 0 && getsockname(Fd, &Remote.Ip, &Length) == 0);
    MUST(Api->ConfigurationOpen(Registration, &Alpn, 1, NULL, 0, NULL, &Configuration) == 0);
    MUST(Api->ConfigurationLoadCredential(Configuration, &Cred) == 0);
    MUST(Api->ConnectionOpen(Registration, OnConnection, NULL, &Connection) == 0);
    MUST(Api->SetParam(Connection, QUIC_PARAM_CONN_LOCAL_INTERFACE, sizeof(Interface), &Interface) == 0);
    Down = 0;
    MUST(QUIC_SUCCEEDED(Api->ConnectionStart(
        Connection, Configuration, AF_INET, "127.0.0.1", QuicAddrGetPort(&Remote))));
    struct pollfd Poll = { Fd, POLLIN, 0 };
    int Arrived = 0;
    for (int i = 0; i < 100 && !Arrived && !Down; i++) {
        Arrived = poll(&Poll, 1, 20) == 1;
    }
    Api->ConnectionClose(Connection);
    Api->ConfigurationClose(Configuration);
    close(Fd);
    return Arrived;
}

int main(void)
{
    OpenMsQuic();
    CHECK(Arrives(if_nametoindex("lo")), "nothing arrives through the loopback interface");
    CHECK(!Arrives(0x7ffffff0), "packets leave although there is no such interface");
    CloseMsQuic();
    return Result;
}
