// The number of workers and their pinning must respect the inherited CPU mask.
#include "datapath.h"

static const int Allowed[] = { 2, 5, 7 };
static int Current;
static int Pinned[64], PinnedCount, Outside = -1;

int sched_getaffinity(pid_t Pid, size_t Size, cpu_set_t* Set)
{
    (void)Pid;
    memset(Set, 0, Size);
    for (int i = 0; i < 3; i++) CPU_SET_S(Allowed[i], Size, Set);
    return 0;
}

int sched_getcpu(void) { return Current; }

static int Pin(size_t Size, const cpu_set_t* Set)
{
    for (int Cpu = 0; Cpu < 64; Cpu++) {
        if (!CPU_ISSET_S(Cpu, Size, Set)) continue;
        if (Cpu != 2 && Cpu != 5 && Cpu != 7) Outside = Cpu;
        Pinned[Cpu] = 1;
    }
    PinnedCount++;
    return 0;
}

int pthread_setaffinity_np(pthread_t Thread, size_t Size, const cpu_set_t* Set) { (void)Thread; return Pin(Size, Set); }
int pthread_attr_setaffinity_np(pthread_attr_t* Attr, size_t Size, const cpu_set_t* Set) { (void)Attr; return Pin(Size, Set); }

int main(void)
{
    alarm(20);
    MsQuicLibraryLoad();
    OK(CxPlatInitialize());
    if (CxPlatProcCount() != 3) FAIL("%u workers for a mask of 3 CPUs", CxPlatProcCount());
    for (Current = 0; Current < 2000; Current++)
        if (CxPlatProcCurrentNumber() >= 3) FAIL("processor %u on CPU %d", CxPlatProcCurrentNumber(), Current);
    for (uint32_t i = 0; i < 3; i++) {
        Current = Allowed[i];
        if (CxPlatProcCurrentNumber() != i) FAIL("processor %u on CPU %d", CxPlatProcCurrentNumber(), Current);
    }
    QUIC_GLOBAL_EXECUTION_CONFIG Config = { QUIC_GLOBAL_EXECUTION_CONFIG_FLAG_AFFINITIZE, 0, 0, { 0 } };
    CHECK((Pool = CxPlatWorkerPoolCreate(&Config)) != NULL);
    CHECK(CxPlatWorkerPoolGetCount(Pool) == 3);
    CxPlatWorkerPoolDelete(Pool);
    if (Outside >= 0) FAIL("a thread is pinned to CPU %d, outside of the mask", Outside);
    CHECK(PinnedCount >= 3 && Pinned[2] && Pinned[5] && Pinned[7]);
    CxPlatUninitialize();
    MsQuicLibraryUnload();
    return 0;
}
