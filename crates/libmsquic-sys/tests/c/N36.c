// N36: a path is validated only by the response to its challenge, not by a response of zeros before
// a challenge was sent.
#include "forge.h"

static int Done;

static void Receive(QUIC_CONNECTION* Connection)
{
    Hook = NULL;
    CXPLAT_ROUTE Route = Connection->Paths[0].Route;
    QuicAddrSetPort(&Route.RemoteAddress, QuicAddrGetPort(&Route.RemoteAddress) ^ 1);
    const QUIC_PATH_CHALLENGE_EX Zero = { { 0 } };
    uint8_t Frames[16];
    uint16_t Length = 0;
    CHECK(QuicPathChallengeFrameEncode(QUIC_FRAME_PATH_RESPONSE, &Zero, &Length, sizeof(Frames), Frames));
    Frames[Length++] = QUIC_FRAME_PING;
    ForgeReceive(Connection, Forge(Connection, &Route, 0, Frames, Length), 1);
    QUIC_PATH* Path = &Connection->Paths[0];
    CHECK(QuicAddrCompare(&Path->Route.RemoteAddress, &Route.RemoteAddress));
    if (Path->IsPeerValidated) { FAIL("zeros validated an address that was not challenged"); }
    CHECK(Path->Allowance != UINT32_MAX);

    // The challenge was generated meanwhile; its response validates the path.
    QUIC_PATH_CHALLENGE_EX Response;
    memcpy(Response.Data, Path->Challenge, sizeof(Response.Data));
    Length = 0;
    CHECK(QuicPathChallengeFrameEncode(QUIC_FRAME_PATH_RESPONSE, &Response, &Length, sizeof(Frames), Frames));
    ForgeReceive(Connection, Forge(Connection, &Route, 1, Frames, Length), 1);
    CHECK(Connection->Paths[0].IsPeerValidated);
    Done = 1;
}

int main(void)
{
    ForgeRun(Receive, &Done);
}
