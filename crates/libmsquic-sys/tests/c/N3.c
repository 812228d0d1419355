//
// Built with the stubs only, the tracing header must say that nothing is
// enabled, and the work that only feeds the log must not be done.
//
#include "precomp.h"

static unsigned Calls;

static void
CountLogOutFlowStatus(
    const QUIC_CONGESTION_CONTROL* Cc
    )
{
    (void)Cc;
    Calls++;
}

int main(void)
{
    int Result = 0;
    alarm(20);

#define MUST_BE_FALSE(X) if (X) { printf("N3: " #X " is TRUE in a build without logging\n"); Result = 1; }
    MUST_BE_FALSE(QuicTraceEventEnabled(ConnOutFlowStats));
    MUST_BE_FALSE(QuicTraceLogErrorEnabled());
    MUST_BE_FALSE(QuicTraceLogWarningEnabled());
    MUST_BE_FALSE(QuicTraceLogInfoEnabled());
    MUST_BE_FALSE(QuicTraceLogVerboseEnabled());
    MUST_BE_FALSE(QuicTraceLogStreamVerboseEnabled());

    //
    // Called for each sent packet and each ACK; walks all open streams.
    //
    QUIC_CONNECTION* Connection = calloc(1, sizeof(*Connection));
    CxPlatListInitializeHead((CXPLAT_LIST_ENTRY*)&Connection->Streams.WaitingStreams);
    Connection->CongestionControl.QuicCongestionControlLogOutFlowStatus = CountLogOutFlowStatus;
    QuicConnLogOutFlowStats(Connection);
    if (Calls != 0) {
        printf("N3: flow control statistics are computed in a build without logging\n");
        Result = 1;
    }
    free(Connection);
    return Result;
}
