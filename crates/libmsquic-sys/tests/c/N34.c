// N34: every frame except a probing frame moves the connection to the address from which it
// arrives.
#include "forge.h"
#include <sys/wait.h>

static uint8_t Frames[64];
static uint16_t FramesLength;
static int Done, Followed;

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    CXPLAT_ROUTE Route = Connection->Paths[0].Route;
    QuicAddrSetPort(&Route.RemoteAddress, QuicAddrGetPort(&Route.RemoteAddress) ^ 1);
    ForgeReceive(Connection, Forge(Connection, &Route, 0, Frames, FramesLength), 1);
    Followed = QuicAddrCompare(&Connection->Paths[0].Route.RemoteAddress, &Route.RemoteAddress);
    Done = 1;
}

// Whether a server follows a packet with that frame.
static int Follows(char Frame)
{
    const QUIC_PATH_CHALLENGE_EX Probe = { { 1, 2, 3, 4, 5, 6, 7, 8 } };
    const QUIC_ACK_FREQUENCY_EX Frequency = { 1, 2, MS_TO_US(25), 3 };
    switch (Frame) {
    case 'p':
        CHECK(QuicPathChallengeFrameEncode(QUIC_FRAME_PATH_CHALLENGE, &Probe, &FramesLength, sizeof(Frames), Frames));
        break;
    case 'd':
        CHECK(QuicDatagramFrameEncodeEx(&HookData, 1, HookData.Length, &FramesLength, sizeof(Frames), Frames));
        break;
    case 's': {
        const QUIC_STREAMS_BLOCKED_EX Blocked = { FALSE, 0 }; // The limit is higher.
        CHECK(QuicStreamsBlockedFrameEncode(&Blocked, &FramesLength, sizeof(Frames), Frames));
        break;
    }
    case 'f':
        CHECK(QuicAckFrequencyFrameEncode(&Frequency, &FramesLength, sizeof(Frames), Frames));
        break;
    default:
        FramesLength = (uint16_t)(QuicVarIntEncode(QUIC_FRAME_IMMEDIATE_ACK, Frames) - Frames);
    }
    ForgeOpen();
    Hook = Receive;
    CHECK(HookSend(&ForgeClient, 2000) && Done);
    return Followed;
}

int main(int Argc, char** Argv)
{
    if (Argc > 1) {
        _exit(Follows(Argv[1][0]) ? 2 : 3);
    }
    // A client closes the connection when a packet that it has not sent is acknowledged, so each
    // case has a process.
    const char* Kinds[] = { "probe", "datagram", "frequency", "streams blocked", "immediate acknowledgment" };
    for (int i = 0; i < 5; i++) {
        int Status = 0;
        if (fork() == 0) {
            execl("/proc/self/exe", "N34", Kinds[i], NULL);
            _exit(9);
        }
        CHECK(wait(&Status) > 0 && WIFEXITED(Status) && (WEXITSTATUS(Status) & ~1) == 2);
        int IsFollowed = WEXITSTATUS(Status) == 2;
        if (IsFollowed != (i > 0)) { FAIL("%s: followed %d", Kinds[i], IsFollowed); }
    }
    _exit(0);
}
