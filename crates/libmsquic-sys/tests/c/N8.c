//
// A listener on a specific address binds to that address only.
//
#include "listen.h"

static QUIC_STATUS QUIC_API
OnListener(HQUIC Listener, void* Context, QUIC_LISTENER_EVENT* Event)
{
    (void)Listener; (void)Context;
    return Event->Type == QUIC_LISTENER_EVENT_NEW_CONNECTION ? QUIC_STATUS_INVALID_STATE : 0;
}

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

static QUIC_STATUS
Listen(const QUIC_ADDR* Addr, const char* Alpn, HQUIC* Listener)
{
    return ListenWith(OnListener, Addr, Alpn, Listener);
}

//
// Dials from the local address and returns the status of the failed handshake.
//
static QUIC_STATUS
DialFrom(QUIC_ADDR Local, QUIC_ADDR Remote, uint8_t Share)
{
    HQUIC Configuration, Connection;
    QUIC_BUFFER Alpn = { 1, (uint8_t*)"a" };
    QUIC_CREDENTIAL_CONFIG Cred = {0};
    Cred.Flags = QUIC_CREDENTIAL_FLAG_CLIENT | QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION;
    MUST(Api->ConfigurationOpen(Registration, &Alpn, 1, NULL, 0, NULL, &Configuration) == 0);
    MUST(Api->ConfigurationLoadCredential(Configuration, &Cred) == 0);
    MUST(Api->ConnectionOpen(Registration, OnConnection, NULL, &Connection) == 0);
    MUST(Api->SetParam(Connection, QUIC_PARAM_CONN_SHARE_UDP_BINDING, 1, &Share) == 0);
    MUST(Api->SetParam(Connection, QUIC_PARAM_CONN_LOCAL_ADDRESS, sizeof(Local), &Local) == 0);
    MUST(Api->SetParam(Connection, QUIC_PARAM_CONN_REMOTE_ADDRESS, sizeof(Remote), &Remote) == 0);
    Down = 0;
    DownStatus = 0;
    QUIC_STATUS Status = Api->ConnectionStart(Connection, Configuration, AF_UNSPEC, "localhost", QuicAddrGetPort(&Remote));
    MUST(Status == QUIC_STATUS_PENDING);
    for (int i = 0; i < 500 && !Down; i++) {
        usleep(10000);
    }
    Api->ConnectionClose(Connection);
    Api->ConfigurationClose(Configuration);
    return DownStatus;
}

