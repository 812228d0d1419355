//
// The zone of a link-local IPv6 address is compared, parsed, printed and kept.
//
#include "listen.h"
#include <ifaddrs.h>

static volatile int Done;
static QUIC_ADDR ClientLocal, ClientRemote;

static QUIC_STATUS QUIC_API
OnListener(HQUIC Listener, void* Context, QUIC_LISTENER_EVENT* Event)
{
    (void)Listener; (void)Context;
    return Event->Type == QUIC_LISTENER_EVENT_NEW_CONNECTION ? QUIC_STATUS_INVALID_STATE : 0;
}

static QUIC_STATUS QUIC_API
OnConnection(HQUIC Connection, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    (void)Context;
    if (Event->Type == QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_TRANSPORT) {
        CHECK(Event->SHUTDOWN_INITIATED_BY_TRANSPORT.Status == QUIC_STATUS_CONNECTION_REFUSED,
            "the dial fails with 0x%x", Event->SHUTDOWN_INITIATED_BY_TRANSPORT.Status);
        uint32_t Length = sizeof(QUIC_ADDR);
        Api->GetParam(Connection, QUIC_PARAM_CONN_LOCAL_ADDRESS, &Length, &ClientLocal);
        Length = sizeof(QUIC_ADDR);
        Api->GetParam(Connection, QUIC_PARAM_CONN_REMOTE_ADDRESS, &Length, &ClientRemote);
    } else if (Event->Type == QUIC_CONNECTION_EVENT_SHUTDOWN_COMPLETE) {
        Done = 1;
    }
    return 0;
}

static QUIC_ADDR
Scoped(const char* Ip, uint32_t Scope)
{
    QUIC_ADDR Addr = MakeAddr(AF_INET6, Ip, 443);
    Addr.Ipv6.sin6_scope_id = Scope;
    return Addr;
}

//
// Dials a link-local address of this host, if there is one.
//
static void
Dial(QUIC_ADDR Remote)
{
    HQUIC Listener, Configuration, Connection;
    QUIC_BUFFER Alpn = { 1, (uint8_t*)"a" };
    QUIC_CREDENTIAL_CONFIG Cred = {0};
    QUIC_ADDR Any = MakeAddr(AF_INET6, "::", 0);
    char Host[64];

    OpenMsQuic();
    MUST(ListenWith(OnListener, &Any, "a", &Listener) == 0);
    QUIC_ADDR Bound = ListenerAddr(Listener);
    inet_ntop(AF_INET6, &Remote.Ipv6.sin6_addr, Host, sizeof(Host));
    sprintf(Host + strlen(Host), "%%%u", Remote.Ipv6.sin6_scope_id);

    Cred.Flags = QUIC_CREDENTIAL_FLAG_CLIENT | QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION;
    MUST(Api->ConfigurationOpen(Registration, &Alpn, 1, NULL, 0, NULL, &Configuration) == 0);
    MUST(Api->ConfigurationLoadCredential(Configuration, &Cred) == 0);
    MUST(Api->ConnectionOpen(Registration, OnConnection, NULL, &Connection) == 0);
    MUST(Api->ConnectionStart(
        Connection, Configuration, AF_UNSPEC, Host, QuicAddrGetPort(&Bound)) == QUIC_STATUS_PENDING);
    for (int i = 0; i < 500 && !Done; i++) {
        usleep(10000);
    }
    CHECK(Done, "the dial does not end");
    CHECK(ClientRemote.Ipv6.sin6_scope_id == Remote.Ipv6.sin6_scope_id,
        "the remote address of the dial has zone %u", ClientRemote.Ipv6.sin6_scope_id);
    CHECK(IN6_IS_ADDR_LINKLOCAL(&ClientLocal.Ipv6.sin6_addr) &&
        ClientLocal.Ipv6.sin6_scope_id == Remote.Ipv6.sin6_scope_id,
        "the local address of the dial has zone %u", ClientLocal.Ipv6.sin6_scope_id);
    Api->ConnectionClose(Connection);
    Api->ConfigurationClose(Configuration);
    Api->ListenerClose(Listener);
    CloseMsQuic();
}

