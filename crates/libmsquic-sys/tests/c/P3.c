// An ACK frame that ends inside its ECN counts is a FRAME_ENCODING_ERROR.
#include "forge.h"

static int Pass;
static void TestHook(QUIC_CONNECTION* Connection)
{
    if (Pass++ != 0) { return; }
    // Acknowledges packet 0; the third ECN count is missing.
    static const uint8_t Frame[] = { 0x03, 0, 0, 0, 0, 0, 0 };
    ForgeReceive(Connection, Forge(Connection, &Connection->Paths[0].Route, 0, Frame, sizeof(Frame)), 1);
    if (!Connection->State.ClosedLocally) { FAIL("the connection was not closed"); }
    CHECK(Connection->CloseErrorCode == QUIC_ERROR_FRAME_ENCODING_ERROR);
}

int main(void)
{
    ForgeOpen();
    Hook = TestHook;
    CHECK(HookSend(&ForgeClient, 5000));
    CHECK(UnitWait(&ForgeClient.Complete, 5000) && UnitWait(&UnitAccepted.Complete, 5000));
    _exit(0); // the forged packets are not freed
}
