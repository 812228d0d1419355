// U1: the client's ALPN list is still needed when the configuration is set after NEW_CONNECTION; by
// then CRYPTO frames may have made msquic reallocate the receive buffer that holds the ClientHello.
#include "unit.h"
#include <malloc.h>

#ifndef __SANITIZE_ADDRESS__
// Freed memory is overwritten, so that a read of it is detected.
void free(void* Mem)
{
    extern void __libc_free(void*);
    if (Mem != NULL) { memset(Mem, 0xEE, malloc_usable_size(Mem)); }
    __libc_free(Mem);
}
#endif

static const QUIC_BUFFER TwoAlpns[2] = { { 1, (uint8_t*)"a" }, { 4, (uint8_t*)"test" } };
static HQUIC ServerConfig;
static UNIT_CONN Server;
static volatile int Accepted;

static QUIC_STATUS QUIC_API ListenerCallback(HQUIC Listener, void* Context, QUIC_LISTENER_EVENT* Event)
{
    (void)Listener; (void)Context;
    if (Event->Type != QUIC_LISTENER_EVENT_NEW_CONNECTION) { return QUIC_STATUS_SUCCESS; }
    Server.Handle = Event->NEW_CONNECTION.Connection;
    Api->SetCallbackHandler(Server.Handle, (void*)UnitConnCallback, &Server);
    //
    // What QuicCryptoProcessFrame does for a CRYPTO frame far behind the ClientHello.
    //
    QUIC_CRYPTO* Crypto = &((QUIC_CONNECTION*)Server.Handle)->Crypto;
    uint64_t Limit = UINT64_MAX;
    BOOLEAN Ready;
    OK(QuicRecvBufferWrite(&Crypto->RecvBuffer, 16000, 1, (const uint8_t*)"x", &Limit, &Ready));
    OK(Api->ConnectionSetConfiguration(Server.Handle, ServerConfig));
    Accepted = 1;
    return QUIC_STATUS_SUCCESS;
}

int main(void)
{
    // A list whose last entry does not end within the list.
    const uint8_t Bad[] = { 1, 'a', 200, 'b', 'c' };
    CHECK(CxPlatTlsAlpnFindInList(2, Bad, 1, (const uint8_t*)"a") == Bad);
#ifdef NDEBUG
    CHECK(CxPlatTlsAlpnFindInList(sizeof(Bad), Bad, 1, (const uint8_t*)"z") == NULL);
#endif

    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS Settings = { 0 };
    Settings.HandshakeIdleTimeoutMs = 5000;
    Settings.IsSet.HandshakeIdleTimeoutMs = TRUE;
    HQUIC One = UnitServerConfig(&Settings);
    //
    // The credential of One is used; the list of protocols must have two entries, the first of
    // which the client does not offer.
    //
    OK(Api->ConfigurationOpen(Reg, TwoAlpns, 2, &Settings, sizeof(Settings), NULL, &ServerConfig));
    QUIC_CONFIGURATION* Two = (QUIC_CONFIGURATION*)ServerConfig;
    Two->SecurityConfig = ((QUIC_CONFIGURATION*)One)->SecurityConfig;
    ((QUIC_CONFIGURATION*)One)->SecurityConfig = NULL;

    HQUIC Listener;
    OK(Api->ListenerOpen(Reg, ListenerCallback, NULL, &Listener));
    QUIC_ADDR Addr = { 0 };
    QuicAddrSetFamily(&Addr, QUIC_ADDRESS_FAMILY_INET);
    OK(Api->ListenerStart(Listener, TwoAlpns, 2, &Addr));
    uint32_t Size = sizeof(Addr);
    OK(Api->GetParam(Listener, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Size, &Addr));

    UNIT_CONN Client = { 0 };
    HQUIC ClientConfig = UnitClientConfig(&Settings);
    UnitConnect(&Client, ClientConfig, QuicAddrGetPort(&Addr));
    CHECK(UnitWait(&Accepted, 3000));
    for (int i = 0; i < 3000 && !Client.Connected && !Client.ByTransport && !Client.ByPeer; i++) { usleep(1000); }
    if (!Client.Connected) {
        FAIL("not connected: the list of the client was read from freed memory (peer %llx, transport %llx)",
            (unsigned long long)Client.PeerError, (unsigned long long)Client.TransportError);
    }
    CHECK(UnitWait(&Server.Connected, 3000));
    CHECK(((QUIC_CONNECTION*)Server.Handle)->Crypto.TlsState.ClientAlpnList == NULL);

    Api->ConnectionClose(Client.Handle);
    Api->ConnectionClose(Server.Handle);
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ClientConfig);
    Api->ConfigurationClose(ServerConfig);
    Api->ConfigurationClose(One);
    UnitClose();
    return 0;
}
