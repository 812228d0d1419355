// N33: a connection that is closed because its peer retired all connection IDs does not follow the peer with a
// retired one.
#include "retire.h"

static int Done;

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    CXPLAT_ROUTE Real = Connection->Paths[0].Route, Probed = Real, New = Real;
    QuicAddrSetPort(&Probed.RemoteAddress, QuicAddrGetPort(&Real.RemoteAddress) ^ 1);
    QuicAddrSetPort(&New.RemoteAddress, QuicAddrGetPort(&Real.RemoteAddress) ^ 2);
    const uint8_t Ping = QUIC_FRAME_PING;
    const QUIC_PATH_CHALLENGE_EX Challenge = { { 1 } };
    ForgePathFrame(Connection, &Probed, QUIC_FRAME_PATH_CHALLENGE, &Challenge);
    CHECK(Connection->PathsCount == 2 && Connection->Paths[1].DestCid == Connection->Paths[0].DestCid);

    // All others have been in use.
    for (CXPLAT_LIST_ENTRY* Entry = Connection->DestCids.Flink; Entry != &Connection->DestCids; Entry = Entry->Flink) {
        CXPLAT_CONTAINING_RECORD(Entry, QUIC_CID_LIST_ENTRY, Link)->CID.UsedLocally = TRUE;
    }
    const uint64_t Latest = LatestConnectionId(Connection);
    CHECK(Latest > Connection->Paths[0].DestCid->CID.SequenceNumber);
    uint8_t Frames[64];
    const uint8_t* End = NewConnectionId(Frames, Latest, Latest, 0x66);
    QUIC_RX_PACKET* Packets = Forge(Connection, &Real, 0, Frames, (uint16_t)(End - Frames));
    QUIC_RX_PACKET* Second = Forge(Connection, &Probed, 1, &Ping, 1);
    Packets->Next = (CXPLAT_RECV_DATA*)Second;
    Second->Next = (CXPLAT_RECV_DATA*)Forge(Connection, &New, 2, &Ping, 1);
    ForgeReceive(Connection, Packets, 3);
    CHECK(Connection->State.ClosedLocally && Connection->Paths[0].DestCid->CID.Retired);
    if (!QuicAddrCompare(&Connection->Paths[0].Route.RemoteAddress, &Real.RemoteAddress)) {
        FAIL("the closed connection has moved");
    }
    Done = 1;
}

int main(void)
{
    ForgeRun(Receive, &Done);
}
