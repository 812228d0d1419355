// #6102: the server's Initial CRYPTO data was declared lost and waits (e.g. for amplification credit)
// until the lost packet is forgotten; then the client's Handshake packet discards the Initial keys.
// Nothing is left to send then, so the CRYPTO flag must be cleared: a flush that writes no frame
// asserts.
#include "unit.h"
#include <signal.h>

static void Aborted(int Signal) { (void)Signal; printf("asserted while writing CRYPTO frames\n"); fflush(stdout); _exit(1); }

int main(void)
{
    alarm(20);
    signal(SIGABRT, Aborted);
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(CxPlatInitialize()));
    QUIC_CONNECTION* C = calloc(1, sizeof(*C));
    QUIC_PARTITION* Partition = calloc(1, sizeof(*Partition));
    CxPlatPoolInitialize(FALSE, sizeof(QUIC_PACKET_SPACE), QUIC_POOL_TP, &Partition->PacketSpacePool);
    C->Type = QUIC_HANDLE_TYPE_CONNECTION_SERVER;
    C->Partition = Partition;
    C->Stats.QuicVersion = QUIC_VERSION_1;
    QuicLossDetectionInitialize(&C->LossDetection); // no packet is outstanding any more
    OK(QuicPacketSpaceInitialize(C, QUIC_ENCRYPT_LEVEL_INITIAL, &C->Packets[QUIC_ENCRYPT_LEVEL_INITIAL]));
    OK(QuicPacketSpaceInitialize(C, QUIC_ENCRYPT_LEVEL_1_RTT, &C->Packets[QUIC_ENCRYPT_LEVEL_1_RTT]));

    QUIC_CRYPTO* Y = &C->Crypto;
    QuicRangeInitialize(QUIC_MAX_RANGE_ALLOC_SIZE, &Y->SparseAckRanges);
    Y->TlsState.Buffer = calloc(1, 8192);
    Y->TlsState.BufferAllocLength = 8192;
    Y->TlsState.BufferLength = 1000;
    Y->TlsState.BufferTotalLength = Y->MaxSentLength = Y->NextSendOffset = 1000;
    Y->TlsState.BufferOffsetHandshake = 90;
    Y->TlsState.BufferOffset1Rtt = 1000;
    Y->TlsState.WriteKey = QUIC_PACKET_KEY_1_RTT;
    Y->TlsState.WriteKeys[QUIC_PACKET_KEY_INITIAL] = CXPLAT_ALLOC_NONPAGED(sizeof(QUIC_PACKET_KEY), QUIC_POOL_TLS_KEY);
    memset(Y->TlsState.WriteKeys[QUIC_PACKET_KEY_INITIAL], 0, sizeof(QUIC_PACKET_KEY));

    QUIC_SENT_FRAME_METADATA Lost = { 0 };
    Lost.CRYPTO.Length = 90;
    Y->RecoveryNextOffset = 90;
    C->Send.SendFlags = QUIC_CONN_SEND_FLAG_CRYPTO; // already set, so no flush is queued here
    CHECK(QuicCryptoOnLoss(Y, &Lost) && QuicCryptoHasPendingCryptoFrame(Y));

    CHECK(QuicCryptoDiscardKeys(Y, QUIC_PACKET_KEY_INITIAL));
    CHECK(!QuicCryptoHasPendingCryptoFrame(Y));
    if (C->Send.SendFlags & QUIC_CONN_SEND_FLAG_CRYPTO) {
        QUIC_MAX_SENT_PACKET_METADATA Meta;
        uint8_t Packet[1200];
        QUIC_BUFFER Datagram = { sizeof(Packet), Packet };
        QUIC_PACKET_BUILDER B;
        memset(&Meta, 0, sizeof(Meta));
        memset(&B, 0, sizeof(B));
        B.Connection = C;
        B.Path = &C->Paths[0];
        B.Metadata = &Meta.Metadata;
        B.Datagram = &Datagram;
        B.EncryptionOverhead = 16;
        B.DatagramLength = 30;
        B.EncryptLevel = QUIC_ENCRYPT_LEVEL_1_RTT;
        B.PacketType = SEND_PACKET_SHORT_HEADER_TYPE;
        B.SendAllowance = 12000;
        C->Paths[0].Allowance = UINT32_MAX;
        extern BOOLEAN QuicSendWriteFrames(QUIC_SEND* Send, QUIC_PACKET_BUILDER* Builder);
        QuicSendWriteFrames(&C->Send, &B);
        FAIL("the CRYPTO flag stays set although nothing is left to send");
    }
    QuicPacketSpaceUninitialize(C->Packets[QUIC_ENCRYPT_LEVEL_1_RTT]);
    QuicRangeUninitialize(&Y->SparseAckRanges);
    CxPlatPoolUninitialize(&Partition->PacketSpacePool);
    free(Y->TlsState.Buffer);
    free(Partition);
    free(C);
    CxPlatUninitialize();
    MsQuicLibraryUnload();
    return 0;
}
