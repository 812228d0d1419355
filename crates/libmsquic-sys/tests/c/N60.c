// N60: bytes that a paused receiver has not taken are indicated once more when the connection
// closes, and so is the end of a stream behind bytes that it holds.
#include "unit.h"

enum { LENGTH = 200000 };
static uint8_t Data[LENGTH];
static const QUIC_BUFFER Buffers[] = { { LENGTH, Data } };

static int Closing;             // the close was indicated to the server, or the server closes
static int Takes;               // how many bytes it takes before that
static uint64_t Taken, Late;    // bytes taken in all, and by RECEIVE after the close
static int Finished, Paused;
static volatile int Sent, Shut;

static int Holds;               // the server holds what it receives: its calls return PENDING
static HQUIC Returns;           // it completes all bytes of this stream when the close is indicated
static volatile int Held, Ended; // how many bytes, and how often the end of the stream was indicated

static QUIC_STATUS QUIC_API ServerStream(HQUIC Stream, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Context);
    switch (Event->Type) {
    case QUIC_STREAM_EVENT_RECEIVE:
        if (Holds) {
            if (Holds == 2 && !Closing) { Returns = Stream; }
            CHECK(Event->RECEIVE.AbsoluteOffset == Held);
            Ended += (Event->RECEIVE.Flags & QUIC_RECEIVE_FLAG_FIN) != 0;
            Held += (int)Event->RECEIVE.TotalBufferLength;
            return QUIC_STATUS_PENDING;
        }
        if (!Closing && Event->RECEIVE.TotalBufferLength > (uint64_t)Takes) {
            Event->RECEIVE.TotalBufferLength = Takes;
            Paused = 1;
        }
        CHECK(Event->RECEIVE.AbsoluteOffset == Taken);
        Taken += Event->RECEIVE.TotalBufferLength;
        if (Closing) { Late += Event->RECEIVE.TotalBufferLength; }
        break;
    case QUIC_STREAM_EVENT_PEER_SEND_SHUTDOWN: Finished = 1; break;
    case QUIC_STREAM_EVENT_SHUTDOWN_COMPLETE: Api->StreamClose(Stream); break;
    default: break;
    }
    return QUIC_STATUS_SUCCESS;
}

static QUIC_STATUS QUIC_API ServerConnection(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    switch (Event->Type) {
    case QUIC_CONNECTION_EVENT_PEER_STREAM_STARTED:
        Api->SetCallbackHandler(Event->PEER_STREAM_STARTED.Stream, (void*)ServerStream, NULL);
        break;
    case QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_TRANSPORT:
    case QUIC_CONNECTION_EVENT_SHUTDOWN_INITIATED_BY_PEER:
        Closing = 1;
        if (Returns != NULL) { Api->StreamReceiveComplete(Returns, Held); }
        break;
    default: break;
    }
    return UnitConnCallback(Handle, Context, Event);
}

static QUIC_STATUS QUIC_API ClientStream(HQUIC Stream, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_STREAM_EVENT_SEND_COMPLETE && !Event->SEND_COMPLETE.Canceled) { Sent = 1; }
    if (Event->Type == QUIC_STREAM_EVENT_SEND_SHUTDOWN_COMPLETE) { Shut = Event->SEND_SHUTDOWN_COMPLETE.Graceful; }
    if (Event->Type == QUIC_STREAM_EVENT_SHUTDOWN_COMPLETE) { Api->StreamClose(Stream); }
    return QUIC_STATUS_SUCCESS;
}

enum { BY_PEER, BY_TIMEOUT, BY_US };

