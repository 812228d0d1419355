//
// N30: an application that drives the library may set a resumption ticket; the
// events about the limits in it are delivered before the call returns.
//
#include "unit.h"

static int Events;

static QUIC_STATUS QUIC_API OnConnection(HQUIC Connection, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    Events += Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_STATE_CHANGED;
    return QUIC_STATUS_SUCCESS;
}

int main(void)
{
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(MsQuicOpenVersion(2, (const void**)&Api)));
    QUIC_EVENTQ Queue;
    CHECK(CxPlatEventQInitialize(&Queue));
    QUIC_EXECUTION_CONFIG Config = { 0, &Queue };
    QUIC_EXECUTION* Execution = NULL;
    CHECK(QUIC_SUCCEEDED(Api->ExecutionCreate(QUIC_GLOBAL_EXECUTION_CONFIG_FLAG_NONE, 0, 1, &Config, &Execution)));
    QUIC_REGISTRATION_CONFIG RegistrationConfig = { "N30", QUIC_EXECUTION_PROFILE_LOW_LATENCY };
    HQUIC Registration, Connection;
    CHECK(QUIC_SUCCEEDED(Api->RegistrationOpen(&RegistrationConfig, &Registration)));
    CHECK(QUIC_SUCCEEDED(Api->ConnectionOpen(Registration, OnConnection, NULL, &Connection)));
    static const uint8_t Ticket[] = { 1, 0, 0, 0, 1, 0, 1, 'x' }; // QUIC version 1, no limits, a session
    CHECK(QUIC_SUCCEEDED(Api->SetParam(Connection, QUIC_PARAM_CONN_RESUMPTION_TICKET, sizeof(Ticket), Ticket)));
    CHECK(Events == 1);
    Api->ConnectionClose(Connection);
    _exit(0); // A registration cannot be closed in this mode.
}
