// With several receives at a time, a completion that has no bytes left to complete loses no data.
#include "forge.h"
#include <sys/wait.h>

void QuicStreamRecvFlush(QUIC_STREAM*);                     // not declared in a header
QUIC_STATUS QuicStreamRecvSetEnabledState(QUIC_STREAM*, BOOLEAN);

static QUIC_CONNECTION* Connection;
static HQUIC Stream;
static char Seen[64];           // the first byte of each RECEIVE
static volatile int Count;
static uint64_t CompleteInside; // completed inside the next RECEIVE

static QUIC_STATUS QUIC_API StreamCallback(HQUIC S, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type != QUIC_STREAM_EVENT_RECEIVE) { return QUIC_STATUS_SUCCESS; }
    CHECK(Event->RECEIVE.Flags == QUIC_RECEIVE_FLAG_NONE);
    CHECK(Event->RECEIVE.TotalBufferLength == 4 && Event->RECEIVE.AbsoluteOffset == 4 * Count);
    Seen[Count] = (char)Event->RECEIVE.Buffers[0].Buffer[0];
    if (CompleteInside != 0) { Api->StreamReceiveComplete(S, CompleteInside); }
    CompleteInside = 0;
    Count = Count + 1;
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

static void Send(uint8_t Offset, char Letter)
{
    const uint8_t Frame[] = { 0x0e, 0, Offset, 4, Letter, Letter, Letter, Letter };
    ForgeReceive(Connection, Forge(Connection, &Connection->Paths[0].Route, 0, Frame, sizeof(Frame)), 1);
    // The client closes the connection when a packet that it did not send is acknowledged.
    QuicRangeReset(&Connection->Packets[QUIC_ENCRYPT_LEVEL_1_RTT]->AckTracker.PacketNumbersToAck);
}

static volatile int Step, Wanted = -1;
static void TestHook(QUIC_CONNECTION* C)
{
    if (Step != Wanted) { return; } // the datagram was received twice
    Connection = C;
    QUIC_STREAM* S = (QUIC_STREAM*)Stream;
    switch (Step++) {
    case 0:
        Connection->Settings.StreamMultiReceiveEnabled = TRUE;
        Connection->Streams.Types[STREAM_ID_FLAG_IS_CLIENT | STREAM_ID_FLAG_IS_BI_DIR].MaxTotalStreamCount = 1;
        Send(0, 'A');
        break;
    case 1:
        // A is completed; B is indicated and completed before that operation runs, which takes
        // both; C arrives. The operation of A has nothing left.
        Api->StreamReceiveComplete(Stream, 4);
        CompleteInside = 4;
        Send(4, 'B');
        QuicStreamRecvFlush(S);
        Send(8, 'C');
        break;
    case 2:
        // D is indicated when receiving is enabled, and its flush is still queued.
        Send(12, 'D');
        OK(QuicStreamRecvSetEnabledState(S, FALSE));
        OK(QuicStreamRecvSetEnabledState(S, TRUE));
        break;
    case 3:
        // No data was completed twice or lost: C and D are still indicated.
        CHECK(S->RecvPendingLength == 8 && S->RecvBuffer.BaseOffset == 8);
        break;
    }
}

// The client may close the connection because of the forged packets; then the attempt proves
// nothing.
enum { AGAIN = 77 };

static void Run(int Until, const char* What)
{
    Wanted++;
    if (!HookSend(&ForgeClient, 5000)) {
        if (ForgeClient.ByTransport || ForgeClient.ByPeer) { _exit(AGAIN); }
        FAIL("%s: no datagram arrives", What);
    }
    for (int i = 0; i < 3000 && Count < Until; i++) { usleep(1000); }
    if (Step != Wanted + 1 || Count < Until) { FAIL("%s: step %d, \"%s\" arrived", What, Step, Seen); }
}

static void Attempt(void)
{
    ForgeOpen();
    Api->SetCallbackHandler(UnitAccepted.Handle, (void*)Callback, &UnitAccepted);
    Hook = TestHook;
    Run(1, "the first receive");
    Run(3, "the stream stalls");
    Run(4, "receiving was enabled");
    usleep(20000);
    Run(4, "all were seen");
    CHECK(strcmp(Seen, "ABCD") == 0);
    _exit(0); // the forged packets are not freed
}

int main(void)
{
    for (int i = 0; i < 5; i++) {
        int Status;
        pid_t Child = fork();
        CHECK(Child >= 0);
        if (Child == 0) { Attempt(); }
        CHECK(waitpid(Child, &Status, 0) == Child);
        if (!WIFEXITED(Status)) { FAIL("signal %d", WTERMSIG(Status)); }
        if (WEXITSTATUS(Status) != AGAIN) { return WEXITSTATUS(Status); }
    }
    FAIL("%s", "no attempt was completed");
}
