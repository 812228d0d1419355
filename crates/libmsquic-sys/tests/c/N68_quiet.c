// A connection that has nothing more to send is limited by its application, whatever its streams are.
#include "forge.h"

static int Started, Done;
static void TestHook(QUIC_CONNECTION* Connection)
{
    QUIC_CONGESTION_CONTROL* Cc = &Connection->CongestionControl;
    if (!Started) {
        Connection->Settings.CongestionControlAlgorithm = QUIC_CONGESTION_CONTROL_ALGORITHM_BBR;
        QuicCongestionControlInitialize(Cc, &Connection->Settings);
        CHECK(!QuicCongestionControlIsAppLimited(Cc));
        Started = 1;
    } else if (QuicCongestionControlIsAppLimited(Cc)) {
        Done = 1;
    }
}

int main(void)
{
    ForgeOpen();
    Hook = TestHook;
    for (int i = 0; i < 20 && !Done; i++) {
        CHECK(HookSend(&ForgeClient, 2000)); // the server only acknowledges
        usleep(20000);
    }
    CHECK(Done);
    _exit(0);
}
