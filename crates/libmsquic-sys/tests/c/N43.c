// N43: a packet received on another processor, followed by one from another address on the
// processor of the connection, neither moves the connection nor replaces its connection IDs.
#include "forge.h"

static int Done;

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    const uint16_t Own = QuicPartitionIdGetIndex(Connection->PartitionID);
    const uint64_t Before = Connection->NextSourceCidSequenceNumber;
    CXPLAT_ROUTE First = Connection->Paths[0].Route, Second = ForgePath(Connection, 101)->Route;
    const uint8_t Ping = QUIC_FRAME_PING;
    QUIC_RX_PACKET* Packet = Forge(Connection, &First, 0, &Ping, 1);
    Packet->PartitionIndex = (uint16_t)((Own + 1) % MsQuicLib.PartitionCount);
    Packet->Next = (CXPLAT_RECV_DATA*)Forge(Connection, &Second, 1, &Ping, 1);
    ForgeReceive(Connection, Packet, 2);
    CHECK(Connection->Paths[0].ID == 101);
    if (Connection->NextSourceCidSequenceNumber != Before) { FAIL("connection IDs are replaced although the connection does not move"); }
    CHECK(!Connection->State.UpdateWorker && QuicPartitionIdGetIndex(Connection->PartitionID) == Own);
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
