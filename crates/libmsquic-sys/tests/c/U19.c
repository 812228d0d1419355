//
// U19: a client that closes while its write key is the 0-RTT key must not send
// CONNECTION_CLOSE for ever.
//
#include "tls.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

int main(void)
{
    StartLibrary();
    ClientAuth = 0;
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("server", Key, NULL, NULL, 0);
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_RESUME_AND_ZERORTT);
    HQUIC ClientConfig = OpenConfig(1, NULL, NULL, NULL, QUIC_SERVER_RESUME_AND_ZERORTT);
    StartListener();

    ServerSide.SendTicket = 1;
    Connect(ClientConfig, 0);
    MUST(WaitFor((volatile int*)&ClientSide.TicketLength, 3000));
    CloseBoth();

    //
    // A socket that never answers, so that the client keeps the 0-RTT key.
    //
    int Socket = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in Address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t AddressLength = sizeof(Address);
    MUST(bind(Socket, (struct sockaddr*)&Address, sizeof(Address)) == 0);
    MUST(getsockname(Socket, (struct sockaddr*)&Address, &AddressLength) == 0);
    Port = ntohs(Address.sin_port);

    ResetSides();
    Connect(ClientConfig, 1);
    int Before = 0, After = 0;
    char Packet[2048];
    usleep(200 * 1000);
    while (recv(Socket, Packet, sizeof(Packet), MSG_DONTWAIT) > 0) {
        Before++;
    }
    CHECK(Before > 0, "nothing was sent");
    Api->ConnectionShutdown(ClientSide.Connection, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 0);
    for (int i = 0; i < 300; i++) {
        while (recv(Socket, Packet, sizeof(Packet), MSG_DONTWAIT) > 0) {
            After++;
        }
        usleep(1000);
    }
    CHECK(After >= 1, "no close was sent");
    CHECK(After <= 10, "%d datagrams after the close", After);
    CloseBoth();
    close(Socket);
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
