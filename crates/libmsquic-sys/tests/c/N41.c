// N41: a server does not process frames that 0-RTT packets must not carry.
#include "forge.h"
#include <sys/wait.h>

BOOLEAN QuicConnRecvFrames(QUIC_CONNECTION*, QUIC_PATH*, QUIC_RX_PACKET*, CXPLAT_ECN_TYPE);

static uint8_t Frames[64];
static uint16_t FramesLength;
static int Done, Accepted;

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    CXPLAT_ROUTE Route = Connection->Paths[0].Route;
    QUIC_RX_PACKET* Packet = Forge(Connection, &Route, 0, Frames, FramesLength);
    Packet->HeaderLength += 4; // the packet number
    Packet->PayloadLength = FramesLength;
    Packet->KeyType = QUIC_PACKET_KEY_0_RTT;
    Packet->EncryptedWith0Rtt = TRUE;
    Accepted = QuicConnRecvFrames(Connection, &Connection->Paths[0], Packet, CXPLAT_ECN_NON_ECT);
    if (!Accepted && Connection->CloseErrorCode != QUIC_ERROR_PROTOCOL_VIOLATION) { Accepted = -1; }
    Done = 1;
}

static void Take(char Frame)
{
    const QUIC_PATH_CHALLENGE_EX Path = { { 1 } };
    const QUIC_CRYPTO_EX Crypto = { 0, 4, (const uint8_t*)"data" };
    switch (Frame) {
    case 'p': Frames[FramesLength++] = QUIC_FRAME_PING; break;
    case 'h': Frames[FramesLength++] = QUIC_FRAME_HANDSHAKE_DONE; break;
    case 'c': CHECK(QuicCryptoFrameEncode(&Crypto, &FramesLength, sizeof(Frames), Frames)); break;
    case 'r': Frames[FramesLength++] = QUIC_FRAME_RETIRE_CONNECTION_ID; Frames[FramesLength++] = 0; break;
    case 't': memcpy(Frames, "\x07\x01t", 3); FramesLength = 3; break;
    default:
        CHECK(QuicPathChallengeFrameEncode(QUIC_FRAME_PATH_RESPONSE, &Path, &FramesLength, sizeof(Frames), Frames));
    }
    ForgeOpen();
    Hook = Receive;
    CHECK(HookSend(&ForgeClient, 2000) && Done);
}

int main(int Argc, char** Argv)
{
    if (Argc > 1) {
        Take(Argv[1][0]);
        _exit(2 + Accepted);
    }
    // A frame that is not accepted ends the connection, so each case has its own process.
    const char* Kinds[] = { "ping", "crypto", "token", "answer", "handshake done", "retire" };
    for (int i = 0; i < 6; i++) {
        int Status = 0;
        if (fork() == 0) {
            execl("/proc/self/exe", "N41", Kinds[i], NULL);
            _exit(9);
        }
        CHECK(wait(&Status) > 0 && WIFEXITED(Status));
        if (WEXITSTATUS(Status) != (i == 0 ? 3 : 2)) { FAIL("%s: %d", Kinds[i], WEXITSTATUS(Status) - 2); }
    }
    _exit(0);
}
