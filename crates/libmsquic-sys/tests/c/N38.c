// N38: a server replaces its connection IDs only once the client has got those that it has; until then a change of
// processor waits.
#include "forge.h"

static int Done;

// A packet that arrives on another processor than the connection belongs to; tells how many connection IDs are new.
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

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    CHECK(Replaced(Connection, 0, TRUE) == Connection->SourceCidLimit);
    for (uint32_t i = 1; i < 10; i++) {
        const unsigned Count = Replaced(Connection, i, TRUE);
        if (Count != 0) { FAIL("%u connection IDs are replaced that the client has not got", Count); }
    }
    Acknowledge(Connection);
    if (Replaced(Connection, 10, FALSE) != Connection->SourceCidLimit) {
        FAIL("a change of processor that had to wait is forgotten");
    }
    Acknowledge(Connection);
    CHECK(Replaced(Connection, 11, FALSE) == 0); // Each path changes the processor once.
    CHECK(Replaced(Connection, 12, TRUE) == Connection->SourceCidLimit);
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
