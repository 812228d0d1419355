// Passes forged packets to a server's connection, inside its worker. They are not encrypted.
#pragma once
#include "rebind.h"

// Not declared in a header.
QUIC_CID_LIST_ENTRY* QuicConnGetUnusedDestCid(const QUIC_CONNECTION* Connection);
void QuicConnRecvDatagrams(QUIC_CONNECTION*, QUIC_RX_PACKET*, uint32_t, uint32_t, BOOLEAN);

typedef struct FORGED {
    void* IoBlock;              // as in the datapath, so that the packet can be returned to it
    QUIC_RX_PACKET Packet;
} FORGED;

static uint8_t ForgedIoBlock[512];   // its reference count never becomes 0
static const QUIC_CID_HASH_ENTRY* ForgeCid(QUIC_CONNECTION* Connection)
{
    CXPLAT_SLIST_ENTRY* Entry = Connection->SourceCids.Next;
    while (Entry->Next != NULL && !CXPLAT_CONTAINING_RECORD(Entry, QUIC_CID_HASH_ENTRY, Link)->CID.UsedByPeer) {
        Entry = Entry->Next;
    }
    return CXPLAT_CONTAINING_RECORD(Entry, QUIC_CID_HASH_ENTRY, Link);
}

// A 1-RTT packet with a new number (plus Number), from the given route.
static QUIC_RX_PACKET* Forge(
    QUIC_CONNECTION* Connection, CXPLAT_ROUTE* Route, uint32_t Number, const void* Frames, uint16_t Length)
{
    FORGED* F = calloc(1, sizeof(*F));
    uint8_t* Buffer = calloc(1, 2048);
    const QUIC_CID_HASH_ENTRY* Cid = ForgeCid(Connection);
    memset(ForgedIoBlock, 0x11, sizeof(ForgedIoBlock));
    F->IoBlock = ForgedIoBlock;
    QUIC_RX_PACKET* P = &F->Packet;
    Number += 10 + (uint32_t)Connection->Packets[QUIC_ENCRYPT_LEVEL_1_RTT]->NextRecvPacketNumber;
    P->Route = Route;
    P->Buffer = Buffer;
    Buffer[0] = 0x40 | 3 | (uint8_t)(Connection->Packets[QUIC_ENCRYPT_LEVEL_1_RTT]->CurrentKeyPhase << 2);
    memcpy(Buffer + 1, Cid->CID.Data, Cid->CID.Length);
    P->HeaderLength = 1 + Cid->CID.Length;
    for (int i = 0; i < 4; i++) { Buffer[P->HeaderLength + i] = (uint8_t)(Number >> (24 - 8 * i)); }
    memcpy(Buffer + P->HeaderLength + 4, Frames, Length);
    P->BufferLength = P->HeaderLength + 4 + Length;
    P->AvailBuffer = Buffer;
    P->AvailBufferLength = P->BufferLength;
    P->DestCid = Buffer + 1;
    P->DestCidLen = Cid->CID.Length;
    P->PartitionIndex = QuicPartitionIdGetIndex(Connection->PartitionID);
    P->PacketId = 1;
    P->Allocated = TRUE;
    P->QueuedOnConnection = TRUE;
    P->DatapathType = 1; // CXPLAT_DATAPATH_TYPE_NORMAL
    P->ValidatedHeaderInv = TRUE;
    P->IsShortHeader = TRUE;
    P->AssignedToConnection = TRUE;
    return P;
}

static void ForgeReceive(QUIC_CONNECTION* Connection, QUIC_RX_PACKET* Packets, uint32_t Count)
{
    BOOLEAN Hp = Connection->State.HeaderProtectionEnabled;
    BOOLEAN Plain = Connection->State.Disable1RttEncrytion;
    Connection->State.HeaderProtectionEnabled = FALSE;
    Connection->State.Disable1RttEncrytion = TRUE;
    QuicConnRecvDatagrams(Connection, Packets, Count, 100 * Count, FALSE);
    Connection->State.HeaderProtectionEnabled = Hp;
    Connection->State.Disable1RttEncrytion = Plain;
}

// Adds a path at the end of the table as if the client had used it before: its remote port differs
// by Id from that of the active path. It takes an unused connection ID.
static QUIC_PATH* ForgePath(QUIC_CONNECTION* Connection, uint8_t Id)
{
    QUIC_PATH* Path = &Connection->Paths[Connection->PathsCount++];
    *Path = Connection->Paths[0];
    Path->ID = Id;
    Path->IsActive = FALSE;
    Path->IsPeerValidated = FALSE;
    QuicAddrSetPort(&Path->Route.RemoteAddress, (uint16_t)(QuicAddrGetPort(&Path->Route.RemoteAddress) + Id));
    Path->DestCid = QuicConnGetUnusedDestCid(Connection);
    CHECK(Path->DestCid != NULL);
    QUIC_CID_SET_PATH(Connection, Path->DestCid, Path);
    Path->DestCid->CID.UsedLocally = TRUE;
    Connection->NextPathId = (uint8_t)(Id + 1);
    return Path;
}

// A client and a server in one process; the client has connection IDs of its own.
static UNIT_CONN ForgeClient;
static void ForgeOpen(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.DatagramReceiveEnabled = TRUE; S.IsSet.DatagramReceiveEnabled = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    (void)HookListen(ServerConfig, &Port);
    OK(Api->ConnectionOpen(Reg, UnitConnCallback, &ForgeClient, &ForgeClient.Handle));
    uint8_t Share = TRUE;
    OK(Api->SetParam(ForgeClient.Handle, QUIC_PARAM_CONN_SHARE_UDP_BINDING, sizeof(Share), &Share));
    OK(Api->ConnectionStart(ForgeClient.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));
    CHECK(UnitWait(&ForgeClient.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    CHECK(HookSend(&ForgeClient, 2000));
    usleep(20000);
}

// Calls Receive once, inside the worker of the server, and ends the process. Receive sets Done.
static void ForgeRun(void (*Receive)(QUIC_CONNECTION*), const int* Done)
{
    ForgeOpen();
    Hook = Receive;
    CHECK(HookSend(&ForgeClient, 2000) && *Done);
    _exit(0);
}

// Passes a PATH_CHALLENGE or PATH_RESPONSE frame to the server.
static void ForgePathFrame(
    QUIC_CONNECTION* Connection, CXPLAT_ROUTE* Route, QUIC_FRAME_TYPE Type, const QUIC_PATH_CHALLENGE_EX* Frame)
{
    uint8_t Frames[16];
    uint16_t Length = 0;
    CHECK(QuicPathChallengeFrameEncode(Type, Frame, &Length, sizeof(Frames), Frames));
    ForgeReceive(Connection, Forge(Connection, Route, 0, Frames, Length), 1);
}
static __attribute__((unused)) void* const ForgeAll[] = {
    ForgeOpen, ForgePath, ForgePathFrame, ForgeReceive, ForgeRun, Forge };
