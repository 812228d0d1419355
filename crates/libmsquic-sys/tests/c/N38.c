// N38: a server replaces its connection IDs only after the client has received the current ones and
// retired those that were replaced before; until then a change of processor waits.
#include "forge.h"

static int Done;

// Receives a packet on another processor than that of the connection; returns how many connection
// IDs are new.
static unsigned Replaced(QUIC_CONNECTION* Connection, uint32_t Number, BOOLEAN NewPath)
{
    const uint64_t Before = Connection->NextSourceCidSequenceNumber;
    CXPLAT_ROUTE Route = Connection->Paths[0].Route;
    const uint8_t Ping = QUIC_FRAME_PING;
    QUIC_RX_PACKET* Packet = Forge(Connection, &Route, Number, &Ping, 1);
    Packet->PartitionIndex = (uint16_t)((QuicPartitionIdGetIndex(Connection->PartitionID) + 1) % MsQuicLib.PartitionCount);
    if (NewPath) { Connection->Paths[0].PartitionUpdated = FALSE; }
    ForgeReceive(Connection, Packet, 1);
    Connection->State.UpdateWorker = FALSE; // as if it had moved to that processor
    return (unsigned)(Connection->NextSourceCidSequenceNumber - Before);
}

static void Acknowledge(QUIC_CONNECTION* Connection)
{
    for (CXPLAT_SLIST_ENTRY* Entry = Connection->SourceCids.Next; Entry != NULL; Entry = Entry->Next) {
        CXPLAT_CONTAINING_RECORD(Entry, QUIC_CID_HASH_ENTRY, Link)->CID.Acknowledged = TRUE;
    }
}

static unsigned Retired(QUIC_CONNECTION* Connection)
{
    unsigned Count = 0;
    for (CXPLAT_SLIST_ENTRY* Entry = Connection->SourceCids.Next; Entry != NULL; Entry = Entry->Next) {
        Count += CXPLAT_CONTAINING_RECORD(Entry, QUIC_CID_HASH_ENTRY, Link)->CID.Retired;
    }
    return Count;
}

// A packet with RETIRE_CONNECTION_ID for each connection ID that was replaced.
static void Retire(QUIC_CONNECTION* Connection, uint32_t Number)
{
    uint8_t Frames[128], *End = Frames;
    for (CXPLAT_SLIST_ENTRY* Entry = Connection->SourceCids.Next; Entry != NULL; Entry = Entry->Next) {
        const QUIC_CID_HASH_ENTRY* Cid = CXPLAT_CONTAINING_RECORD(Entry, QUIC_CID_HASH_ENTRY, Link);
        if (Cid->CID.Retired) {
            CHECK(End + 9 <= Frames + sizeof(Frames));
            *End++ = QUIC_FRAME_RETIRE_CONNECTION_ID;
            End = QuicVarIntEncode(Cid->CID.SequenceNumber, End);
        }
    }
    CXPLAT_ROUTE Route = Connection->Paths[0].Route;
    ForgeReceive(Connection, Forge(Connection, &Route, Number, Frames, (uint16_t)(End - Frames)), 1);
    CHECK(Retired(Connection) == 0);
}

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    CHECK(Replaced(Connection, 0, TRUE) == Connection->SourceCidLimit);
    for (uint32_t i = 1; i < 10; i++) {
        const unsigned Count = Replaced(Connection, i, TRUE);
        if (Count != 0) { FAIL("%u connection IDs are replaced that the client has not received", Count); }
    }
    for (uint32_t i = 10; i < 20; i++) {
        Acknowledge(Connection);
        if (Replaced(Connection, i, TRUE) != 0) {
            FAIL("connection IDs are replaced while %u wait to be retired", Retired(Connection));
        }
    }
    Retire(Connection, 20);
    if (Replaced(Connection, 21, FALSE) != Connection->SourceCidLimit) {
        FAIL("a change of processor that had to wait is lost");
    }
    Acknowledge(Connection);
    Retire(Connection, 22);
    CHECK(Replaced(Connection, 23, FALSE) == 0); // Each path changes the processor once.
    CHECK(Replaced(Connection, 24, TRUE) == Connection->SourceCidLimit);
    Done = 1;
}

int main(void)
{
    ForgeOpen();
    if (MsQuicLib.PartitionCount < 2) { _exit(0); } // There is one processor.
    Hook = Receive;
    CHECK(HookSend(&ForgeClient, 2000) && Done);
    _exit(0);
}
