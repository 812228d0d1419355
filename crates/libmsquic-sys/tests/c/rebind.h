// A client behind a relay whose address towards the server can change, and a hook that runs
// inside the server's connection worker.
#pragma once
#include "unit.h"

static int RebindClientFd, RebindServerFd[2]; // the relay's sockets towards the client and the server
static uint16_t RebindPort;
static struct sockaddr_in RebindClient, RebindServer;
static volatile int RebindUse;       // the socket that sends the client's datagrams to the server
static volatile int RebindMaxToServer, RebindMaxToClient; // longer datagrams are dropped; 0: no limit
static volatile int RebindDropToClient;
static volatile int RebindStop;
static pthread_t RebindThread;

static void* RebindRun(void* Context)
{
    static uint8_t Data[65536];
    UNREFERENCED_PARAMETER(Context);
    while (!RebindStop) {
        struct pollfd P[3] = {
            { RebindClientFd, POLLIN, 0 }, { RebindServerFd[0], POLLIN, 0 }, { RebindServerFd[1], POLLIN, 0 } };
        if (poll(P, 3, 20) <= 0) { continue; }
        for (int i = 0; i < 3; i++) {
            if (!(P[i].revents & POLLIN)) { continue; }
            struct sockaddr_in From;
            socklen_t FromLength = sizeof(From);
            // A test may have closed the socket, and its number may be that of another one.
            int n = (int)recvfrom(P[i].fd, Data, sizeof(Data), MSG_DONTWAIT, (struct sockaddr*)&From, &FromLength);
            if (n < 0) { continue; }
            if (i == 0) {
                RebindClient = From;
                if (RebindMaxToServer != 0 && n > RebindMaxToServer) { continue; }
                (void)!sendto(RebindServerFd[RebindUse], Data, (size_t)n, 0,
                    (struct sockaddr*)&RebindServer, sizeof(RebindServer));
            } else {
                if (RebindDropToClient || (RebindMaxToClient != 0 && n > RebindMaxToClient)) { continue; }
                (void)!sendto(RebindClientFd, Data, (size_t)n, 0,
                    (struct sockaddr*)&RebindClient, sizeof(RebindClient));
            }
        }
    }
    return NULL;
}

static void RebindStart(uint16_t ServerPort)
{
    uint16_t Unused;
    RebindClientFd = UnitUdp(&RebindPort);
    RebindServerFd[0] = UnitUdp(&Unused);
    RebindServerFd[1] = UnitUdp(&Unused);
    RebindServer.sin_family = AF_INET;
    RebindServer.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    RebindServer.sin_port = htons(ServerPort);
    CHECK(pthread_create(&RebindThread, NULL, RebindRun, NULL) == 0);
}

// The server calls the hook in its worker whenever a QUIC datagram arrives.
static void (*Hook)(QUIC_CONNECTION* Connection);
static volatile int Hooked;

static QUIC_STATUS QUIC_API HookConnCallback(HQUIC Handle, void* Context, QUIC_CONNECTION_EVENT* Event)
{
    if (Event->Type == QUIC_CONNECTION_EVENT_DATAGRAM_RECEIVED) {
        if (Hook != NULL) { Hook((QUIC_CONNECTION*)Handle); }
        Hooked++;
    }
    return UnitConnCallback(Handle, Context, Event);
}

static QUIC_STATUS QUIC_API HookListenerCallback(HQUIC Listener, void* Context, QUIC_LISTENER_EVENT* Event)
{
    UNREFERENCED_PARAMETER(Listener);
    UNREFERENCED_PARAMETER(Context);
    if (Event->Type == QUIC_LISTENER_EVENT_NEW_CONNECTION) {
        UnitAccepted.Handle = Event->NEW_CONNECTION.Connection;
        Api->SetCallbackHandler(UnitAccepted.Handle, (void*)HookConnCallback, &UnitAccepted);
        return Api->ConnectionSetConfiguration(UnitAccepted.Handle, UnitAcceptConfig);
    }
    return QUIC_STATUS_SUCCESS;
}

static HQUIC HookListen(HQUIC Config, uint16_t* Port)
{
    HQUIC Listener;
    UnitAcceptConfig = Config;
    OK(Api->ListenerOpen(Reg, HookListenerCallback, NULL, &Listener));
    QUIC_ADDR Addr = { 0 };
    QuicAddrSetFamily(&Addr, QUIC_ADDRESS_FAMILY_INET);
    OK(Api->ListenerStart(Listener, &Alpn, 1, &Addr));
    uint32_t Size = sizeof(Addr);
    OK(Api->GetParam(Listener, QUIC_PARAM_LISTENER_LOCAL_ADDRESS, &Size, &Addr));
    *Port = QuicAddrGetPort(&Addr);
    return Listener;
}

static const QUIC_BUFFER HookData = { 4, (uint8_t*)"hook" };

// Sends QUIC datagrams until the server has seen one more; returns whether it has.
static int HookSend(UNIT_CONN* C, int Ms)
{
    int Before = Hooked;
    for (int i = 0; i < Ms && Hooked == Before; i++) {
        if (i % 20 == 0) { (void)Api->DatagramSend(C->Handle, &HookData, 1, QUIC_SEND_FLAG_NONE, NULL); }
        usleep(1000);
    }
    return Hooked != Before;
}

static __attribute__((unused)) void* const RebindAll[] = { RebindStart, HookListen, HookSend };