static void Case(HQUIC ClientConfig, uint16_t Port, int How, QUIC_SEND_FLAGS Flags)
{
    UNIT_CONN Client = { 0 };
    HQUIC Stream;
    memset(&UnitAccepted, 0, sizeof(UnitAccepted));
    Closing = Finished = Paused = Sent = 0;
    Taken = Late = 0;
    Takes = 1000;
    UnitConnect(&Client, ClientConfig, Port);
    CHECK(UnitWait(&Client.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    OK(Api->StreamOpen(Client.Handle, QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL, ClientStream, NULL, &Stream));
    OK(Api->StreamStart(Stream, QUIC_STREAM_START_FLAG_NONE));
    OK(Api->StreamSend(Stream, Buffers, 1, Flags, NULL));
    CHECK(UnitWait(&Sent, 5000)); // all was acknowledged
    if (How == BY_PEER) { Api->ConnectionShutdown(Client.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 7); }
    if (How == BY_US) { Closing = 1; Api->ConnectionShutdown(UnitAccepted.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 7); }
    CHECK(UnitWait(&UnitAccepted.Complete, 10000));
    CHECK(Paused && (How != BY_TIMEOUT || UnitAccepted.ByTransport));
    if (Taken != LENGTH) { FAIL("close %d: %llu bytes arrived", How, (unsigned long long)Taken); }
    CHECK(Late == LENGTH - 1000);
    CHECK(Finished == ((Flags & QUIC_SEND_FLAG_FIN) != 0));
    Api->ConnectionClose(Client.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
}

// The server holds all bytes when the end of the stream arrives alone, or (without bytes) holds the
// end itself. If it completes them, more bytes arrive after them.
static void Hold(HQUIC ClientConfig, uint16_t Port, uint32_t Length, int GivesBack)
{
    UNIT_CONN Client = { 0 };
    HQUIC Stream;
    const QUIC_BUFFER Few = { Length, Data };
    memset(&UnitAccepted, 0, sizeof(UnitAccepted));
    Closing = Finished = Sent = Shut = Held = Ended = 0;
    Holds = 1 + GivesBack;
    Returns = NULL;
    UnitConnect(&Client, ClientConfig, Port);
    CHECK(UnitWait(&Client.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    OK(Api->StreamOpen(Client.Handle, QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL, ClientStream, NULL, &Stream));
    OK(Api->StreamStart(Stream, QUIC_STREAM_START_FLAG_NONE));
    if (Length != 0) {
        OK(Api->StreamSend(Stream, &Few, 1, QUIC_SEND_FLAG_NONE, NULL));
        CHECK(UnitWait(&Sent, 5000) && UnitWait(&Held, 5000));
    }
    if (GivesBack) {
        Sent = 0;
        OK(Api->StreamSend(Stream, &Few, 1, QUIC_SEND_FLAG_NONE, NULL));
        CHECK(UnitWait(&Sent, 5000));
    }
    OK(Api->StreamShutdown(Stream, QUIC_STREAM_SHUTDOWN_FLAG_GRACEFUL, 0));
    CHECK(UnitWait(&Shut, 5000)); // the end was acknowledged
    Api->ConnectionShutdown(Client.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 7);
    CHECK(UnitWait(&UnitAccepted.Complete, 10000));
    if (Held != (int)Length * (1 + GivesBack)) { FAIL("%d bytes arrived", Held); }
    // If all bytes were completed, PEER_SEND_SHUTDOWN alone may report the end.
    if (Ended != 1 && !(GivesBack && Ended == 0 && Finished)) { FAIL("behind %u held bytes the end was indicated %d times", Length, Ended); }
    Api->ConnectionClose(Client.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
    Holds = 0;
    Returns = NULL;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.PeerUnidiStreamCount = 4; S.IsSet.PeerUnidiStreamCount = TRUE;
    S.IdleTimeoutMs = 1000; S.IsSet.IdleTimeoutMs = TRUE;
    S.SendBufferingEnabled = FALSE; S.IsSet.SendBufferingEnabled = TRUE; // A send is complete when it is acknowledged.
    S.StreamRecvWindowDefault = 1 << 20; S.IsSet.StreamRecvWindowDefault = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    UnitAcceptCallback = ServerConnection;
    uint16_t Port;
    HQUIC Listener = UnitListen(ServerConfig, &Port);
    for (int How = BY_PEER; How <= BY_US; How++) {
        Case(ClientConfig, Port, How, QUIC_SEND_FLAG_NONE);
        Case(ClientConfig, Port, How, QUIC_SEND_FLAG_FIN);
    }
    for (int Multiple = 0; Multiple < 2; Multiple++) {
        S.StreamMultiReceiveEnabled = Multiple; S.IsSet.StreamMultiReceiveEnabled = TRUE;
        OK(Api->SetParam(ServerConfig, QUIC_PARAM_CONFIGURATION_SETTINGS, sizeof(S), &S));
        Hold(ClientConfig, Port, 100, 0);
        Hold(ClientConfig, Port, 100, 1);
        Hold(ClientConfig, Port, 0, 0);
    }
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ServerConfig);
    Api->ConfigurationClose(ClientConfig);
    UnitClose();
    return 0;
}