int main(void)
{
    HQUIC A, B, C, D;

    OpenMsQuic();

    //
    // Port 0 on a specific address; the actual port is reported.
    //
    QUIC_ADDR Any1 = MakeAddr(AF_INET, "127.0.0.1", 0);
    MUST(Listen(&Any1, "a", &A) == 0);
    QUIC_ADDR One = ListenerAddr(A);
    uint16_t Port = QuicAddrGetPort(&One);
    QUIC_ADDR Two = MakeAddr(AF_INET, "127.0.0.2", Port);
    QUIC_ADDR Six = MakeAddr(AF_INET6, "::1", Port);
    QUIC_ADDR Wild4 = MakeAddr(AF_INET, "0.0.0.0", Port);
    QUIC_ADDR Wild6 = MakeAddr(AF_INET6, "::", Port);
    QUIC_ADDR Wild = MakeAddr(AF_UNSPEC, "", Port);
    CHECK(Port != 0, "port 0 is reported");
    CHECK(One.Ip.sa_family == AF_INET && One.Ipv4.sin_addr.s_addr == Any1.Ipv4.sin_addr.s_addr,
        "another address is reported");
    CHECK(IsAnswered(One, 5000), "the listener does not answer on its address");
    CHECK(!IsAnswered(Two, 150), "the listener on 127.0.0.1 answers packets to 127.0.0.2");
    CHECK(!IsAnswered(Six, 150), "the listener on 127.0.0.1 answers packets to ::1");

    //
    // The other addresses are free for other sockets, of this or another process.
    //
    int Fd = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(bind(Fd, &Two.Ip, sizeof(Two.Ipv4)) == 0, "the listener on 127.0.0.1 occupies the port on 127.0.0.2");
    close(Fd);
    CHECK(DialFrom(Two, One, 0) == QUIC_STATUS_CONNECTION_REFUSED,
        "a client on 127.0.0.2 fails with 0x%x", DownStatus);
    // The socket of the previous client may be closed a little later.
    QUIC_STATUS Shared = QUIC_STATUS_ADDRESS_IN_USE;
    for (int i = 0; i < 200 && Shared == QUIC_STATUS_ADDRESS_IN_USE; i++) {
        Shared = DialFrom(Two, One, 1);
        usleep(10000);
    }
    CHECK(Shared == QUIC_STATUS_CONNECTION_REFUSED,
        "a sharing client on 127.0.0.2 fails with 0x%x", Shared);
    CHECK(DialFrom(One, One, 0) == QUIC_STATUS_ADDRESS_IN_USE,
        "a client on the listener's address fails with 0x%x", DownStatus);
    CHECK(DialFrom(Wild4, One, 1) == QUIC_STATUS_ADDRESS_IN_USE,
        "a sharing client on the wildcard address fails with 0x%x", DownStatus);

    //
    // Other names on the same address share the binding.
    //
    MUST(Listen(&One, "b", &B) == 0);
    QUIC_STATUS Status = Listen(&One, "a", &C);
    CHECK(Status == QUIC_STATUS_ALPN_IN_USE, "the same name twice gives 0x%x", Status);

    //
    // Listeners on other addresses with the same port.
    //
    CHECK((Status = Listen(&Two, "a", &C)) == 0, "127.0.0.2 beside 127.0.0.1 gives 0x%x", Status);
    CHECK((Status = Listen(&Six, "a", &D)) == 0, "::1 beside 127.0.0.1 gives 0x%x", Status);
    CHECK(IsAnswered(Two, 5000), "127.0.0.2 is not answered");
    CHECK(IsAnswered(Six, 5000), "::1 is not answered");
    Api->ListenerClose(A);
    CHECK(IsAnswered(One, 5000), "the second listener on 127.0.0.1 does not answer");
    Api->ListenerClose(B);
    CHECK(!IsAnswered(One, 150), "127.0.0.1 is answered without a listener");
    CHECK(IsAnswered(Two, 5000), "127.0.0.2 is not answered any more");

    //
    // A wildcard listener cannot share the socket of a specific one.
    //
    HQUIC W;
    QUIC_ADDR* Wilds[] = { &Wild4, &Wild6, &Wild };
    for (int i = 0; i < 3; i++) {
        Status = Listen(Wilds[i], "w", &W);
        CHECK(Status == QUIC_STATUS_ADDRESS_IN_USE, "wildcard %d after a specific address gives 0x%x", i, Status);
        if (W) Api->ListenerClose(W);
    }
    if (C) Api->ListenerClose(C);
    if (D) Api->ListenerClose(D);

    //
    // A specific one can share the socket of a wildcard listener, and wildcard
    // listeners can share. Connections that are being refused may keep the
    // sockets of the listeners above for a moment.
    //
    for (int i = 0; i < 200 && (Status = Listen(&Wild, "w", &W)) == QUIC_STATUS_ADDRESS_IN_USE; i++) {
        usleep(10000);
    }
    MUST(Status == 0);
    CHECK((Status = Listen(&One, "a", &A)) == 0, "a specific address after the wildcard gives 0x%x", Status);
    CHECK((Status = Listen(&Wild4, "b", &B)) == 0, "0.0.0.0 after the wildcard gives 0x%x", Status);
    CHECK((Status = Listen(&Wild6, "c", &C)) == 0, ":: after the wildcard gives 0x%x", Status);
    CHECK(IsAnswered(One, 5000) && IsAnswered(Two, 5000) && IsAnswered(Six, 5000), "the wildcard does not answer");
    if (A) Api->ListenerClose(A);
    if (B) Api->ListenerClose(B);
    if (C) Api->ListenerClose(C);
    Api->ListenerClose(W);

    CloseMsQuic();
    return Result;
}
