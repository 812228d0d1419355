//
// N31: RegistrationClose waits until the application's poll has released the
// worker, and the other registrations remain open.
//
#include "unit.h"

static QUIC_EXECUTION* Execution;
static QUIC_EVENTQ Queue;
static volatile int Closed;

static void* CloseRegistration(void* Context)
{
    Api->RegistrationClose((HQUIC)Context);
    Closed = 1;
    return NULL;
}

static void Turn(void)
{
    Api->ExecutionPoll(Execution);
    CXPLAT_CQE Events[8];
    uint32_t Count = CxPlatEventQDequeue(&Queue, Events, 8, 1);
    for (uint32_t i = 0; i < Count; i++) {
        CXPLAT_SQE* Sqe = CxPlatCqeGetSqe(&Events[i]);
        Sqe->Completion(&Events[i]);
    }
    CxPlatEventQReturn(&Queue, Count);
}

static QUIC_STATUS QUIC_API OnConnection(HQUIC Connection, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Connection);
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Event);
    return QUIC_STATUS_SUCCESS;
}

int main(void)
{
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(MsQuicOpenVersion(2, (const void**)&Api)));
    CHECK(CxPlatEventQInitialize(&Queue));
    QUIC_EXECUTION_CONFIG Config = { 0, &Queue };
    CHECK(QUIC_SUCCEEDED(Api->ExecutionCreate(QUIC_GLOBAL_EXECUTION_CONFIG_FLAG_NONE, 0, 1, &Config, &Execution)));
    QUIC_REGISTRATION_CONFIG RegistrationConfig = { "N31", QUIC_EXECUTION_PROFILE_LOW_LATENCY };
    HQUIC Kept;
    CHECK(QUIC_SUCCEEDED(Api->RegistrationOpen(&RegistrationConfig, &Kept)));
    for (int i = 0; i < 20; i++) {
        HQUIC Registration, Connection;
        CHECK(QUIC_SUCCEEDED(Api->RegistrationOpen(&RegistrationConfig, &Registration)));
        CHECK(QUIC_SUCCEEDED(Api->ConnectionOpen(Registration, OnConnection, NULL, &Connection)));
        for (int j = 0; j < 5; j++) { Turn(); }
        Api->ConnectionClose(Connection);
        Closed = 0;
        pthread_t Thread;
        CHECK(pthread_create(&Thread, NULL, CloseRegistration, Registration) == 0);
        if (i == 0 && UnitWait(&Closed, 200)) { FAIL("the worker was freed while it is polled"); }
        for (int j = 0; j < 5000 && !Closed; j++) { Turn(); }
        if (!Closed) { FAIL("RegistrationClose hangs"); }
        pthread_join(Thread, NULL);
        for (int j = 0; j < 3; j++) { Turn(); }
    }
    _exit(0); // With a registration that is open.
}
