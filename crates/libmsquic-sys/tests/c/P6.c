// A HANDSHAKE_DONE frame that arrives before the client has sent its Finished message is a
// PROTOCOL_VIOLATION.
#include "unit.h"

BOOLEAN QuicConnRecvFrames(QUIC_CONNECTION*, QUIC_PATH*, QUIC_RX_PACKET*, CXPLAT_ECN_TYPE);

static UNIT_CONN Client;
static volatile int Tried;
static QUIC_STATUS QUIC_API Callback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_CONNECTED && !Tried) {
        // The Finished message is queued, but the worker sends it only later.
        QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)Handle;
        static uint8_t Frame[] = { QUIC_FRAME_HANDSHAKE_DONE };
        static QUIC_RX_PACKET Packet;
        Packet.AvailBuffer = Frame;
        Packet.AvailBufferLength = Packet.PayloadLength = sizeof(Frame);
        Packet.KeyType = QUIC_PACKET_KEY_1_RTT;
        Packet.IsShortHeader = TRUE;
        Packet.PacketNumber = 0;
        Packet.PacketId = 1;
        Tried = 1;
        CHECK(Connection->Crypto.MaxSentLength < Connection->Crypto.TlsState.BufferOffset1Rtt);
        (void)QuicConnRecvFrames(Connection, &Connection->Paths[0], &Packet, CXPLAT_ECN_NON_ECT);
        if (!Connection->State.ClosedLocally) { FAIL("the client took the frame"); }
        CHECK(Connection->CloseErrorCode == QUIC_ERROR_PROTOCOL_VIOLATION);
        CHECK(!Connection->State.HandshakeConfirmed);
    }
    return UnitConnCallback(Handle, Context, Event);
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    HQUIC ServerConfig = UnitServerConfig(&S), ClientConfig = UnitClientConfig(&S);
    uint16_t Port;
    HQUIC Listener = UnitListen(ServerConfig, &Port);

    // In order, the handshake is confirmed as usual.
    UNIT_CONN Plain = { 0 };
    UnitConnect(&Plain, ClientConfig, Port);
    CHECK(UnitWait(&Plain.Connected, 5000) && UnitWait(&UnitAccepted.Connected, 5000));
    for (int i = 0; i < 2000 && !((QUIC_CONNECTION*)Plain.Handle)->State.HandshakeConfirmed; i++) { usleep(1000); }
    CHECK(((QUIC_CONNECTION*)Plain.Handle)->State.HandshakeConfirmed && !Plain.ByTransport);
    HQUIC First = UnitAccepted.Handle;

    OK(Api->ConnectionOpen(Reg, Callback, &Client, &Client.Handle));
    OK(Api->ConnectionStart(Client.Handle, ClientConfig, QUIC_ADDRESS_FAMILY_INET, "127.0.0.1", Port));
    CHECK(UnitWait(&Tried, 5000) && UnitWait(&Client.Complete, 10000));

    Api->ConnectionClose(Plain.Handle);
    Api->ConnectionClose(Client.Handle);
    Api->ConnectionClose(First);
    Api->ConnectionClose(UnitAccepted.Handle);
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ClientConfig);
    Api->ConfigurationClose(ServerConfig);
    UnitClose();
    return 0;
}
