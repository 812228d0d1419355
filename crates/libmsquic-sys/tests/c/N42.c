// N42: a connection uses HyStart++ when its settings say so.
#include "unit.h"

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.HyStartEnabled = TRUE; S.IsSet.HyStartEnabled = TRUE;
    HQUIC Config = UnitClientConfig(&S), Connection;
    QUIC_SETTINGS Given = { 0 };
    uint32_t Length = sizeof(Given);
    OK(Api->GetParam(Config, QUIC_PARAM_CONFIGURATION_SETTINGS, &Length, &Given));
    if (!Given.HyStartEnabled) { FAIL("the configuration discards the setting"); }
    OK(Api->ConnectionOpen(Reg, UnitConnCallback, NULL, &Connection));
    OK(Api->SetParam(Connection, QUIC_PARAM_CONN_SETTINGS, sizeof(S), &S));
    if (!((QUIC_CONNECTION*)Connection)->Settings.HyStartEnabled) { FAIL("the connection discards the setting"); }
    _exit(0);
}
