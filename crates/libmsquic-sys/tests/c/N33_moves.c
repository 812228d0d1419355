// N33: a server follows a client with connection IDs that moves many times before it receives
// anything from the server, whether or not it changes its connection ID, and the connection remains
// usable afterwards.
#include "rebind.h"

#define MOVES 10

static volatile int Heard;

static QUIC_STATUS QUIC_API OnClient(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED) {
        Heard++;
    }
    return UnitConnCallback(Handle, Context, Event);
}

// A socket of the relay towards the server.
static int NewAddress(uint8_t LastByte, struct sockaddr_in* Address)
{
    int Fd = socket(AF_INET, SOCK_DGRAM, 0);
    socklen_t Length = sizeof(*Address);
    memset(Address, 0, sizeof(*Address));
    Address->sin_family = AF_INET;
    Address->sin_addr.s_addr = htonl(INADDR_LOOPBACK + LastByte - 1);
    CHECK(Fd >= 0 && bind(Fd, (struct sockaddr*)Address, Length) == 0);
    CHECK(getsockname(Fd, (struct sockaddr*)Address, &Length) == 0);
    return Fd;
}

static int IsAt(const QUIC_CONNECTION* Server, const struct sockaddr_in* Address)
{
    const QUIC_ADDR* Remote = &Server->Paths[0].Route.RemoteAddress;
    return Remote->Ipv4.sin_port == Address->sin_port &&
        Remote->Ipv4.sin_addr.s_addr == Address->sin_addr.s_addr;
}

