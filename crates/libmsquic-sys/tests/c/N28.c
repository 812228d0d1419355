// N28: clients that share their binding use one socket per processor, whatever peers they have, and
// may use the port of a listener.
#include "tls.h"
#include <dirent.h>

#define CLIENTS 8

static SIDE Clients[CLIENTS + 8], Servers[CLIENTS + 8];
static volatile int ServerCount;
static int ClientCount;
static HQUIC ClientConfig;

static QUIC_STATUS QUIC_API OnPeer(HQUIC L, void* Context, QUIC_LISTENER_EVENT* Event)
{
    (void)L; (void)Context;
    if (Event->Type == QUIC_LISTENER_EVENT_NEW_CONNECTION) {
        SIDE* Side = &Servers[__sync_fetch_and_add(&ServerCount, 1)];
        Side->Connection = Event->NEW_CONNECTION.Connection;
        Api->SetCallbackHandler(Side->Connection, (void*)OnConnection, Side);
        return Api->ConnectionSetConfiguration(Side->Connection, ServerConfig);
    }
    return QUIC_STATUS_SUCCESS;
}

static QUIC_ADDR Listen(const char* Ip, HQUIC* Handle)
{
    QUIC_BUFFER Alpn = { 4, (uint8_t*)"test" };
    QUIC_ADDR Address = { 0 };
    QuicAddrFromString(Ip, 0, &Address);
    MUST(QUIC_SUCCEEDED(Api->ListenerOpen(Registration, OnPeer, NULL, Handle)));
    MUST(QUIC_SUCCEEDED(Api->ListenerStart(*Handle, &Alpn, 1, &Address)));
    uint32_t Length = sizeof(Address);
    MUST(QUIC_SUCCEEDED(Api->GetParam(*Handle, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Length, &Address)));
    return Address;
}

static SIDE* Dial(QUIC_ADDR Remote, const QUIC_ADDR* Local)
{
    SIDE* Side = &Clients[ClientCount++];
    uint8_t Share = TRUE;
    MUST(QUIC_SUCCEEDED(Api->ConnectionOpen(Registration, OnConnection, Side, &Side->Connection)));
    MUST(QUIC_SUCCEEDED(Api->SetParam(Side->Connection, QUIC_PARAM_CONN_SHARE_UDP_BINDING, 1, &Share)));
    MUST(QUIC_SUCCEEDED(Api->SetParam(Side->Connection, QUIC_PARAM_CONN_REMOTE_ADDRESS, sizeof(Remote), &Remote)));
    if (Local) {
        MUST(QUIC_SUCCEEDED(Api->SetParam(Side->Connection, QUIC_PARAM_CONN_LOCAL_ADDRESS, sizeof(*Local), Local)));
    }
    MUST(QUIC_SUCCEEDED(Api->ConnectionStart(
        Side->Connection, ClientConfig, QUIC_ADDRESS_FAMILY_UNSPEC, "localhost", QuicAddrGetPort(&Remote))));
    return Side;
}

static QUIC_ADDR LocalOf(SIDE* Side)
{
    QUIC_ADDR Address = { 0 };
    uint32_t Length = sizeof(Address);
    MUST(QUIC_SUCCEEDED(Api->GetParam(Side->Connection, QUIC_PARAM_CONN_LOCAL_ADDRESS, &Length, &Address)));
    return Address;
}

static int Descriptors(void)
{
    int Count = 0;
    DIR* Dir = opendir("/proc/self/fd");
    MUST(Dir != NULL);
    while (readdir(Dir)) {
        Count++;
    }
    closedir(Dir);
    return Count;
}

