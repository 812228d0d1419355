// N37: a late acknowledgment does not free the connection ID that the active path keeps because the peer has
// retired it and supplied no other.
#include "forge.h"

static int Done;

// The packet before may have the number 0 of Forge and not be counted.
static void Acknowledge(QUIC_CONNECTION* Connection, uint64_t Number, CXPLAT_ROUTE* Route)
{
    uint8_t Frames[64] = { QUIC_FRAME_ACK };
    uint8_t* End = QuicVarIntEncode(Number, Frames + 1);
    for (int i = 0; i < 3; i++) { End = QuicVarIntEncode(0, End); }
    ForgeReceive(Connection, Forge(Connection, Route, 1, Frames, (uint16_t)(End - Frames)), 1);
}

// The number of a packet with the frame that retires Sequence, other than Known.
static uint64_t Find(QUIC_SENT_PACKET_METADATA* Packet, uint64_t Sequence, uint64_t Known)
{
    for (; Packet != NULL; Packet = Packet->Next) {
        for (int i = 0; i < Packet->FrameCount; i++) {
            if (Packet->Frames[i].Type == QUIC_FRAME_RETIRE_CONNECTION_ID &&
                Packet->Frames[i].RETIRE_CONNECTION_ID.Sequence == Sequence &&
                Packet->PacketNumber != Known) {
                return Packet->PacketNumber;
            }
        }
    }
    return UINT64_MAX;
}

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    QUIC_SEND* Send = &Connection->Send;
    QUIC_LOSS_DETECTION* Loss = &Connection->LossDetection;
    QUIC_PATH* Path = &Connection->Paths[0];
    CXPLAT_ROUTE Route = Path->Route;
    const uint64_t Sequence = Path->DestCid->CID.SequenceNumber;

    // What a peer's change of its connection ID makes a server do.
    CHECK(QuicConnRetireCurrentDestCid(Connection, Path));
    QuicSendFlush(Send);
    const uint64_t First = Find(Loss->SentPackets, Sequence, UINT64_MAX);
    CHECK(First != UINT64_MAX);

    // The peer acknowledges later packets only: the first copy counts as lost and is repeated.
    for (int i = 0; i < 5; i++) {
        QuicSendSetSendFlag(Send, QUIC_CONN_SEND_FLAG_PING);
        QuicSendFlush(Send);
    }
    Acknowledge(Connection, Send->NextPacketNumber - 1, &Route);
    CHECK(Find(Loss->LostPackets, Sequence, UINT64_MAX) == First);
    QuicSendFlush(Send);
    const uint64_t Repeated = Find(Loss->SentPackets, Sequence, First);
    CHECK(Repeated != UINT64_MAX);
    Acknowledge(Connection, Repeated, &Route);
    CHECK(QuicConnGetDestCidFromSeq(Connection, Sequence, FALSE) == NULL);

    // The peer supplies the number again, and it comes into use.
    uint8_t Frames[64] = { QUIC_FRAME_NEW_CONNECTION_ID };
    uint8_t* End = QuicVarIntEncode(0, QuicVarIntEncode(Sequence, Frames + 1));
    *End++ = 9;
    memset(End, 0x55, 9 + QUIC_STATELESS_RESET_TOKEN_LENGTH);
    End += 9 + QUIC_STATELESS_RESET_TOKEN_LENGTH;
    ForgeReceive(Connection, Forge(Connection, &Route, 0, Frames, (uint16_t)(End - Frames)), 1);
    QUIC_CID_LIST_ENTRY* Again = QuicConnGetDestCidFromSeq(Connection, Sequence, FALSE);
    CHECK(Again != NULL && !Again->CID.Retired);
    for (int i = 0; i < 20 && Path->DestCid != Again; i++) {
        CHECK(QuicConnRetireCurrentDestCid(Connection, Path));
    }
    CHECK(Path->DestCid == Again);
    CHECK(Find(Loss->LostPackets, Sequence, UINT64_MAX) == First);

    // The peer retires all but the latest one, which has been in use before, so that there is no other.
    uint64_t Latest = 0;
    for (CXPLAT_LIST_ENTRY* Entry = Connection->DestCids.Flink; Entry != &Connection->DestCids; Entry = Entry->Flink) {
        QUIC_CID_LIST_ENTRY* DestCid = CXPLAT_CONTAINING_RECORD(Entry, QUIC_CID_LIST_ENTRY, Link);
        Latest = CXPLAT_MAX(Latest, DestCid->CID.SequenceNumber);
    }
    CHECK(Latest > Sequence);
    End = QuicVarIntEncode(Latest, QuicVarIntEncode(Latest, Frames + 1));
    *End++ = 9;
    memset(End, 0x66, 9 + QUIC_STATELESS_RESET_TOKEN_LENGTH);
    End += 9 + QUIC_STATELESS_RESET_TOKEN_LENGTH;
    ForgeReceive(Connection, Forge(Connection, &Route, 0, Frames, (uint16_t)(End - Frames)), 1);
    CHECK(Connection->State.ClosedLocally && Path->DestCid == Again && Again->CID.Retired);
    CHECK(Find(Loss->LostPackets, Sequence, UINT64_MAX) == First);

    Acknowledge(Connection, First, &Route);
    CHECK(Find(Loss->LostPackets, Sequence, UINT64_MAX) == UINT64_MAX);
    if (QuicConnGetDestCidFromSeq(Connection, Sequence, FALSE) != Path->DestCid) {
        FAIL("the connection ID of the active path was freed");
    }
    Done = 1;
}

int main(void)
{
    ForgeOpen();
    Hook = Receive;
    CHECK(HookSend(&ForgeClient, 2000) && Done);
    _exit(0);
}