// Both sides have connection IDs.
static QUIC_CONNECTION* Connect(UNIT_CONN* C, HQUIC Config)
{
    uint8_t Share = 1;
    memset(&UnitAccepted, 0, sizeof(UnitAccepted));
    OK(Api->ConnectionOpen(Reg, OnClient, C, &C->Handle));
    OK(Api->SetParam(C->Handle, QUIC_PARAM_CONN_SHARE_UDP_BINDING, sizeof(Share), &Share));
    OK(Api->ConnectionStart(C->Handle, Config, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", RebindPort));
    CHECK(UnitWait(&C->Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    CHECK(HookSend(C, 2000));
    QUIC_CONNECTION* Server = (QUIC_CONNECTION*)UnitAccepted.Handle;
    // All connection IDs that the client supplies; the first one is not counted.
    for (int i = 0; i < 2000 && Server->DestCidCount < QUIC_ACTIVE_CONNECTION_ID_LIMIT - 1; i++) { usleep(1000); }
    return Server;
}

// Connection IDs are changed because of moves only, and not endlessly.
static void Settles(const char* Name, UNIT_CONN* C)
{
    QUIC_CONNECTION* Sides[2] = { (QUIC_CONNECTION*)C->Handle, (QUIC_CONNECTION*)UnitAccepted.Handle };
    uint32_t Changes = 0;
    int Rounds = 0;
    for (int i = 0; i < 200 && Rounds < 20; i++) {
        uint32_t Now = Sides[0]->Stats.Misc.DestCidUpdateCount + Sides[1]->Stats.Misc.DestCidUpdateCount;
        Rounds = Now == Changes ? Rounds + 1 : 0;
        Changes = Now;
        CHECK(HookSend(C, 2000));
        usleep(10000);
    }
    if (Rounds < 20) { FAIL("%s: connection IDs change endlessly, %u times", Name, Changes); }
}

// The client moves after it has received the server's change of connection IDs, and before the
// server receives the answer.
static void ChangeDuringMove(HQUIC Config)
{
    UNIT_CONN C = { 0 };
    (void)Connect(&C, Config);
    Settles("before a move", &C);
    RebindMaxToServer = 1;
    OK(Api->SetParam(UnitAccepted.Handle, QUIC_PARAM_CONN_FORCE_CID_UPDATE, 0, NULL));
    int Before = Heard;
    for (int i = 0; i < 500 && Heard < Before + 2; i++) {
        (void)Api->DatagramSend(UnitAccepted.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL);
        usleep(10000);
    }
    CHECK(Heard >= Before + 2);
    RebindUse = !RebindUse;
    RebindMaxToServer = 0;
    CHECK(HookSend(&C, 2000));
    Settles("a change during a move", &C);
    Api->ConnectionClose(C.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
}

// Whether the address, and with it the client's own, changes in a move; otherwise only the port does.
typedef int CHANGES(int Move);
static int Never(int Move) { UNREFERENCED_PARAMETER(Move); return 0; }
static int Always(int Move) { UNREFERENCED_PARAMETER(Move); return 1; }
static int FromTheFourth(int Move) { return Move >= 4; }
static int EverySecond(int Move) { return Move % 2 == 0; }

static void Moves(const char* Name, HQUIC Config, CHANGES* IsOtherAddress, CHANGES* IsOtherCid)
{
    UNIT_CONN C = { 0 };
    QUIC_CONNECTION* Server = Connect(&C, Config);
    struct sockaddr_in Address;
    int Followed = 1;
    RebindDropToClient = 1;
    for (int Move = 1; Move <= MOVES && Followed; Move++) {
        int Next = !RebindUse, Old = RebindServerFd[Next];
        RebindServerFd[Next] = NewAddress((uint8_t)(1 + (IsOtherAddress(Move) ? Move : 0)), &Address);
        close(Old);
        usleep(30000); // The relay polls the new socket from now on.
        RebindUse = Next;
        if (IsOtherCid(Move)) {
            QUIC_ADDR Local = { 0 };
            struct sockaddr_in Unused;
            int Free = NewAddress((uint8_t)(1 + Move), &Unused);
            close(Free);
            Local.Ipv4 = Unused;
            QuicAddrSetPort(&Local, 0);
            OK(Api->SetParam(C.Handle, QUIC_PARAM_CONN_LOCAL_ADDRESS, sizeof(Local), &Local));
        }
        for (Followed = 0; Followed < 300 && !IsAt(Server, &Address); Followed++) {
            (void)Api->DatagramSend(C.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL);
            usleep(10000);
        }
        Followed = Followed < 300;
        if (!Followed) { FAIL("%s: move %d was not followed", Name, Move); }
        if (C.Complete || UnitAccepted.Complete) { FAIL("%s: the connection ended after move %d", Name, Move); }
    }

    RebindDropToClient = 0;
    int Before = Heard;
    // Meanwhile the server may have returned to the last validated path. Then it follows the client
    // again.
    for (int i = 0; i < 500 &&
            !(Heard != Before && Server->Paths[0].IsPeerValidated && IsAt(Server, &Address)); i++) {
        (void)Api->DatagramSend(C.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL);
        (void)Api->DatagramSend(UnitAccepted.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL);
        usleep(10000);
    }
    if (Heard == Before) { FAIL("%s: the client receives nothing any more", Name); }
    if (!Server->Paths[0].IsPeerValidated || !IsAt(Server, &Address)) {
        FAIL("%s: the server is %s the client's address, which is %svalidated", Name,
            IsAt(Server, &Address) ? "at" : "not at", Server->Paths[0].IsPeerValidated ? "" : "not ");
    }

    Settles(Name, &C);
    Api->ConnectionClose(C.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    alarm(120);
    QUIC_SETTINGS S = { 0 };
    S.InitialRttMs = 10; S.IsSet.InitialRttMs = TRUE;
    S.InitialWindowPackets = 1000; S.IsSet.InitialWindowPackets = TRUE; // No acknowledgement arrives.
    S.DatagramReceiveEnabled = TRUE; S.IsSet.DatagramReceiveEnabled = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    HQUIC Listener = HookListen(ServerConfig, &Port);
    UNREFERENCED_PARAMETER(Listener);
    RebindStart(Port);
    Moves("other ports", ClientConfig, Never, Never);
    Moves("other addresses of a NAT", ClientConfig, Always, Never);
    Moves("other addresses", ClientConfig, Always, Always);
    Moves("other ports, then addresses", ClientConfig, FromTheFourth, FromTheFourth);
    Moves("other ports and addresses in turn", ClientConfig, EverySecond, EverySecond);
    ChangeDuringMove(ClientConfig);
    _exit(0);
}
