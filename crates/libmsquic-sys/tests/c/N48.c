// N48: each thread queries its ID once.
#include "datapath.h"
#include <stdarg.h>

static int Asked;

// This test needs no other system call by this function.
long syscall(long Number, ...)
{
    CHECK(Number == SYS_gettid);
    return 1000 + __atomic_add_fetch(&Asked, 1, __ATOMIC_SEQ_CST);
}

static void* Ask(void* Ids)
{
    for (int i = 0; i < 10; i++) {
        ((uint32_t*)Ids)[i] = CxPlatCurThreadID();
    }
    return NULL;
}

int main(void)
{
    uint32_t Ids[2][10];
    pthread_t Thread;
    alarm(20);
    Ask(Ids[0]);
    CHECK(pthread_create(&Thread, NULL, Ask, Ids[1]) == 0);
    CHECK(pthread_join(Thread, NULL) == 0);
    for (int i = 0; i < 10; i++) {
        CHECK(Ids[0][i] == 1001 && Ids[1][i] == 1002);
    }
    _exit(0);
}
