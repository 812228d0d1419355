// A listener that asks for any free port never gets the socket of another listener, even if the
// system hands out a port that is in use.
#include "unit.h"
#include <sys/syscall.h>

static volatile uint16_t Reuse; // the port that the system assigns
int bind(int Fd, const struct sockaddr* Addr, socklen_t Length)
{
    struct sockaddr_storage Copy;
    memcpy(&Copy, Addr, Length);
    int One = 1;
    (void)setsockopt(Fd, SOL_SOCKET, SO_REUSEPORT, &One, sizeof(One));
    uint16_t* Port = Addr->sa_family == AF_INET6 ?
        &((struct sockaddr_in6*)&Copy)->sin6_port : &((struct sockaddr_in*)&Copy)->sin_port;
    if (*Port == 0 && Reuse != 0) {
        *Port = htons(Reuse);
        Reuse = 0;
    }
    return (int)syscall(SYS_bind, Fd, &Copy, Length);
}

static HQUIC Listen(uint16_t* Port)
{
    HQUIC Listener;
    OK(Api->ListenerOpen(Reg, UnitListenerCallback, NULL, &Listener));
    QUIC_ADDR Addr = { 0 };
    QuicAddrSetFamily(&Addr, QUIC_ADDRESS_FAMILY_INET);
    QuicAddrSetPort(&Addr, *Port);
    QUIC_BUFFER Other = { 1, (uint8_t*)"a" };
    static uint8_t Name = 'a';
    Other.Buffer = &Name;
    QUIC_STATUS Status = Api->ListenerStart(Listener, &Other, 1, &Addr);
    Name++; // listeners on one socket need different protocols
    if (QUIC_FAILED(Status)) {
        Api->ListenerClose(Listener);
        return NULL;
    }
    uint32_t Size = sizeof(Addr);
    OK(Api->GetParam(Listener, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Size, &Addr));
    *Port = QuicAddrGetPort(&Addr);
    return Listener;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    uint16_t First, Second = 0, Third = 0;
    HQUIC A = NULL, B = NULL;
    for (int i = 0; i < 50 && B == NULL; i++) { // two neighbouring ports
        if (A != NULL) { Api->ListenerClose(A); }
        First = 0;
        A = Listen(&First);
        CHECK(A != NULL);
        Second = (uint16_t)(First + 1);
        B = Second > 1024 ? Listen(&Second) : NULL;
    }
    CHECK(B != NULL && Second == First + 1);

    Reuse = First;
    HQUIC C = Listen(&Third);
    CHECK(C != NULL && Reuse == 0);
    if (Third == First || Third == Second) { FAIL("the listener shares port %u with another one", Third); }

    Api->ListenerClose(A);
    Api->ListenerClose(B);
    Api->ListenerClose(C);
    UnitClose();
    return 0;
}
