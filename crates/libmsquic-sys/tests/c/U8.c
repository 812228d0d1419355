// The client's first Handshake packet discards its Initial keys, whatever it carries: a client
// whose congestion window is full of Initial bytes that are never acknowledged still completes the
// handshake.
#include "unit.h"

#define INITIALS 12
static UNIT_RELAY R;
static int ClientInitials, HeldCount;
static struct { int Length; uint8_t Data[1600]; } Held[8];

// Holds the server's first flight until the client has retransmitted its Initials often enough to fill
// the window; that flight acknowledges only the first ones. Later Initials of the server are lost.
static int Filter(int FromClient, const uint8_t* Data, int Length)
{
    const int Initial = (Data[0] & 0xf0) == 0xc0;
    if (FromClient) {
        if (Initial && ++ClientInitials == INITIALS) {
            for (int i = 0; i < HeldCount; i++) {
                (void)!sendto(R.ClientFd, Held[i].Data, (size_t)Held[i].Length, 0,
                    (struct sockaddr*)&R.Client, sizeof(R.Client));
            }
        }
        return 1;
    }
    if (ClientInitials < INITIALS) {
        if (ClientInitials <= 3 && HeldCount < 8 && Length <= 1600) {
            memcpy(Held[HeldCount].Data, Data, (size_t)Length);
            Held[HeldCount].Length = Length;
            HeldCount++;
        }
        return 0;
    }
    return !Initial;
}

int main(void)
{
    UnitOpen(QUIC_EXECUTION_PROFILE_LOW_LATENCY);
    QUIC_SETTINGS S = { 0 };
    HQUIC ServerConfig = UnitServerConfig(&S);
    S.InitialWindowPackets = 3;
    S.IsSet.InitialWindowPackets = TRUE;
    S.InitialRttMs = 20;
    S.IsSet.InitialRttMs = TRUE;
    // A long list of protocols makes a ClientHello of three packets.
    static uint8_t Name[250];
    memset(Name, 'x', sizeof(Name));
    QUIC_BUFFER Alpns[10] = { Alpn };
    for (int i = 1; i < 10; i++) { Alpns[i].Length = sizeof(Name); Alpns[i].Buffer = Name; }
    HQUIC ClientConfig;
    OK(Api->ConfigurationOpen(Reg, Alpns, 10, &S, sizeof(S), NULL, &ClientConfig));
    QUIC_CREDENTIAL_CONFIG Cred = { 0 };
    Cred.Type = QUIC_CREDENTIAL_TYPE_NONE;
    Cred.Flags = QUIC_CREDENTIAL_FLAG_CLIENT | QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION;
    OK(Api->ConfigurationLoadCredential(ClientConfig, &Cred));
    uint16_t Port;
    HQUIC Listener = UnitListen(ServerConfig, &Port);
    UnitRelayStart(&R, Port, Filter);
    UNIT_CONN C = { 0 };
    UnitConnect(&C, ClientConfig, R.Port);
    if (!UnitWait(&UnitAccepted.Connected, 4000)) {
        FAIL("the handshake does not complete; client connected: %d, Initials sent: %d", C.Connected, ClientInitials);
    }
    Api->ConnectionShutdown(C.Handle, QUIC_CONNECTION_SHUTDOWN_FLAG_NONE, 0);
    CHECK(UnitWait(&C.Complete, 2000));
    Api->ConnectionClose(C.Handle);
    Api->ConnectionClose(UnitAccepted.Handle);
    UnitRelayStop(&R);
    Api->ListenerClose(Listener);
    Api->ConfigurationClose(ClientConfig);
    Api->ConfigurationClose(ServerConfig);
    UnitClose();
    return 0;
}
