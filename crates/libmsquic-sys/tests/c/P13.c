// A receive that is completed after the peer's reset does not return connection credit twice.
#include "forge.h"

static HQUIC Stream;
static volatile int Received, Reset;
static volatile int Step;
static uint64_t MaxData;

static QUIC_STATUS QUIC_API StreamCallback(HQUIC S, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(S);
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_STREAM_EVENT_PEER_SEND_ABORTED) { Reset = 1; }
    if (Event->Type != QUIC_STREAM_EVENT_RECEIVE) { return QUIC_STATUS_SUCCESS; }
    Received = 1;
    return QUIC_STATUS_PENDING;
}

static QUIC_STATUS QUIC_API Callback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_PEER_STREAM_STARTED) {
        Stream = Event->PEER_STREAM_STARTED.Stream;
        Api->SetCallbackHandler(Stream, (void*)StreamCallback, NULL);
    }
    return HookConnCallback(Handle, Context, Event);
}

static void TestHook(QUIC_CONNECTION* Connection)
{
    static const uint8_t Data[] = { 0x0e, 0, 0, 4, 'd', 'a', 't', 'a' };
    static const uint8_t ResetStream[] = { 0x04, 0, 7, 4 };
    if (Step == 0) {
        MaxData = Connection->Send.MaxData;
        Connection->Streams.Types[STREAM_ID_FLAG_IS_CLIENT | STREAM_ID_FLAG_IS_BI_DIR].MaxTotalStreamCount = 1;
        ForgeReceive(Connection, Forge(Connection, &Connection->Paths[0].Route, 0, Data, sizeof(Data)), 1);
        Step = 1;
    } else if (Step == 2) {
        // The completion is still queued when the reset is processed.
        Api->StreamReceiveComplete(Stream, 4);
        ForgeReceive(Connection, Forge(Connection, &Connection->Paths[0].Route, 0, ResetStream, sizeof(ResetStream)), 1);
        CHECK(Reset && Connection->Send.MaxData == MaxData + 4);
        Step = 3;
    } else if (Step == 4) {
        if (Connection->Send.MaxData != MaxData + 4) {
            FAIL("4 bytes gave credit of %llu", (unsigned long long)(Connection->Send.MaxData - MaxData));
        }
        Step = 5;
    }
    // The client closes the connection when a packet that it did not send is acknowledged.
    QuicRangeReset(&Connection->Packets[QUIC_ENCRYPT_LEVEL_1_RTT]->AckTracker.PacketNumbersToAck);
}

int main(void)
{
    ForgeOpen();
    Api->SetCallbackHandler(UnitAccepted.Handle, (void*)Callback, &UnitAccepted);
    Hook = TestHook;
    CHECK(HookSend(&ForgeClient, 5000) && UnitWait(&Received, 3000));
    for (int Next = 2; Next <= 4; Next += 2) {
        Step = Next;
        CHECK(HookSend(&ForgeClient, 5000));
        for (int i = 0; i < 3000 && Step == Next; i++) { usleep(1000); }
        CHECK(Step == Next + 1);
    }
    _exit(0); // the forged packets are not freed
}
