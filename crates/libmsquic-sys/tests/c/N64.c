// N64: a port that has one socket gets no filter that distributes its packets among sockets.
#define DP_OWN_SETSOCKOPT
#include "datapath.h"

static int Filters;

int setsockopt(int Fd, int Level, int Name, const void* Value, socklen_t Length)
{
    if (Level == SOL_SOCKET && Name == SO_ATTACH_REUSEPORT_CBPF) ADD(Filters, 1);
    return (int)syscall(SYS_setsockopt, Fd, Level, Name, Value, Length);
}

int main(void)
{
    DpOpen("127.0.0.1");
    DpClose();
    if (Filters != 0) FAIL("%d filters", Filters);
    return 0;
}
