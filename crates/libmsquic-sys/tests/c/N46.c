// N46: a packet that probes the path MTU has a PING frame only; data of the same flush is in another packet.
#include "rebind.h"

static HQUIC Stream;
static volatile int Completed, Done;
static QUIC_STATUS QUIC_API StreamCallback(HQUIC Handle, void* Context, QUIC_STREAM_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Handle);
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_STREAM_EVENT_SEND_COMPLETE) { Completed++; }
    return QUIC_STATUS_SUCCESS;
}

static QUIC_STATUS QUIC_API ClientCallback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_PEER_STREAM_STARTED) {
        Api->SetCallbackHandler(Event->PEER_STREAM_STARTED.Stream, (void*)StreamCallback, NULL);
    }
    return UnitConnCallback(Handle, Context, Event);
}

static void Flush(QUIC_CONNECTION* Connection)
{
    static const QUIC_BUFFER Data = { 5, (uint8_t*)"bytes" };
    if (Done) { return; }
    QuicSendFlush(&Connection->Send);
    uint64_t First = Connection->Send.NextPacketNumber;
    OK(Api->StreamSend(Stream, &Data, 1, QUIC_SEND_FLAG_NONE, NULL));
    QuicStreamSendFlush((QUIC_STREAM*)Stream);
    Connection->Paths[0].MtuDiscovery.ProbeSize = Connection->Paths[0].Mtu;
    QuicSendSetSendFlag(&Connection->Send, QUIC_CONN_SEND_FLAG_DPLPMTUD);
    QuicSendFlush(&Connection->Send);

    int Probes = 0, Streams = 0;
    for (QUIC_SENT_PACKET_METADATA* P = Connection->LossDetection.SentPackets; P != NULL; P = P->Next) {
        if (P->PacketNumber < First) { continue; }
        if (P->Flags.IsMtuProbe) {
            Probes++;
            CHECK(P->FrameCount == 1 && P->Frames[0].Type == QUIC_FRAME_PING);
        }
        for (int i = 0; i < P->FrameCount; i++) { Streams += P->Frames[i].Type == QUIC_FRAME_STREAM; }
    }
    CHECK(Probes == 1 && Streams == 1);
    Done = 1;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    S.DatagramReceiveEnabled = TRUE; S.IsSet.DatagramReceiveEnabled = TRUE;
    S.PeerUnidiStreamCount = 1; S.IsSet.PeerUnidiStreamCount = TRUE;
    S.SendBufferingEnabled = FALSE; S.IsSet.SendBufferingEnabled = TRUE;
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    (void)HookListen(ServerConfig, &Port);
    UNIT_CONN Client = { 0 };
    UnitConnect(&Client, ClientConfig, Port);
    CHECK(UnitWait(&Client.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    Api->SetCallbackHandler(Client.Handle, (void*)ClientCallback, &Client);

    static const QUIC_BUFFER Begin = { 5, (uint8_t*)"begin" };
    OK(Api->StreamOpen(UnitAccepted.Handle, QUIC_STREAM_OPEN_FLAG_UNIDIRECTIONAL, StreamCallback, NULL, &Stream));
    OK(Api->StreamStart(Stream, QUIC_STREAM_START_FLAG_NONE));
    OK(Api->StreamSend(Stream, &Begin, 1, QUIC_SEND_FLAG_NONE, NULL));
    CHECK(UnitWait(&Completed, 5000));
    Hook = Flush;
    CHECK(HookSend(&Client, 5000) && Done);
    _exit(0);
}
