// N66: a program can read how many bytes of streams a connection holds, and the number follows what
// is taken.
#include "unit.h"

enum { LENGTH = 200000, WINDOW = 1 << 20 };
static uint8_t Data[LENGTH];
static const QUIC_BUFFER Buffers[] = { { LENGTH, Data } };

static HQUIC Paused;            // the stream whose data is not taken
static volatile int Sent;

static QUIC_STATUS QUIC_API ServerStream(HQUIC Stream, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_STREAM_EVENT_RECEIVE && Paused == NULL) {
        Paused = Stream;
        Event->RECEIVE.TotalBufferLength = 0;
    }
    if (Event->Type == QUIC_STREAM_EVENT_SHUTDOWN_COMPLETE) { Api->StreamClose(Stream); }
    return QUIC_STATUS_SUCCESS;
}

static QUIC_STATUS QUIC_API ServerConnection(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_PEER_STREAM_STARTED) {
        Api->SetCallbackHandler(Event->PEER_STREAM_STARTED.Stream, (void*)ServerStream, NULL);
    }
    return UnitConnCallback(Handle, Context, Event);
}

static QUIC_STATUS QUIC_API ClientStream(HQUIC Stream, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_STREAM_EVENT_SEND_COMPLETE && !Event->SEND_COMPLETE.Canceled) { Sent = 1; }
    if (Event->Type == QUIC_STREAM_EVENT_SHUTDOWN_COMPLETE) { Api->StreamClose(Stream); }
    return QUIC_STATUS_SUCCESS;
}

static uint64_t Unread(void)
{
    uint64_t Bytes = UINT64_MAX;
    uint32_t Size = sizeof(Bytes);
    OK(Api->GetParam(UnitAccepted.Handle, QUIC_PARAM_CONN_RECEIVED_UNREAD, &Size, &Bytes));
    CHECK(Size == sizeof(Bytes));
    return Bytes;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.PeerUnidiStreamCount = 4; S.IsSet.PeerUnidiStreamCount = TRUE;
    S.SendBufferingEnabled = FALSE; S.IsSet.SendBufferingEnabled = TRUE; // A send is complete when it is acknowledged.
    S.StreamRecvWindowDefault = WINDOW; S.IsSet.StreamRecvWindowDefault = TRUE;
    S.ConnFlowControlWindow = WINDOW; S.IsSet.ConnFlowControlWindow = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    UnitAcceptCallback = ServerConnection;
    uint16_t Port;
    HQUIC Listener = UnitListen(ServerConfig, &Port), Stream;
    UNIT_CONN Client = { 0 };
    UnitConnect(&Client, ClientConfig, Port);
    CHECK(UnitWait(&Client.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    CHECK(Unread() == 0);
    uint32_t Size = 1;
    CHECK(Api->GetParam(UnitAccepted.Handle, QUIC_PARAM_CONN_RECEIVED_UNREAD, &Size, Data) == QUIC_STATUS_BUFFER_TOO_SMALL);
    OK(Api->StreamOpen(Client.Handle, QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL, ClientStream, NULL, &Stream));
    OK(Api->StreamStart(Stream, QUIC_STREAM_START_FLAG_NONE));
    OK(Api->StreamSend(Stream, Buffers, 1, QUIC_SEND_FLAG_NONE, NULL));
    CHECK(UnitWait(&Sent, 5000)); // all was acknowledged
    if (Unread() != LENGTH) { FAIL("%llu bytes are reported", (unsigned long long)Unread()); }
    OK(Api->StreamReceiveSetEnabled(Paused, TRUE));
    for (int i = 0; Unread() != 0; i++) {
        CHECK(i < 5000);
        CxPlatSleep(1);
    }
    Api->ConnectionShutdown(Client.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 7);
    CHECK(UnitWait(&UnitAccepted.Complete, 10000));
    Api->ConnectionClose(Client.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ServerConfig);
    Api->ConfigurationClose(ClientConfig);
    UnitClose();
    return 0;
}
