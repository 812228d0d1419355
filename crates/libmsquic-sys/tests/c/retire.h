// Helpers for connection IDs that a peer supplies and retires, and for one that is used again after
// its retirement.
#pragma once
#include "forge.h"

// Writes a NEW_CONNECTION_ID frame whose connection ID and token consist of Byte.
static uint8_t* NewConnectionId(uint8_t* Frames, uint64_t Sequence, uint64_t RetirePriorTo, uint8_t Byte)
{
    *Frames = QUIC_FRAME_NEW_CONNECTION_ID;
    uint8_t* End = QuicVarIntEncode(RetirePriorTo, QuicVarIntEncode(Sequence, Frames + 1));
    *End++ = 9;
    memset(End, Byte, 9 + QUIC_STATELESS_RESET_TOKEN_LENGTH);
    return End + 9 + QUIC_STATELESS_RESET_TOKEN_LENGTH;
}

// The latest number of a connection ID that the peer has supplied.
static uint64_t LatestConnectionId(QUIC_CONNECTION* Connection)
{
    uint64_t Latest = 0;
    for (CXPLAT_LIST_ENTRY* Entry = Connection->DestCids.Flink; Entry != &Connection->DestCids; Entry = Entry->Flink) {
        QUIC_CID_LIST_ENTRY* DestCid = CXPLAT_CONTAINING_RECORD(Entry, QUIC_CID_LIST_ENTRY, Link);
        Latest = CXPLAT_MAX(Latest, DestCid->CID.SequenceNumber);
    }
    return Latest;
}

// The previous packet may have been forged with number 0, and not be counted.
static void Acknowledge(QUIC_CONNECTION* Connection, uint64_t Number, CXPLAT_ROUTE* Route)
{
    uint8_t Frames[64] = { QUIC_FRAME_ACK };
    uint8_t* End = QuicVarIntEncode(Number, Frames + 1);
    for (int i = 0; i < 3; i++) { End = QuicVarIntEncode(0, End); }
    ForgeReceive(Connection, Forge(Connection, Route, 1, Frames, (uint16_t)(End - Frames)), 1);
}

// Returns the number of a packet other than Known that has the frame that retires Sequence.
static uint64_t FindRetirement(QUIC_SENT_PACKET_METADATA* Packet, uint64_t Sequence, uint64_t Known)
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

// Retires the connection ID of the active path, loses and repeats the retirement, and lets the peer supply the same
// number again until it is in use. Returns the number of the lost packet, which the peer may still acknowledge.
static uint64_t ReuseConnectionId(QUIC_CONNECTION* Connection, CXPLAT_ROUTE* Route)
{
    QUIC_SEND* Send = &Connection->Send;
    QUIC_LOSS_DETECTION* Loss = &Connection->LossDetection;
    QUIC_PATH* Path = &Connection->Paths[0];
    const uint64_t Sequence = Path->DestCid->CID.SequenceNumber;

    // A server does this when the peer changes its connection ID.
    CHECK(QuicConnRetireCurrentDestCid(Connection, Path));
    QuicSendFlush(Send);
    const uint64_t First = FindRetirement(Loss->SentPackets, Sequence, UINT64_MAX);
    CHECK(First != UINT64_MAX);

    // The peer acknowledges later packets only: the first copy counts as lost and is repeated.
    for (int i = 0; i < 5; i++) {
        QuicSendSetSendFlag(Send, QUIC_CONN_SEND_FLAG_PING);
        QuicSendFlush(Send);
    }
    Acknowledge(Connection, Send->NextPacketNumber - 1, Route);
    CHECK(FindRetirement(Loss->LostPackets, Sequence, UINT64_MAX) == First);
    QuicSendFlush(Send);
    const uint64_t Repeated = FindRetirement(Loss->SentPackets, Sequence, First);
    CHECK(Repeated != UINT64_MAX);
    Acknowledge(Connection, Repeated, Route);
    CHECK(QuicConnGetDestCidFromSeq(Connection, Sequence, FALSE) == NULL);

    // The peer supplies the number again, and it comes into use.
    uint8_t Frames[64];
    const uint8_t* End = NewConnectionId(Frames, Sequence, 0, 0x55);
    ForgeReceive(Connection, Forge(Connection, Route, 0, Frames, (uint16_t)(End - Frames)), 1);
    QUIC_CID_LIST_ENTRY* Again = QuicConnGetDestCidFromSeq(Connection, Sequence, FALSE);
    CHECK(Again != NULL && !Again->CID.Retired);
    for (int i = 0; i < 20 && Path->DestCid != Again; i++) {
        CHECK(QuicConnRetireCurrentDestCid(Connection, Path));
    }
    CHECK(Path->DestCid == Again);
    CHECK(FindRetirement(Loss->LostPackets, Sequence, UINT64_MAX) == First);
    return First;
}
