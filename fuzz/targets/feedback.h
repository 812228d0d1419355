// What the targets in C share: the feedback of gcc for libFuzzer, and checks.
#pragma once
#include "precomp.h"
#include <stdio.h>
#include <stdlib.h>

#define CHECK(X) do { if (!(X)) { fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #X); abort(); } } while (0)

void MsQuicLibraryLoad(void);

// libFuzzer reads the counters, whose section has this name.
__attribute__((section("__libfuzzer_extra_counters"))) static uint8_t Counters[1 << 15];
extern const char __executable_start;

// gcc calls this function at each branch of the library. libFuzzer's own one only reports that it is not supported.
void __wrap___sanitizer_cov_trace_pc(void)
{
    const uint64_t Place = (uint64_t)((const char*)__builtin_return_address(0) - &__executable_start);
    uint8_t* Counter = &Counters[(Place * 0x9e3779b97f4a7c15) >> 49];
    *Counter += *Counter != UINT8_MAX;
}

// gcc calls this one too, and libFuzzer does not have it.
void __sanitizer_cov_trace_cmpd(double A, double B) { (void)A; (void)B; }

// The library cannot close a connection that is only memory.
void __wrap_QuicConnCloseLocally(QUIC_CONNECTION* Closed, uint32_t Flags, uint64_t ErrorCode, const char* Message)
{
    (void)Closed; (void)Flags; (void)ErrorCode; (void)Message;
}
