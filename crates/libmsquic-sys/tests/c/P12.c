// A FIN below data that was already received is a FINAL_SIZE_ERROR.
#include "forge.h"

static volatile int Done;
static QUIC_STATUS QUIC_API StreamCallback(HQUIC Stream, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_STREAM_EVENT_SHUTDOWN_COMPLETE) { Api->StreamClose(Stream); }
    return QUIC_STATUS_SUCCESS;
}

static QUIC_STATUS QUIC_API Callback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)Handle;
    if (Event->Type == QUIC_CONNECTION_EVENT_PEER_STREAM_STARTED) {
        Api->SetCallbackHandler(Event->PEER_STREAM_STARTED.Stream, (void*)StreamCallback, NULL);
    } else if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED && !Done) {
        // Eight bytes, and then FIN at offset 4.
        static const uint8_t Frames[] = {
            0x0a, 0, 8, 'e', 'i', 'g', 'h', 't', ' ', ' ', ' ',
            0x0f, 0, 4, 0 };
        Connection->Streams.Types[STREAM_ID_FLAG_IS_CLIENT | STREAM_ID_FLAG_IS_BI_DIR].MaxTotalStreamCount = 1;
        ForgeReceive(Connection, Forge(Connection, &Connection->Paths[0].Route, 0, Frames, sizeof(Frames)), 1);
        if (!Connection->State.ClosedLocally) { FAIL("the connection was not closed"); }
        CHECK(Connection->CloseErrorCode == QUIC_ERROR_FINAL_SIZE_ERROR);
        Done = 1;
    }
    return UnitConnCallback(Handle, Context, Event);
}

int main(void)
{
    ForgeOpen();
    Api->SetCallbackHandler(UnitAccepted.Handle, (void*)Callback, &UnitAccepted);
    OK(Api->DatagramSend(ForgeClient.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL));
    CHECK(UnitWait(&Done, 3000) && UnitWait(&UnitAccepted.Complete, 5000));
    _exit(0); // the forged packets are not freed
}
