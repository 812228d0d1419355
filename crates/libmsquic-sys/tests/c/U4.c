// U4: a packet on a second path makes the server drop that path (NEW_CONNECTION_ID that retires
// its connection ID, without a replacement). Neither the removed path nor the one that moved to
// its place in the table may become active.
#include "forge.h"
#include <sys/wait.h>

static int Other; // whether a further path stays behind the removed one
static int Done, ActiveId, Retired, Count, SecondId;

static void RetirePath(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    QUIC_PATH* Path = ForgePath(Connection, 101);
    if (Other) { ForgePath(Connection, 102)->DestCid->CID.SequenceNumber = 1000; }
    CXPLAT_ROUTE Route = Path->Route;

    uint8_t Frames[100];
    uint16_t Length = 0;
    QUIC_NEW_CONNECTION_ID_EX New = { 8, 2000, 900, { 1, 2, 3, 4, 5, 6, 7, 8 } };
    CHECK(QuicNewConnectionIDFrameEncode(&New, &Length, sizeof(Frames), Frames));
    Frames[Length++] = QUIC_FRAME_PING;
    ForgeReceive(Connection, Forge(Connection, &Route, 0, Frames, Length), 1);

    ActiveId = Connection->Paths[0].ID;
    Retired = Connection->Paths[0].DestCid->CID.Retired;
    Count = Connection->PathsCount;
    SecondId = Connection->Paths[1].ID;
    Done = 1;
}

int main(int Argc, char** Argv)
{
    UNREFERENCED_PARAMETER(Argv);
    Other = Argc > 1;
    if (!Other && fork() == 0) { // the same with a further path, in another process
        execl("/proc/self/exe", "U4", "other", NULL);
        _exit(1);
    }
    ForgeOpen();
    Hook = RetirePath;
    CHECK(HookSend(&ForgeClient, 2000) && Done);
    CHECK(!Retired);
    CHECK(ActiveId == 0);
    if (Other) { CHECK(Count == 2 && SecondId == 102); } else { CHECK(Count == 1); }
    if (!Other) {
        int Status = 1;
        CHECK(wait(&Status) > 0);
        CHECK(Status == 0);
    }
    _exit(0);
}
