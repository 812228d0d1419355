// A datagram that no longer fits in any packet is cancelled, and does not keep the connection from
// sending; no datagram is longer than the peer's max_udp_payload_size allows.
#include "forge.h"

static volatile int Canceled, Sent, Step, MaxSendLength;
static QUIC_STATUS QUIC_API Callback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    QUIC_CONNECTION* Connection = (QUIC_CONNECTION*)Handle;
    if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_SEND_STATE_CHANGED) {
        if (Event->DATAGRAM_SEND_STATE_CHANGED.State == QUIC_DATAGRAM_SEND_CANCELED) { Canceled++; }
        if (Event->DATAGRAM_SEND_STATE_CHANGED.State == QUIC_DATAGRAM_SEND_SENT) { Sent++; }
    } else if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_STATE_CHANGED) {
        MaxSendLength = Event->DATAGRAM_STATE_CHANGED.MaxSendLength;
    } else if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED && Step++ == 0) {
        // Long datagrams are queued, and then the packets become shorter, as on another path.
        static uint8_t Data[1500];
        static const QUIC_BUFFER Buffer = { 1200, Data };
        static const QUIC_BUFFER Short = { 10, Data };
        Connection->Paths[0].Mtu = 1500;
        QuicDatagramOnSendStateChanged(&Connection->Datagram);
        OK(Api->DatagramSend(Handle, &Buffer, 1, QUIC_SEND_FLAG_DGRAM_PRIORITY, (void*)1));
        OK(Api->DatagramSend(Handle, &Buffer, 1, QUIC_SEND_FLAG_NONE, (void*)2));
        OK(Api->DatagramSend(Handle, &Short, 1, QUIC_SEND_FLAG_NONE, (void*)3));
        QuicDatagramSendFlush(&Connection->Datagram);
        Connection->Paths[0].Mtu = QUIC_DPLPMTUD_MIN_MTU;

        Connection->PeerTransportParams.Flags |= QUIC_TP_FLAG_MAX_UDP_PAYLOAD_SIZE;
        Connection->PeerTransportParams.MaxUdpPayloadSize = 1200;
    } else if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED && Step == 2) {
        QuicDatagramOnSendStateChanged(&Connection->Datagram);
    }
    return UnitConnCallback(Handle, Context, Event);
}

int main(void)
{
    ForgeOpen();
    Api->SetCallbackHandler(UnitAccepted.Handle, (void*)Callback, &UnitAccepted);
    OK(Api->DatagramSend(ForgeClient.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL));
    CHECK(UnitWait(&Step, 3000));
    if (!UnitWait(&Sent, 1000)) { FAIL("no datagram is sent any more"); }
    if (Canceled != 2) { FAIL("%d datagrams were cancelled, not 2", Canceled); }

    OK(Api->DatagramSend(ForgeClient.Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL));
    for (int i = 0; i < 1000 && Step < 2; i++) { usleep(1000); }
    usleep(20000);
    if (MaxSendLength <= 1000 || MaxSendLength > 1200 - 1 - 4 - 16 - 3) {
        FAIL("datagrams of %d bytes are allowed", MaxSendLength);
    }
    Api->ConnectionClose(ForgeClient.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
    _exit(0);
}
