// U9: a flush takes exactly as many packets from a longer receive queue as its limit says, and the
// counts of the queue stay equal to those of the list.
#include "unit.h"

#define DATAGRAMS 350
static struct { int Length; uint8_t Data[1600]; } Held[DATAGRAMS * 2];
static volatile int Hold, HeldCount, Blocked, Checked, SendEnabled;
static volatile int Released;
static const char* volatile Wrong;
static int Events;

static int Filter(int FromClient, const uint8_t* Data, int Length)
{
    if (!FromClient || !Hold) { return 1; }
    if (HeldCount < DATAGRAMS * 2 && Length <= 1600) {
        memcpy(Held[HeldCount].Data, Data, (size_t)Length);
        Held[HeldCount].Length = Length;
        HeldCount++;
    }
    return 0;
}

static QUIC_STATUS QUIC_API Server(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)Handle;
    if (Event->Type != QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED) {
        return UnitConnCallback(Handle, Context, Event);
    }
    if (Events++ == 0) {
        Blocked = 1;
        for (int i = 0; i < 3000 && Connection->ReceiveQueueCount < (uint32_t)Released; i++) { usleep(1000); }
    }
    uint32_t Count = 0, Bytes = 0;
    CxPlatDispatchLockAcquire(&Connection->ReceiveQueueLock);
    for (QUIC_RX_PACKET* P = Connection->ReceiveQueue; P != NULL; P = (QUIC_RX_PACKET*)P->Next) {
        Count++;
        Bytes += P->BufferLength;
    }
    if (Count != Connection->ReceiveQueueCount) { Wrong = "the packet count differs from the list"; }
    else if (Bytes != Connection->ReceiveQueueByteCount) { Wrong = "the byte count differs from the list"; }
    else if (Events == 2 && Count + 100 != (uint32_t)Released) { Wrong = "the first flush did not take 100"; }
    CxPlatDispatchLockRelease(&Connection->ReceiveQueueLock);
    if (Events > 2 && Count == 0) { Checked = 1; }
    return QUIC_STATUS_SUCCESS;
}

static QUIC_STATUS QUIC_API Client(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_STATE_CHANGED) {
        SendEnabled = Event->DATAGRAM_STATE_CHANGED.SendEnabled;
    }
    return UnitConnCallback(Handle, Context, Event);
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_TYPE_MAX_THROUGHPUT);
    QUIC_SETTINGS S = { 0 };
    S.DatagramReceiveEnabled = S.IsSet.DatagramReceiveEnabled = TRUE;
    S.IsSet.PacingEnabled = TRUE;
    S.InitialWindowPackets = 2000;
    S.IsSet.InitialWindowPackets = TRUE;
    HQUIC ClientConfig = UnitClientConfig(&S), ServerConfig = UnitServerConfig(&S);
    uint16_t Port;
    HQUIC Listener = UnitListen(ServerConfig, &Port);
    UNIT_RELAY R;
    UnitRelayStart(&R, Port, Filter);
    UNIT_CONN C = { 0 };
    OK(Api->ConnectionOpen(Reg, Client, &C, &C.Handle));
    OK(Api->ConnectionStart(C.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", R.Port));
    CHECK(UnitWait(&C.Connected, 2000) && UnitWait(&UnitAccepted.Connected, 2000));
    CHECK(UnitWait(&SendEnabled, 2000));
    usleep(50000); // Path MTU probes.
    Api->SetCallbackHandler(UnitAccepted.Handle, (void*)Server, &UnitAccepted);

    static uint8_t Payload[1000];
    QUIC_BUFFER Buffer = { sizeof(Payload), Payload };
    Hold = 1;
    for (int i = 0; i < DATAGRAMS; i++) {
        OK(Api->DatagramSend(C.Handle, &Buffer, 1, QUIC_SEND_FLAG_NONE, NULL));
        for (int j = 0; j < 2000 && HeldCount <= i; j++) { usleep(1000); }
    }
    CHECK(HeldCount >= DATAGRAMS);
    int Total = HeldCount;
    Released = INT32_MAX;
    for (int i = 0; i < Total; i++) {
        sendto(R.ServerFd, Held[i].Data, (size_t)Held[i].Length, 0, (struct sockaddr*)&R.Server, sizeof(R.Server));
        if (Released == INT32_MAX && UnitWait(&Blocked, 50)) { Released = Total - i - 1; }
        if (i % 20 == 0) { usleep(1000); }
    }
    CHECK(Blocked);
    UnitWait(&Checked, 3000);
    if (Wrong != NULL) { FAIL("%s", Wrong); }
    CHECK(Checked);

    Hold = 0;
    Api->ConnectionShutdown(C.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 0);
    CHECK(UnitWait(&C.Complete, 2000));
    Api->ConnectionClose(C.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
    UnitRelayStop(&R);
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ClientConfig);
    Api->ConfigurationClose(ServerConfig);
    UnitClose();
    return 0;
}
