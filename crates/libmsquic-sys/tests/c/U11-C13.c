// Closing and draining (RFC 9000 10.2): a lost CONNECTION_CLOSE is repeated without a received packet,
// the closing period does not become longer, and a draining endpoint does not answer packets.
#include "unit.h"

static volatile int Armed, DropToClient, DropAllToClient, ToClient, HoldFromClient, HeldCount, Fast;
static struct { int Length; uint8_t Data[1600]; } Held[64];

static int Filter(int FromClient, const uint8_t* Data, int Length)
{
    if (!Fast) { usleep(10000); } // The round-trip time of the path.
    if (FromClient) {
        if (HoldFromClient && HeldCount < 64 && Length <= 1600) {
            memcpy(Held[HeldCount].Data, Data, (size_t)Length);
            Held[HeldCount].Length = Length;
            HeldCount++;
            return 0;
        }
        return 1;
    }
    if (Armed) { ToClient++; }
    if (DropAllToClient) { return 0; }
    if (Armed && DropToClient > 0) { DropToClient--; return 0; }
    return 1;
}

static HQUIC ClientConfig, ServerConfig;
static uint16_t Port;
static UNIT_RELAY R;
static UNIT_CONN C;

static void Start(void)
{
    Armed = DropToClient = DropAllToClient = ToClient = HoldFromClient = HeldCount = Fast = 0;
    memset(&UnitAccepted, 0, sizeof(UnitAccepted));
    memset(&C, 0, sizeof(C));
    UnitRelayStart(&R, Port, Filter);
    UnitConnect(&C, ClientConfig, R.Port);
    CHECK(UnitWait(&C.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    usleep(400000); // Until no packet is in flight.
}

static void Stop(void)
{
    Api->ConnectionClose(C.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
    UnitRelayStop(&R);
}

static int ThreePtoMs(HQUIC Handle)
{
    QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)Handle;
    return (int)(QuicLossDetectionComputeProbeTimeout(
        &Connection->LossDetection, &Connection->Paths[0], QUIC_CLOSE_PTO_COUNT) / 1000);
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.DatagramReceiveEnabled = S.IsSet.DatagramReceiveEnabled = TRUE;
    ClientConfig = UnitClientConfig(&S);
    ServerConfig = UnitServerConfig(&S);
    HQUIC Listener = UnitListen(ServerConfig, &Port);

    // Up to two lost close frames.
    for (int Lost = 1; Lost <= 2; Lost++) {
        Start();
        int Limit = ThreePtoMs(UnitAccepted.Handle) + 200;
        Fast = 1;
        DropToClient = Lost;
        Armed = 1;
        Api->ConnectionShutdown(UnitAccepted.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 7);
        if (!UnitWait(&C.ByPeer, Limit)) { FAIL("no further close frame after %d lost ones", Lost); }
        CHECK(C.PeerError == 7);
        CHECK(UnitWait(&UnitAccepted.Complete, Limit) && UnitWait(&C.Complete, Limit));
        Stop();
    }

    // All lost: the closing period has its usual length, and few frames were sent.
    Start();
    int Expected = ThreePtoMs(UnitAccepted.Handle);
    Fast = DropAllToClient = Armed = 1;
    uint64_t Begin = CxPlatTimeUs64();
    Api->ConnectionShutdown(UnitAccepted.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 7);
    CHECK(UnitWait(&UnitAccepted.Complete, Expected + 1000));
    int Took = (int)((CxPlatTimeUs64() - Begin) / 1000);
    if (Took > Expected + 100) { FAIL("closing took %d ms instead of %d", Took, Expected); }
    usleep(50000);
    if (ToClient != 3) { FAIL("%d close frames instead of 3", ToClient); }
    Api->ConnectionShutdown(C.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_SILENT, 0);
    Stop();

    // The client closes; packets from before that reach the draining server afterwards.
    Start();
    HoldFromClient = 1;
    static uint8_t Payload[1000];
    QUIC_BUFFER Buffer = { sizeof(Payload), Payload };
    for (int i = 0; i < 4; i++) {
        OK(Api->DatagramSend(C.Handle, &Buffer, 1, QUIC_SEND_FLAG_NONE, NULL));
        usleep(15000);
    }
    int Count = HeldCount;
    CHECK(Count >= 4);
    HoldFromClient = 0;
    Fast = DropAllToClient = Armed = 1;
    Api->ConnectionShutdown(C.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 9);
    CHECK(UnitWait(&UnitAccepted.ByPeer, 2000));
    for (int i = 0; i < Count; i++) {
        usleep(6000);
        sendto(R.ServerFd, Held[i].Data, (size_t)Held[i].Length, 0, (struct sockaddr*)&R.Server, sizeof(R.Server));
    }
    int Drained = UnitAccepted.Complete;
    CHECK(UnitWait(&UnitAccepted.Complete, 2000));
    usleep(20000);
    if (Drained) { printf("note: the draining period ended early\n"); }
    if (ToClient > 1) { FAIL("a draining endpoint sent %d packets", ToClient); }
    CHECK(UnitWait(&C.Complete, 2000));
    Stop();

    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ClientConfig);
    Api->ConfigurationClose(ServerConfig);
    UnitClose();
    return 0;
}
