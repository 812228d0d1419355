// N37: a late acknowledgement of a retirement does not free a connection ID that is in use again.
#include "retire.h"

static int Done;

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    QUIC_PATH* Path = &Connection->Paths[0];
    CXPLAT_ROUTE Route = Path->Route;
    const uint64_t Sequence = Path->DestCid->CID.SequenceNumber;
    const uint64_t First = ReuseConnectionId(Connection, &Route);

    Acknowledge(Connection, First, &Route);
    CHECK(FindRetirement(Connection->LossDetection.LostPackets, Sequence, UINT64_MAX) == UINT64_MAX);
    if (QuicConnGetDestCidFromSeq(Connection, Sequence, FALSE) != Path->DestCid) {
        FAIL("the connection ID of the active path was freed");
    }
    Done = 1;
}

int main(void)
{
    ForgeRun(Receive, &Done);
}
