//
// How many bytes a source file of the TLS library has allocated and not freed.
//
#pragma once
#include "tls.h"
#include "openssl/crypto.h"

static const char* Watched;         // the end of the path of a source file
static volatile long Allocated;
static volatile int AllocationCount;

typedef struct BLOCK {
    size_t Size;
    size_t IsWatched;
} BLOCK;

static void* Allocate(size_t Size, const char* File, int Line)
{
    (void)Line;
    BLOCK* Block = malloc(sizeof(BLOCK) + Size);
    MUST(Block != NULL);
    size_t Length = File ? strlen(File) : 0, End = strlen(Watched);
    Block->Size = Size;
    Block->IsWatched = Length >= End && strcmp(File + Length - End, Watched) == 0;
    if (Block->IsWatched) {
        __atomic_add_fetch(&Allocated, (long)Size, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&AllocationCount, 1, __ATOMIC_SEQ_CST);
    }
    return Block + 1;
}

static void Free(void* Bytes, const char* File, int Line)
{
    (void)File; (void)Line;
    if (Bytes != NULL) {
        BLOCK* Block = (BLOCK*)Bytes - 1;
        if (Block->IsWatched) {
            __atomic_sub_fetch(&Allocated, (long)Block->Size, __ATOMIC_SEQ_CST);
        }
        free(Block);
    }
}

static void* Reallocate(void* Bytes, size_t Size, const char* File, int Line)
{
    void* New = Allocate(Size, File, Line);
    if (Bytes != NULL) {
        size_t Old = ((BLOCK*)Bytes - 1)->Size;
        memcpy(New, Bytes, Old < Size ? Old : Size);
        Free(Bytes, File, Line);
    }
    return New;
}

//
// Call it first: the TLS library accepts it only before its first allocation.
//
static void WatchAllocations(const char* Source)
{
    Watched = Source;
    MUST(CRYPTO_set_mem_functions(Allocate, Reallocate, Free) == 1);
}

//
// Lets the server send so many tickets, and waits until the client has processed them.
//
static inline void SendTickets(int Count)
{
    for (int i = 0; i < Count; i++) {
        ClientSide.TicketLength = 0;
        MUST(QUIC_SUCCEEDED(Api->ConnectionSendResumptionTicket(
            ServerSide.Connection, QUIC_SEND_RESUMPTION_FLAG_NONE, 0, NULL)));
        MUST(WaitFor((volatile int*)&ClientSide.TicketLength, 5000));
    }
    // The event of a ticket comes while the TLS library processes it.
    uint32_t Length = sizeof(QUIC_STATISTICS_V2);
    QUIC_STATISTICS_V2 Statistics;
    MUST(QUIC_SUCCEEDED(Api->GetParam(
        ClientSide.Connection, QUIC_PARAM_CONN_STATISTICS_V2, &Length, &Statistics)));
}
