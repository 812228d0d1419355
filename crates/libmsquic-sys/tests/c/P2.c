// An ACK frame for packets of another packet number space ends the connection with
// PROTOCOL_VIOLATION, and nothing is left in flight for the packets that it named.
#include "forge.h"

static int Pass;
static uint64_t Error;
static void TestHook(QUIC_CONNECTION* Connection)
{
    if (Pass++ != 0) { return; }
    QUIC_LOSS_DETECTION* Loss = &Connection->LossDetection;
    QUIC_CONGESTION_CONTROL_CUBIC* Cubic = &Connection->CongestionControl.Cubic;
    uint32_t InFlight = Cubic->BytesInFlight;

    // A packet with Handshake keys, acknowledged in a 1-RTT packet.
    QUIC_MAX_SENT_PACKET_METADATA Store;
    memset(&Store, 0, sizeof(Store));
    QUIC_SENT_PACKET_METADATA* Sent = &Store.Metadata;
    Sent->PacketNumber = Connection->Send.NextPacketNumber++;
    Sent->PacketId = 1;
    Sent->SentTime = CxPlatTimeUs64();
    Sent->PacketLength = 100;
    Sent->FrameCount = 1;
    Sent->Frames[0].Type = QUIC_FRAME_PING;
    Sent->Flags.KeyType = QUIC_PACKET_KEY_HANDSHAKE;
    Sent->Flags.IsAckEliciting = TRUE;
    QuicLossDetectionOnPacketSent(Loss, &Connection->Paths[0], Sent);
    CHECK(Cubic->BytesInFlight == InFlight + 100);

    uint64_t Number = Sent->PacketNumber;
    uint8_t Frame[] = {
        0x02, 0x80 | (uint8_t)(Number >> 24), (uint8_t)(Number >> 16), (uint8_t)(Number >> 8), (uint8_t)Number,
        0, 0, 0, 0x01 };
    ForgeReceive(Connection, Forge(Connection, &Connection->Paths[0].Route, 0, Frame, sizeof(Frame)), 1);
    if (!Connection->State.ClosedLocally) { FAIL("the connection was not closed"); }
    Error = Connection->CloseErrorCode;
    if (Error != QUIC_ERROR_PROTOCOL_VIOLATION) { FAIL("closed with 0x%llx", (unsigned long long)Error); }
    if (Cubic->BytesInFlight > InFlight) {
        FAIL("%u bytes stay in flight", (unsigned)(Cubic->BytesInFlight - InFlight));
    }
}

int main(void)
{
    ForgeOpen();
    Hook = TestHook;
    CHECK(HookSend(&ForgeClient, 5000));
    CHECK(UnitWait(&ForgeClient.Complete, 5000) && UnitWait(&UnitAccepted.Complete, 5000));
    CHECK(Error == QUIC_ERROR_PROTOCOL_VIOLATION);
    _exit(0); // the forged packets are not freed
}
