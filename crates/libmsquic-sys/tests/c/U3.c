// U3: the path table must never lose its active path, and a path challenge without an answer must
// end by a timer.
#include "rebind.h"

static int Count, ActiveId, InUse, Active;
static void RemoveActive(QUIC_CONNECTION* Connection)
{
    QuicPathRemove(Connection, 0);
    Count = Connection->PathsCount;
    InUse = Connection->Paths[0].InUse;
    Active = Connection->Paths[0].IsActive;
}

// Makes two more paths, the last one with a validated address, and removes the active one.
static void Promote(QUIC_CONNECTION* Connection)
{
    for (int i = 1; i < 3; i++) {
        Connection->Paths[i] = Connection->Paths[0];
        Connection->Paths[i].ID = (uint8_t)(100 + i);
        Connection->Paths[i].IsActive = FALSE;
        Connection->Paths[i].IsPeerValidated = i == 2;
    }
    QUIC_CID_LIST_ENTRY* Cid = Connection->Paths[0].DestCid;
    Connection->PathsCount = 3;
    QuicPathRemove(Connection, 0);
    Count = Connection->PathsCount;
    ActiveId = Connection->Paths[0].ID;
    InUse = Connection->Paths[0].InUse;
    Active = Connection->Paths[0].IsActive;
    Connection->PathsCount = 1;
#if DEBUG
    Cid->AssignedPath = &Connection->Paths[0];
#endif
    Connection->Paths[0].DestCid = Cid;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.InitialRttMs = 10; S.IsSet.InitialRttMs = TRUE;
    S.DatagramReceiveEnabled = TRUE; S.IsSet.DatagramReceiveEnabled = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    HQUIC Listener = HookListen(ServerConfig, &Port);
    RebindStart(Port);

    UNIT_CONN C = { 0 };
    UnitConnect(&C, ClientConfig, RebindPort);
    CHECK(UnitWait(&C.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    CHECK(HookSend(&C, 2000));

    // Removing the active path promotes the validated one of the rest.
    Hook = Promote;
    CHECK(HookSend(&C, 2000));
    CHECK(Count == 2 && ActiveId == 102 && InUse && Active);

    // The client's address changes and no path challenge arrives.
    Hook = NULL;
    RebindDropToClient = 1;
    RebindUse = 1;
    for (int i = 0; i < 60; i++) {
        (void)Api->DatagramSend(C.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL);
        usleep(10000);
    }
    RebindDropToClient = 0;
    CHECK(HookSend(&C, 3000));
    QUIC_CONNECTION* Server = (QUIC_CONNECTION*)UnitAccepted.Handle;
    for (int i = 0; i < 2000 && !(Server->PathsCount == 1 && Server->Paths[0].IsPeerValidated); i++) {
        // The server may send three times what it receives.
        if (i % 20 == 0) { (void)Api->DatagramSend(C.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL); }
        usleep(1000);
    }
    CHECK(!UnitAccepted.ByTransport && !C.ByTransport);
    if (!(Server->PathsCount == 1 && Server->Paths[0].IsActive && Server->Paths[0].IsPeerValidated)) {
        FAIL("%u paths, the first is active: %d, validated: %d", Server->PathsCount,
            Server->Paths[0].IsActive, Server->Paths[0].IsPeerValidated);
    }
    CHECK(HookSend(&C, 2000));

    // Removing the last path closes the connection and keeps the slot.
    Hook = RemoveActive;
    CHECK(HookSend(&C, 2000));
    CHECK(Count == 1 && InUse && Active);
    CHECK(UnitWait(&UnitAccepted.ByTransport, 2000));
    CHECK(UnitAccepted.TransportStatus == QUIC_STATUS_UNREACHABLE);
    _exit(0);
    UNREFERENCED_PARAMETER(Listener);
}
