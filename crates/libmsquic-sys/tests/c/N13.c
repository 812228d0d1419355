// N13: a client moves to another local address many times while the server sends without pause. The
// calls are made on a thread of the application and inside an event. A move that fails leaves the
// address as it was.
#include "unit.h"

static volatile uint64_t Received;
static volatile int Inline, InlineMoves, Refused;
static HQUIC Client;

static QUIC_STATUS Move(const char* Address)
{
    QUIC_ADDR Addr = { 0 };
    CHECK(QuicAddrFromString(Address, 0, &Addr));
    return Api->SetParam(Client, QUIC_PARAM_CONN_LOCAL_ADDRESS, sizeof(Addr), &Addr);
}

static QUIC_STATUS QUIC_API ClientStreamCallback(HQUIC Stream, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Context);
    UNREFERENCED_PARAMETER(Stream);
    if (Event->Type == QUIC_STREAM_EVENT_RECEIVE) {
        Received += Event->RECEIVE.TotalBufferLength;
        if (Inline) {
            Inline = 0;
            InlineMoves++;
            OK(Move(InlineMoves % 2 ? "127.0.0.3" : "127.0.0.4"));
        }
    }
    return QUIC_STATUS_SUCCESS;
}

static QUIC_STATUS QUIC_API ClientCallback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_PEER_STREAM_STARTED) {
        Api->SetCallbackHandler(Event->PEER_STREAM_STARTED.Stream, (void*)ClientStreamCallback, NULL);
    } else if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_SEND_STATE_CHANGED &&
        Event->DATAGRAM_SEND_STATE_CHANGED.State == QUIC_DATAGRAM_SEND_SENT) {
        // Packets are being built for the current socket.
        if (Move("127.0.0.5") == QUIC_STATUS_INVALID_STATE) { Refused = 1; }
    }
    return UnitConnCallback(Handle, Context, Event);
}

static uint8_t Bytes[100000];
static const QUIC_BUFFER Data = { sizeof(Bytes), Bytes };
static volatile int Enough;
static QUIC_STATUS QUIC_API ServerStreamCallback(HQUIC Stream, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_STREAM_EVENT_SEND_COMPLETE && !Event->SEND_COMPLETE.Canceled && !Enough) {
        (void)Api->StreamSend(Stream, &Data, 1, QUIC_SEND_FLAG_NONE, NULL);
    }
    return QUIC_STATUS_SUCCESS;
}

static int WaitMore(int Ms)
{
    uint64_t Before = Received;
    for (int i = 0; i < Ms && Received < Before + 100000; i++) { usleep(1000); }
    return Received >= Before + 100000;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.InitialRttMs = 10; S.IsSet.InitialRttMs = TRUE; // moves take effect quickly
    S.PeerUnidiStreamCount = 10; S.IsSet.PeerUnidiStreamCount = TRUE;
    S.DatagramReceiveEnabled = TRUE; S.IsSet.DatagramReceiveEnabled = TRUE;
    S.SendBufferingEnabled = FALSE; S.IsSet.SendBufferingEnabled = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S), Stream;
    uint16_t Port;
    (void)UnitListen(ServerConfig, &Port);
    UNIT_CONN C = { 0 };
    OK(Api->ConnectionOpen(Reg, ClientCallback, &C, &C.Handle));
    Client = C.Handle;
    OK(Api->ConnectionStart(C.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));
    CHECK(UnitWait(&C.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    OK(Api->StreamOpen(UnitAccepted.Handle, QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL, ServerStreamCallback, NULL, &Stream));
    OK(Api->StreamStart(Stream, QUIC_STREAM_START_FLAG_NONE));
    for (int i = 0; i < 4; i++) { OK(Api->StreamSend(Stream, &Data, 1, QUIC_SEND_FLAG_NONE, NULL)); }
    CHECK(WaitMore(5000));

    // An address that this host does not have.
    QUIC_ADDR Before, After;
    uint32_t Length = sizeof(Before);
    OK(Api->GetParam(C.Handle, QUIC_PARAM_CONN_LOCAL_ADDRESS, &Length, &Before));
    CHECK(QUIC_FAILED(Move("203.0.113.77")));
    OK(Api->GetParam(C.Handle, QUIC_PARAM_CONN_LOCAL_ADDRESS, &Length, &After));
    CHECK(QuicAddrCompare(&Before, &After));
    CHECK(WaitMore(3000));

    int Moves = getenv("MOVES") ? atoi(getenv("MOVES")) : 7;
    for (int i = 0; i < Moves; i++) {
        Inline = i % 3 == 0;
        OK(Move(i % 2 ? "127.0.0.1" : "127.0.0.2"));
        if (!WaitMore(6000)) { FAIL("nothing arrived after move %d (transport %d)", i, C.ByTransport); }
    }
    CHECK(InlineMoves > 0);

    static const QUIC_BUFFER Small = { 4, (uint8_t*)"hook" };
    for (int i = 0; i < 1000 && !Refused; i++) {
        (void)Api->DatagramSend(C.Handle, &Small, 1, QUIC_SEND_FLAG_NONE, NULL);
        usleep(1000);
    }
    CHECK(Refused);
    CHECK(WaitMore(3000));
    CHECK(!C.ByTransport && !UnitAccepted.ByTransport);
    Enough = 1;

    // A client whose server forbids moves does not move, and neither does a client whose connection
    // is closed.
    S.MigrationEnabled = FALSE; S.IsSet.MigrationEnabled = TRUE;
    HQUIC Still = UnitServerConfig(&S);
    (void)UnitListen(Still, &Port);
    UnitAccepted.Connected = 0;
    UNIT_CONN D = { 0 };
    OK(Api->ConnectionOpen(Reg, ClientCallback, &D, &D.Handle));
    Client = D.Handle;
    OK(Api->ConnectionStart(D.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));
    CHECK(UnitWait(&D.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    QUIC_STATUS Status = QUIC_STATUS_INVALID_STATE;
    for (int i = 0; i < 1000 && Status == QUIC_STATUS_INVALID_STATE; i++) { // until it is confirmed
        Status = Move("127.0.0.1");
        usleep(1000);
    }
    CHECK(Status == QUIC_STATUS_NOT_SUPPORTED);
    Api->ConnectionShutdown(UnitAccepted.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 0);
    for (int i = 0; i < 5000 && Move("127.0.0.1") == QUIC_STATUS_NOT_SUPPORTED; i++) { usleep(1000); }
    CHECK(Move("127.0.0.1") == QUIC_STATUS_INVALID_STATE);
    _exit(0);
}
