// N6: RegistrationClose keeps the workers until the last connection is freed: a receive that still
// holds the connection may queue it once more. (A configuration keeps the registration open too, so
// the fault affects connections that were closed before they got one.) A registration that shuts
// down refuses connections.
#include "unit.h"

static volatile int Closed;
static void* CloseRegistration(void* Context)
{
    UNREFERENCED_PARAMETER(Context);
    Api->RegistrationClose(Reg);
    Closed = 1;
    return NULL;
}

static QUIC_STATUS QUIC_API Unconfigured(HQUIC Handle, void* Context, QUIC_LISTENER_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Handle);
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_LISTENER_EVENT_NEW_CONNECTION) {
        Api->SetCallbackHandler(Event->NEW_CONNECTION.Connection, (void*)UnitConnCallback, &UnitAccepted);
        UnitAccepted.Handle = Event->NEW_CONNECTION.Connection;
    }
    return QUIC_STATUS_SUCCESS;
}

static HQUIC Listen(uint16_t* Port)
{
    HQUIC Listener;
    OK(Api->ListenerOpen(Reg, Unconfigured, NULL, &Listener));
    QUIC_ADDR Addr = { 0 };
    QuicAddrSetFamily(&Addr, QUIC_ADDRESS_FAMILY_INET);
    OK(Api->ListenerStart(Listener, &Alpn, 1, &Addr));
    uint32_t Size = sizeof(Addr);
    OK(Api->GetParam(Listener, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Size, &Addr));
    *Port = QuicAddrGetPort(&Addr);
    return Listener;
}

static void Silence(HQUIC Handle)
{
    Api->ConnectionShutdown(Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_SILENT, 0);
    Api->ConnectionClose(Handle);
}

int main(void)
{
    const QUIC_EXECUTION_PROFILE Profiles[] = {
        QUIC_EXECUTION_PROFILE_LOW_LATENCY, QUIC_EXECUTION_PROFILE_TYPE_MAX_THROUGHPUT
    };
    for (int i = 0; i < 2; i++) {
        UnitOpen(Profiles[i]);
        QUIC_SETTINGS S = { 0 };
        HQUIC ClientConfig = UnitClientConfig(&S);
        uint16_t Port;
        HQUIC Listener = Listen(&Port);
        UNIT_CONN C = { 0 };
        memset(&UnitAccepted, 0, sizeof(UnitAccepted));
        UnitConnect(&C, ClientConfig, Port);
        for (int j = 0; j < 2000 && UnitAccepted.Handle == NULL; j++) { usleep(1000); }
        CHECK(UnitAccepted.Handle != NULL);
        usleep(50000); // Until it was moved to its worker.

        // What a thread of the datapath does between the look-up and the queueing of packets.
        QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)UnitAccepted.Handle;
        QuicConnAddRef(Connection, QUIC_CONN_REF_LOOKUP_RESULT);

        Silence(C.Handle);
        Silence(UnitAccepted.Handle);
        Api->ListenerClose(Listener);
        Api->ConfigurationClose(ClientConfig);

        Closed = 0;
        pthread_t Thread;
        CHECK(pthread_create(&Thread, NULL, CloseRegistration, NULL) == 0);
        if (UnitWait(&Closed, 200)) { FAIL("the registration was freed under a connection, profile %d", i); }
        QuicWorkerQueueConnection(Connection->Worker, Connection);
        QuicConnRelease(Connection, QUIC_CONN_REF_LOOKUP_RESULT);
        if (!UnitWait(&Closed, 2000)) { FAIL("RegistrationClose hangs, profile %d", i); }
        pthread_join(Thread, NULL);
        MsQuicClose(Api);
        MsQuicLibraryUnload();
    }

    // A connection that arrives at a registration that shuts down is refused.
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    HQUIC ClientReg = Reg;
    QUIC_SETTINGS S = { 0 };
    HQUIC ClientConfig = UnitClientConfig(&S);
    QUIC_REGISTRATION_CONFIG RegConfig = { "unit2", QUIC_EXECUTION_PROFILE_LOW_LATENCY };
    HQUIC ServerReg;
    OK(Api->RegistrationOpen(&RegConfig, &ServerReg));
    Reg = ServerReg;
    uint16_t Port;
    HQUIC Listener = Listen(&Port);
    Reg = ClientReg;
    // The state inside RegistrationShutdown, before the listeners are stopped.
    ((QUIC_REGISTRATION*)ServerReg)->ShuttingDown = TRUE;
    UNIT_CONN C = { 0 };
    UnitConnect(&C, ClientConfig, Port);
    if (!UnitWait(&C.ByTransport, 2000) || C.TransportStatus != QUIC_STATUS_CONNECTION_REFUSED) {
        FAIL("a connection to a registration that shuts down was not refused, status 0x%x",
            (unsigned)C.TransportStatus);
    }
    Api->ConnectionClose(C.Handle);
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ClientConfig);
    Api->RegistrationClose(ServerReg);
    UnitClose();
    return 0;
}