int main(void)
{
    alarm(20);

    QUIC_ADDR L0 = Scoped("fe80::1", 0), L4 = Scoped("fe80::1", 4), L5 = Scoped("fe80::1", 5);
    QUIC_ADDR G4 = Scoped("2001:db8::1", 4), G5 = Scoped("2001:db8::1", 5);
    CHECK(!QuicAddrCompare(&L4, &L5) && !QuicAddrCompareIp(&L4, &L5), "fe80::1%%4 equals fe80::1%%5");
    CHECK(QuicAddrCompare(&L4, &L4) && QuicAddrCompareIp(&L4, &L4), "fe80::1%%4 differs from itself");
    CHECK(QuicAddrCompare(&L0, &L5) && QuicAddrCompareIp(&L5, &L0), "an address without a zone does not match one with a zone");
    CHECK(QuicAddrCompare(&G4, &G5) && QuicAddrCompareIp(&G4, &G5), "the zone of a global address is compared");
    CHECK(QuicAddrHash(&L0) == QuicAddrHash(&L5), "equal addresses have different hashes");

    QUIC_ADDR Addr;
    QUIC_ADDR_STR Str;
    static const struct { const char* Text; const char* Printed; uint32_t Scope; } Texts[] = {
        { "[fe80::1%4]:443", "[fe80::1%4]:443", 4 },
        { "[fe80::1]:443", "[fe80::1]:443", 0 },
        { "fe80::1%4294967295", "fe80::1%4294967295", 4294967295u },
        { "[fe80:1111:2222:3333:4444:5555:6666:7777%4294967295]:65535",
          "[fe80:1111:2222:3333:4444:5555:6666:7777%4294967295]:65535", 4294967295u },
        { "fe80::1%lo", NULL, 1 },
        { "2001:db8::1", "2001:db8::1", 0 },
    };
    for (size_t i = 0; i < sizeof(Texts) / sizeof(*Texts); i++) {
        memset(&Addr, 0, sizeof(Addr));
        if (!QuicAddrFromString(Texts[i].Text, 0, &Addr)) {
            CHECK(0, "%s is not parsed", Texts[i].Text);
            continue;
        }
        CHECK(Addr.Ipv6.sin6_scope_id == Texts[i].Scope, "%s has zone %u", Texts[i].Text, Addr.Ipv6.sin6_scope_id);
        CHECK(QuicAddrToString(&Addr, &Str), "%s is not printed", Texts[i].Text);
        CHECK(!Texts[i].Printed || strcmp(Str.Address, Texts[i].Printed) == 0, "%s is printed as %s", Texts[i].Text, Str.Address);
    }
    static const char* Bad[] = { "fe80::1%", "fe80::1%4x", "fe80::1%4294967296", "fe80::1%99999999999999999999999", "fe80::1%no-such-if", "%4", "[fe80::1%4]" };
    for (size_t i = 0; i < sizeof(Bad) / sizeof(*Bad); i++) {
        CHECK(!QuicAddrFromString(Bad[i], 0, &Addr), "%s is parsed", Bad[i]);
    }

    struct ifaddrs* Addrs = NULL;
    getifaddrs(&Addrs);
    for (struct ifaddrs* It = Addrs; It != NULL; It = It->ifa_next) {
        if (It->ifa_addr != NULL && It->ifa_addr->sa_family == AF_INET6 &&
            IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6*)It->ifa_addr)->sin6_addr)) {
            memset(&Addr, 0, sizeof(Addr));
            Addr.Ipv6 = *(struct sockaddr_in6*)It->ifa_addr;
            Dial(Addr);
            break;
        }
    }
    freeifaddrs(Addrs);
    return Result;
}
