// APPLICATION_ERROR is sent as 0x0c; 0x0c and the value of earlier versions, 0x0b, are both reported as
// a cancellation by the user.
#include "unit.h"

static int Code; // Transport error to close with, or 0 for a close by the application.

static QUIC_STATUS QUIC_API Listener(HQUIC Handle, void* Context, QUIC_LISTENER_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Handle);
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_LISTENER_EVENT_NEW_CONNECTION) {
        UnitAccepted.Handle = Event->NEW_CONNECTION.Connection;
        Api->SetCallbackHandler(UnitAccepted.Handle, (void*)UnitConnCallback, &UnitAccepted);
        if (Code != 0) {
            QuicConnTransportError((QUIC_CONNECTION*)UnitAccepted.Handle, (uint64_t)Code);
        } else {
            Api->ConnectionShutdown(UnitAccepted.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 77);
        }
    }
    return QUIC_STATUS_SUCCESS;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    HQUIC Config = UnitClientConfig(&S), L;
    OK(Api->ListenerOpen(Reg, Listener, NULL, &L));
    QUIC_ADDR Addr = { 0 };
    QuicAddrSetFamily(&Addr, QUIC_ADDRESS_FAMILY_INET);
    OK(Api->ListenerStart(L, &Alpn, 1, &Addr));
    uint32_t Size = sizeof(Addr);
    OK(Api->GetParam(L, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Size, &Addr));

    for (int i = 0; i < 3; i++) {
        static const int Codes[] = { 0, 0x0c, 0x0b }, Expected[] = { 0x0c, 0x0c, 0x0b };
        UNIT_CONN C = { 0 };
        memset(&UnitAccepted, 0, sizeof(UnitAccepted));
        Code = Codes[i];
        UnitConnect(&C, Config, QuicAddrGetPort(&Addr));
        CHECK(UnitWait(&C.ByTransport, 3000));
        if (C.TransportStatus != QUIC_STATUS_USER_CANCELED || C.TransportError != (uint64_t)Expected[i]) {
            FAIL("close %d (0x%x): reported status 0x%x, error 0x%llx", i, Code,
                (unsigned)C.TransportStatus, (unsigned long long)C.TransportError);
        }
        Api->ConnectionClose(C.Handle);
        Api->ConnectionClose(UnitAccepted.Handle);
    }

    Api->ListenerClose(L);
    Api->ConfigurationClose(Config);
    UnitClose();
    return 0;
}
