// N40: a response to a path challenge is sent on the path of the challenge, in a datagram of 1200 bytes.
#include "forge.h"

static int Done;

// A challenge in a datagram of more than 1200 bytes.
static void Challenge(QUIC_CONNECTION* Connection, CXPLAT_ROUTE* Route, uint8_t Value)
{
    const QUIC_PATH_CHALLENGE_EX Frame = { { Value } };
    uint8_t Frames[1200] = { 0 };
    uint16_t Length = 0;
    CHECK(QuicPathChallengeFrameEncode(QUIC_FRAME_PATH_CHALLENGE, &Frame, &Length, sizeof(Frames), Frames));
    ForgeReceive(Connection, Forge(Connection, Route, 0, Frames, sizeof(Frames)), 1);
}

// Finds the packet with the response, of which there is at most one.
static const QUIC_SENT_PACKET_METADATA* Answer(QUIC_CONNECTION* Connection, uint8_t Value)
{
    const QUIC_SENT_PACKET_METADATA* Found = NULL;
    QuicSendFlush(&Connection->Send);
    for (const QUIC_SENT_PACKET_METADATA* P = Connection->LossDetection.SentPackets; P != NULL; P = P->Next) {
        for (int i = 0; i < P->FrameCount; i++) {
            if (P->Frames[i].Type == QUIC_FRAME_PATH_RESPONSE && P->Frames[i].PATH_RESPONSE.Data[0] == Value) {
                CHECK(Found == NULL);
                Found = P;
            }
        }
    }
    return Found;
}

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    CXPLAT_ROUTE Real = Connection->Paths[0].Route, One = Real, Two = Real, Three = Real;
    QuicAddrSetPort(&One.RemoteAddress, QuicAddrGetPort(&Real.RemoteAddress) ^ 1);
    QuicAddrSetPort(&Two.RemoteAddress, QuicAddrGetPort(&Real.RemoteAddress) ^ 2);
    QuicAddrSetPort(&Three.RemoteAddress, QuicAddrGetPort(&Real.RemoteAddress) ^ 3);
    const QUIC_SENT_PACKET_METADATA* Packet;

    Challenge(Connection, &Real, 1);
    Packet = Answer(Connection, 1);
    CHECK(Packet != NULL && Packet->PathId == Connection->Paths[0].ID);
    if (Packet->PacketLength < 1200) { FAIL("%u bytes on the active path", Packet->PacketLength); }

    Challenge(Connection, &One, 2);
    const uint8_t Probed = Connection->Paths[1].ID;
    CHECK(!Connection->Paths[1].IsActive);
    Packet = Answer(Connection, 2);
    CHECK(Packet != NULL);
    if (Packet->PathId != Probed) { FAIL("answered on path %u, not on %u", Packet->PathId, Probed); }
    CHECK(Packet->PacketLength >= 1200);
    CHECK(Connection->Paths[1].IsMinMtuValidated == FALSE && !Connection->Paths[1].SendChallenge);

    // The path is challenged again; the server sends no challenge of its own with the response.
    Challenge(Connection, &One, 3);
    Packet = Answer(Connection, 3);
    CHECK(Packet != NULL && Packet->PathId == Probed && Packet->PacketLength >= 1200 && Packet->FrameCount == 1);

    // The path is removed before the response is sent.
    Challenge(Connection, &Two, 4);
    QuicPathRemove(Connection, 1);
    CHECK(Answer(Connection, 4) == NULL);

    // The path becomes the active one before the response is sent.
    const uint8_t Ping = QUIC_FRAME_PING;
    Challenge(Connection, &Three, 5);
    const uint8_t Used = Connection->Paths[1].ID;
    ForgeReceive(Connection, Forge(Connection, &Three, 0, &Ping, 1), 1);
    CHECK(Connection->Paths[0].ID == Used);
    Packet = Answer(Connection, 5);
    CHECK(Packet != NULL && Packet->PathId == Used);
    Done = 1;
}

int main(void)
{
    ForgeRun(Receive, &Done);
}