int main(void)
{
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    HQUIC A, B;
    StartLibrary();
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    ClientConfig = OpenConfig(1, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    QUIC_ADDR One = Listen("127.0.0.1", &A), Two = Listen("127.0.0.2", &B);

    //
    // Two peers, one socket per processor.
    //
    SIDE* First = Dial(One, NULL);
    CHECK(WaitFor(&First->Connected, 5000), "first client");
    int Before = Descriptors();
    for (int i = 1; i < CLIENTS; i++) {
        SIDE* Side = Dial(i % 2 ? Two : One, NULL);
        CHECK(WaitFor(&Side->Connected, 5000), "client %d", i);
        QUIC_ADDR Local = LocalOf(Side), FirstLocal = LocalOf(First);
        CHECK(QuicAddrCompare(&Local, &FirstLocal), "client %d has port %d, the first %d", i,
            QuicAddrGetPort(&Local), QuicAddrGetPort(&FirstLocal));
        CHECK(Local.Ipv4.sin_addr.s_addr == htonl(INADDR_LOOPBACK), "client %d has another address", i);
    }
    CHECK(Descriptors() == Before, "%d descriptors, %d with one client", Descriptors(), Before);

    //
    // Another client with the same local address and no port.
    //
    QUIC_ADDR Chosen = { 0 };
    QuicAddrFromString("127.0.0.3", 0, &Chosen);
    SIDE* FromThree = Dial(One, &Chosen);
    CHECK(WaitFor(&FromThree->Connected, 5000), "from 127.0.0.3");
    QUIC_ADDR Local = LocalOf(FromThree);
    CHECK(QuicAddrCompareIp(&Local, &Chosen), "not from 127.0.0.3");

    //
    // That a port is closed is reported at once, to the client that dialled it and to no other.
    //
    QUIC_ADDR Closed = One;
    int Fd = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t Length = sizeof(Closed);
    QuicAddrSetPort(&Closed, 0);
    MUST(bind(Fd, &Closed.Ip, sizeof(Closed.Ipv4)) == 0 && getsockname(Fd, &Closed.Ip, &Length) == 0);
    close(Fd);
    SIDE* Refused = Dial(Closed, NULL);
    CHECK(WaitFor(&Refused->Complete, 2000), "no socket has the port, and the client waits");
    usleep(50000);
    CHECK(!First->Down, "a client was closed because the port of another client's peer is closed");

    //
    // From the port of a listener, to each other.
    //
    SIDE* OneToTwo = Dial(Two, &One);
    SIDE* TwoToOne = Dial(One, &Two);
    CHECK(WaitFor(&OneToTwo->Connected, 5000), "from the first listener");
    CHECK(WaitFor(&TwoToOne->Connected, 5000), "from the second listener");
    Local = LocalOf(OneToTwo);
    CHECK(QuicAddrCompare(&Local, &One), "not from the port of the listener");
    SIDE* Later = Dial(One, NULL);
    CHECK(WaitFor(&Later->Connected, 5000), "the listener does not answer any more");

    //
    // A client that moves gets another socket, and the connection remains usable.
    //
    QUIC_ADDR Any = { 0 };
    QuicAddrFromString("0.0.0.0", 0, &Any);
    QUIC_STATUS Status = QUIC_STATUS_INVALID_STATE;
    for (int i = 0; i < 200 && Status == QUIC_STATUS_INVALID_STATE; i++) {
        usleep(10000); // until the handshake is confirmed
        Status = Api->SetParam(Later->Connection, QUIC_PARAM_CONN_LOCAL_ADDRESS, sizeof(Any), &Any);
    }
    CHECK(QUIC_SUCCEEDED(Status), "move: 0x%x", Status);
    QUIC_ADDR Moved = LocalOf(Later);
    CHECK(QuicAddrGetPort(&Moved) != QuicAddrGetPort(&Local), "the same port after a move");
    CHECK(Moved.Ipv4.sin_addr.s_addr == htonl(INADDR_LOOPBACK), "another address after a move");
    Api->ConnectionShutdown(Later->Connection, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 7);
    CHECK(WaitFor(&Servers[ServerCount - 1].ByPeer, 5000), "the peer receives nothing after a move");

    for (int i = 0; i < ClientCount; i++) {
        Api->ConnectionClose(Clients[i].Connection);
    }
    for (int i = 0; i < ServerCount; i++) {
        Api->ConnectionClose(Servers[i].Connection);
    }
    Api->ListenerClose(A);
    Api->ListenerClose(B);
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
