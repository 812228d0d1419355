// N13: setting the local address after the local interface does not change the interface.
#include "unit.h"

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    UNIT_CONN C = { 0 };
    HQUIC Connection;
    const uint32_t Interface = 7;
    QUIC_ADDR Local = { 0 };
    QuicAddrFromString("127.0.0.1", 0, &Local);
    OK(Api->ConnectionOpen(Reg, UnitConnCallback, &C, &Connection));
    OK(Api->SetParam(Connection, QUIC_PARAM_CONN_LOCAL_INTERFACE, sizeof(Interface), &Interface));
    OK(Api->SetParam(Connection, QUIC_PARAM_CONN_LOCAL_ADDRESS, sizeof(Local), &Local));
    CHECK(((QUIC_CONNECTION*)Connection)->Paths[0].Route.LocalAddress.Ipv6.sin6_scope_id == Interface);
    Api->ConnectionClose(Connection);
    UnitClose();
    return 0;
}
