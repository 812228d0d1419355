// N37: a late acknowledgement does not free the connection ID that the active path keeps because the peer has
// retired it and supplied no other.
#include "retire.h"

static int Done;

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    QUIC_LOSS_DETECTION* Loss = &Connection->LossDetection;
    QUIC_PATH* Path = &Connection->Paths[0];
    CXPLAT_ROUTE Route = Path->Route;
    const uint64_t Sequence = Path->DestCid->CID.SequenceNumber;
    const uint64_t First = ReuseConnectionId(Connection, &Route);
    const QUIC_CID_LIST_ENTRY* Again = Path->DestCid;

    // The peer retires all but the latest one, which has been in use before, so that there is no other.
    const uint64_t Latest = LatestConnectionId(Connection);
    CHECK(Latest > Sequence);
    uint8_t Frames[64];
    const uint8_t* End = NewConnectionId(Frames, Latest, Latest, 0x66);
    ForgeReceive(Connection, Forge(Connection, &Route, 0, Frames, (uint16_t)(End - Frames)), 1);
    CHECK(Connection->State.ClosedLocally && Path->DestCid == Again && Again->CID.Retired);
    CHECK(FindRetirement(Loss->LostPackets, Sequence, UINT64_MAX) == First);

    Acknowledge(Connection, First, &Route);
    CHECK(FindRetirement(Loss->LostPackets, Sequence, UINT64_MAX) == UINT64_MAX);
    if (QuicConnGetDestCidFromSeq(Connection, Sequence, FALSE) != Path->DestCid) {
        FAIL("the connection ID of the active path was freed");
    }
    Done = 1;
}

int main(void)
{
    ForgeRun(Receive, &Done);
}
