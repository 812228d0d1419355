// What libmsquic parses before it knows the sender, or from a peer: frames, packet headers, transport parameters,
// tickets, the ClientHello, version information and numbers. The first byte of an input selects the parser.
//
// No parser reads beyond its input, which AddressSanitizer checks, or moves its offset beyond it. What was parsed is
// written by the library's own encoder; parsed again, it is written as the same bytes.
#include "feedback.h"

// Where what was parsed is written, twice.
static uint8_t First[UINT16_MAX], Second[UINT16_MAX];
static QUIC_CONNECTION* Connection;
static QUIC_RANGE Acknowledged;

int LLVMFuzzerInitialize(int* Count, char*** Arguments)
{
    (void)Count; (void)Arguments;
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(CxPlatInitialize()));
    MsQuicLib.CidTotalLength = 9;
    Connection = calloc(1, sizeof(*Connection));
    CHECK(Connection != NULL);
    MsQuicLib.Partitions = calloc(1, sizeof(*MsQuicLib.Partitions)); // counts dropped packets
    CHECK(MsQuicLib.Partitions != NULL);
    Connection->Stats.QuicVersion = QUIC_VERSION_1;
    QuicRangeInitialize(QUIC_MAX_RANGE_DECODE_ACKS, &Acknowledged);
    return 0;
}

static void SetServer(BOOLEAN IsServer)
{
    ((QUIC_HANDLE*)Connection)->Type = IsServer ? QUIC_HANDLE_TYPE_CONNECTION_SERVER : QUIC_HANDLE_TYPE_CONNECTION_CLIENT;
}

//
// Frames
//

#define FRAME(NAME, STRUCT) { \
    STRUCT Frame; \
    if (!Quic##NAME##FrameDecode(Length, In, Offset, &Frame)) { return FALSE; } \
    CHECK(Quic##NAME##FrameEncode(&Frame, Written, UINT16_MAX, Out)); \
    return TRUE; }

#define TYPED_FRAME(NAME, STRUCT) { \
    STRUCT Frame; \
    if (!Quic##NAME##FrameDecode(Type, Length, In, Offset, &Frame)) { return FALSE; } \
    CHECK(Quic##NAME##FrameEncode(&Frame, Written, UINT16_MAX, Out)); \
    return TRUE; }

// Parses the frame whose type was read, and writes it to Out. The types are those of QuicConnRecvFrames.
static BOOLEAN Frame(QUIC_FRAME_TYPE Type, uint16_t Length, const uint8_t* In, uint16_t* Offset, uint8_t* Out, uint16_t* Written)
{
    switch (Type) {
    case QUIC_FRAME_ACK:
    case QUIC_FRAME_ACK_1: {
        BOOLEAN IsInvalid;
        QUIC_ACK_ECN_EX Ecn;
        uint64_t Delay;
        QuicRangeReset(&Acknowledged);
        if (!QuicAckFrameDecode(Type, Length, In, Offset, &IsInvalid, &Acknowledged, &Ecn, &Delay)) { return FALSE; }
        CHECK(QuicAckFrameEncode(&Acknowledged, Delay, Type == QUIC_FRAME_ACK ? NULL : &Ecn, Written, UINT16_MAX, Out));
        return TRUE;
    }
    case QUIC_FRAME_RESET_STREAM: FRAME(ResetStream, QUIC_RESET_STREAM_EX)
    case QUIC_FRAME_RELIABLE_RESET_STREAM: FRAME(ReliableReset, QUIC_RELIABLE_RESET_STREAM_EX)
    case QUIC_FRAME_STOP_SENDING: FRAME(StopSending, QUIC_STOP_SENDING_EX)
    case QUIC_FRAME_CRYPTO: FRAME(Crypto, QUIC_CRYPTO_EX)
    case QUIC_FRAME_NEW_TOKEN: FRAME(NewToken, QUIC_NEW_TOKEN_EX)
    case QUIC_FRAME_STREAM:
    case QUIC_FRAME_STREAM_1:
    case QUIC_FRAME_STREAM_2:
    case QUIC_FRAME_STREAM_3:
    case QUIC_FRAME_STREAM_4:
    case QUIC_FRAME_STREAM_5:
    case QUIC_FRAME_STREAM_6:
    case QUIC_FRAME_STREAM_7: {
        QUIC_STREAM_EX Frame = { 0 };
        if (!QuicStreamFrameDecode(Type, Length, In, Offset, &Frame)) { return FALSE; }
        CHECK(Frame.Data + Frame.Length == In + *Offset);
        uint8_t* Data = Out + QuicStreamFrameHeaderSize(&Frame); // The encoder expects the data there.
        memcpy(Data, Frame.Data, Frame.Length);
        Frame.Data = Data;
        CHECK(QuicStreamFrameEncode(&Frame, Written, UINT16_MAX, Out));
        return TRUE;
    }
    case QUIC_FRAME_MAX_DATA: FRAME(MaxData, QUIC_MAX_DATA_EX)
    case QUIC_FRAME_MAX_STREAM_DATA: FRAME(MaxStreamData, QUIC_MAX_STREAM_DATA_EX)
    case QUIC_FRAME_MAX_STREAMS:
    case QUIC_FRAME_MAX_STREAMS_1: TYPED_FRAME(MaxStreams, QUIC_MAX_STREAMS_EX)
    case QUIC_FRAME_DATA_BLOCKED: FRAME(DataBlocked, QUIC_DATA_BLOCKED_EX)
    case QUIC_FRAME_STREAM_DATA_BLOCKED: FRAME(StreamDataBlocked, QUIC_STREAM_DATA_BLOCKED_EX)
    case QUIC_FRAME_STREAMS_BLOCKED:
    case QUIC_FRAME_STREAMS_BLOCKED_1: TYPED_FRAME(StreamsBlocked, QUIC_STREAMS_BLOCKED_EX)
    case QUIC_FRAME_NEW_CONNECTION_ID: FRAME(NewConnectionID, QUIC_NEW_CONNECTION_ID_EX)
    case QUIC_FRAME_RETIRE_CONNECTION_ID: FRAME(RetireConnectionID, QUIC_RETIRE_CONNECTION_ID_EX)
    case QUIC_FRAME_PATH_CHALLENGE:
    case QUIC_FRAME_PATH_RESPONSE: {
        QUIC_PATH_CHALLENGE_EX Frame;
        if (!QuicPathChallengeFrameDecode(Length, In, Offset, &Frame)) { return FALSE; }
        CHECK(QuicPathChallengeFrameEncode(Type, &Frame, Written, UINT16_MAX, Out));
        return TRUE;
    }
    case QUIC_FRAME_CONNECTION_CLOSE:
    case QUIC_FRAME_CONNECTION_CLOSE_1: {
        QUIC_CONNECTION_CLOSE_EX Frame;
        if (!QuicConnCloseFrameDecode(Type, Length, In, Offset, &Frame)) { return FALSE; }
        CHECK(QuicConnCloseFrameEncode(&Frame, Written, UINT16_MAX, Out));
        return TRUE;
    }
    case QUIC_FRAME_DATAGRAM:
    case QUIC_FRAME_DATAGRAM_1: {
        QUIC_DATAGRAM_EX Frame;
        if (!QuicDatagramFrameDecode(Type, Length, In, Offset, &Frame)) { return FALSE; }
        CHECK(Frame.Data + Frame.Length == In + *Offset);
        const QUIC_BUFFER Data = { (uint32_t)Frame.Length, (uint8_t*)Frame.Data };
        CHECK(QuicDatagramFrameEncodeEx(&Data, 1, Frame.Length, Written, UINT16_MAX, Out));
        return TRUE;
    }
    case QUIC_FRAME_ACK_FREQUENCY: FRAME(AckFrequency, QUIC_ACK_FREQUENCY_EX)
    case QUIC_FRAME_TIMESTAMP: FRAME(Timestamp, QUIC_TIMESTAMP_EX)
    default: // PADDING, PING, HANDSHAKE_DONE and IMMEDIATE_ACK have nothing but their type.
        *Written = (uint16_t)(QuicVarIntEncode(Type, Out) - Out);
        return TRUE;
    }
}

static BOOLEAN IsOfStream(uint64_t Type)
{
    return (Type >= QUIC_FRAME_STREAM && Type <= QUIC_FRAME_STREAM_7) || Type == QUIC_FRAME_RESET_STREAM ||
        Type == QUIC_FRAME_RELIABLE_RESET_STREAM || Type == QUIC_FRAME_STOP_SENDING ||
        Type == QUIC_FRAME_MAX_STREAM_DATA || Type == QUIC_FRAME_STREAM_DATA_BLOCKED;
}

static void Frames(const uint8_t* In, uint16_t Length, uint16_t Offset)
{
    while (Offset < Length) {
        const uint16_t Start = Offset;
        uint64_t Type = 0, Again = 0, StreamId;
        uint16_t Written = 0, Rewritten = 0, End = 0;
        if (!QuicVarIntDecode(Length, In, &Offset, &Type) || !QUIC_FRAME_IS_KNOWN(Type)) { return; }
        uint16_t Skipped = Offset;
        const BOOLEAN IsPeeked = QuicStreamFramePeekID(Length, In, Offset, &StreamId);
        const BOOLEAN IsSkipped = QuicStreamFrameSkip((QUIC_FRAME_TYPE)Type, Length, In, &Skipped);
        const BOOLEAN IsValid = Frame((QUIC_FRAME_TYPE)Type, Length, In, &Offset, First, &Written);
        CHECK(Offset > Start && Offset <= Length);
        CHECK(IsSkipped == (IsValid && IsOfStream(Type)));
        CHECK(!IsSkipped || (IsPeeked && Skipped == Offset));
        if (!IsValid) { return; }
        CHECK(QuicVarIntDecode(Written, First, &End, &Again));
        CHECK(Frame((QUIC_FRAME_TYPE)Again, Written, First, &End, Second, &Rewritten));
        CHECK(End == Written && Rewritten == Written && memcmp(First, Second, Written) == 0);
    }
}

//
// Packet headers
//

typedef struct CID {
    QUIC_CID Cid;
    uint8_t Data[QUIC_MAX_CONNECTION_ID_LENGTH_V1];
} CID;

static const QUIC_CID* Cid(CID* To, const uint8_t* Data, uint8_t Length)
{
    memset(To, 0, sizeof(*To));
    To->Cid.Length = Length;
    memcpy(To->Cid.Data, Data, Length);
    return &To->Cid;
}

// Writes a long header with the fields of the packet, which must be parsed as the same.
static void LongHeaderAgain(const QUIC_RX_PACKET* Packet, BOOLEAN IsServer, const uint8_t* Token, uint16_t TokenLength)
{
    CID Destination, Source;
    uint16_t LengthOffset, Ignored;
    uint8_t NumberLength;
    const uint16_t Length = QuicPacketEncodeLongHeaderV1(
        Packet->LH->Version, Packet->LH->Type, Packet->LH->FixedBit,
        Cid(&Destination, Packet->DestCid, Packet->DestCidLen), Cid(&Source, Packet->SourceCid, Packet->SourceCidLen),
        TokenLength, Token, 7, UINT16_MAX, First, &LengthOffset, &NumberLength);
    CHECK(Length != 0);
    const uint16_t Payload = (uint16_t)(Packet->PayloadLength % 0x1000 + QUIC_MIN_INITIAL_PACKET_LENGTH);
    QuicVarIntEncode2Bytes(Payload, First + LengthOffset);
    QUIC_RX_PACKET Again = { .AssignedToConnection = TRUE };
    const uint8_t* TokenAgain = NULL;
    Again.AvailBuffer = First;
    Again.AvailBufferLength = (uint16_t)(Length - NumberLength + Payload);
    CHECK(QuicPacketValidateInvariant(Connection, &Again, TRUE));
    CHECK(QuicPacketValidateLongHeaderV1(Connection, IsServer, &Again, &TokenAgain, &Ignored, TRUE));
    CHECK(Again.PayloadLength == Payload && Again.HeaderLength == Length - NumberLength && Ignored == TokenLength);
    CHECK(Again.DestCidLen == Packet->DestCidLen && Again.SourceCidLen == Packet->SourceCidLen);
    CHECK(memcmp(Again.DestCid, Packet->DestCid, Again.DestCidLen) == 0);
    CHECK(memcmp(Again.SourceCid, Packet->SourceCid, Again.SourceCidLen) == 0);
    CHECK(TokenLength == 0 || memcmp(TokenAgain, Token, TokenLength) == 0);
}

// A Retry packet, as QuicConnRecvRetry reads it.
static void Retry(const QUIC_RX_PACKET* Packet)
{
    uint8_t Tag[QUIC_RETRY_INTEGRITY_TAG_LENGTH_V1];
    if (Packet->AvailBufferLength - Packet->HeaderLength <= QUIC_RETRY_INTEGRITY_TAG_LENGTH_V1) { return; }
    for (uint32_t i = 0; i < ARRAYSIZE(QuicSupportedVersionList); i++) {
        if (QuicSupportedVersionList[i].Number == Packet->LH->Version) {
            CHECK(QUIC_SUCCEEDED(QuicPacketGenerateRetryIntegrity(
                &QuicSupportedVersionList[i], Packet->DestCidLen, Packet->DestCid,
                Packet->AvailBufferLength - QUIC_RETRY_INTEGRITY_TAG_LENGTH_V1, Packet->AvailBuffer, Tag)));
        }
    }
}

// A Version Negotiation packet, as QuicConnRecvVerNeg reads it. It is called with lists that it reads and discards:
// after others it closes or restarts the connection, of which there is none here.
static void VersionNegotiation(const QUIC_RX_PACKET* Packet)
{
    const uint8_t* End = Packet->AvailBuffer + Packet->AvailBufferLength;
    const uint8_t* SourceCid = Packet->VerNeg->DestCid + Packet->VerNeg->DestCidLength;
    const uint8_t* Versions = SourceCid + 1 + *SourceCid;
    CHECK(Versions <= End);
    for (; End - Versions >= (ptrdiff_t)sizeof(uint32_t); Versions += sizeof(uint32_t)) {
        uint32_t Version;
        memcpy(&Version, Versions, sizeof(Version));
        if (Version != Connection->Stats.QuicVersion) { continue; }
        QUIC_CID_LIST_ENTRY* Entry = calloc(1, sizeof(*Entry) + UINT8_MAX);
        CHECK(Entry != NULL);
        Entry->CID.Length = Packet->SourceCidLen;
        memcpy(Entry->CID.Data, Packet->SourceCid, Packet->SourceCidLen);
        CxPlatListInitializeHead(&Connection->DestCids);
        CxPlatListInsertTail(&Connection->DestCids, &Entry->Link);
        QuicConnRecvVerNeg(Connection, Packet);
        CHECK(!Connection->Stats.VersionNegotiation);
        CxPlatListInitializeHead(&Connection->DestCids);
        free(Entry);
        return;
    }
}

// The packets of a datagram, as QuicConnRecvDatagrams and QuicConnRecvHeader read them.
static void Packets(const uint8_t* In, uint16_t Length, BOOLEAN IsServer, BOOLEAN IsShared, BOOLEAN IgnoreFixedBit)
{
    QUIC_RX_PACKET Packet = { .AssignedToConnection = TRUE };
    Packet.AvailBuffer = In;
    do {
        const uint8_t* Token = NULL, * TokenAgain = NULL;
        uint16_t TokenLength = 0, LengthAgain = 0;
        Packet.ValidatedHeaderInv = Packet.ValidatedHeaderVer = FALSE;
        Packet.AvailBufferLength = (uint16_t)(In + Length - Packet.AvailBuffer);
        if (!QuicPacketValidateInvariant(Connection, &Packet, IsShared)) { return; }
        CHECK(Packet.HeaderLength <= Packet.AvailBufferLength);
        if (Packet.IsShortHeader) {
            if (QuicPacketValidateShortHeaderV1(Connection, &Packet, IgnoreFixedBit)) {
                CHECK(Packet.HeaderLength + Packet.PayloadLength == Packet.AvailBufferLength);
            }
            return;
        }
        QuicPacketIsHandshake(Packet.Invariant);
        if (Packet.Invariant->LONG_HDR.Version == QUIC_VERSION_VER_NEG && !IsServer) {
            VersionNegotiation(&Packet);
            return;
        }
        if (!QuicIsVersionSupported(Packet.LH->Version)) { return; }
        if (Packet.LH->Type == (Packet.LH->Version == QUIC_VERSION_2 ? QUIC_RETRY_V2 : QUIC_RETRY_V1)) {
            Retry(&Packet);
            return;
        }
        if (!QuicPacketValidateLongHeaderV1(Connection, IsServer, &Packet, &Token, &TokenLength, IgnoreFixedBit)) {
            return;
        }
        CHECK(Packet.AvailBufferLength == Packet.HeaderLength + Packet.PayloadLength);
        CHECK(Packet.AvailBufferLength <= In + Length - Packet.AvailBuffer);
        LongHeaderAgain(&Packet, IsServer, Token, TokenLength);
        if (Token != NULL) {
            QuicPacketDecodeRetryTokenV1(&Packet, &TokenAgain, &LengthAgain);
            CHECK(TokenAgain == Token && LengthAgain == TokenLength);
        }
        Packet.AvailBuffer += Packet.AvailBufferLength;
    } while (Packet.AvailBuffer < In + Length);
}

//
// TLS: transport parameters, tickets, the ClientHello
//

// Writes transport parameters, which must be parsed as the same.
static void ParametersAgain(BOOLEAN IsServer, const QUIC_TRANSPORT_PARAMETERS* Parameters)
{
    QUIC_TRANSPORT_PARAMETERS Again = { 0 }, Copy = { 0 };
    uint32_t Length = 0, LengthAgain = 0;
    const uint8_t* Bytes = QuicCryptoTlsEncodeTransportParameters(Connection, IsServer, Parameters, NULL, &Length);
    CHECK(Bytes != NULL);
    CHECK(QuicCryptoTlsDecodeTransportParameters(
        Connection, IsServer, Bytes + CxPlatTlsTPHeaderSize, (uint16_t)(Length - CxPlatTlsTPHeaderSize), &Again));
    CHECK(Again.Flags == Parameters->Flags);
    if (Again.VersionInfo == NULL) { Again.Flags &= ~QUIC_TP_FLAG_VERSION_NEGOTIATION; }
    CHECK(QUIC_SUCCEEDED(QuicCryptoTlsCopyTransportParameters(&Again, &Copy)));
    Copy.Flags = Parameters->Flags;
    QuicCryptoTlsCleanupTransportParameters(&Again);
    const uint8_t* BytesAgain = QuicCryptoTlsEncodeTransportParameters(Connection, IsServer, &Copy, NULL, &LengthAgain);
    CHECK(BytesAgain != NULL && LengthAgain == Length);
    CHECK(memcmp(Bytes + CxPlatTlsTPHeaderSize, BytesAgain + CxPlatTlsTPHeaderSize, Length - CxPlatTlsTPHeaderSize) == 0);
    QuicCryptoTlsCleanupTransportParameters(&Copy);
    CXPLAT_FREE(Bytes, QUIC_POOL_TLS_TRANSPARAMS);
    CXPLAT_FREE(BytesAgain, QUIC_POOL_TLS_TRANSPARAMS);
}

static void Parameters(const uint8_t* In, uint16_t Length, BOOLEAN IsServer)
{
    QUIC_TRANSPORT_PARAMETERS Parsed = { 0 };
    QUIC_VERSION_INFORMATION_V1 Versions;
    if (QuicCryptoTlsDecodeTransportParameters(Connection, IsServer, In, Length, &Parsed)) {
        ParametersAgain(IsServer, &Parsed);
        SetServer(!IsServer); // the side that receives them
        if ((Parsed.Flags & QUIC_TP_FLAG_VERSION_NEGOTIATION) &&
            QUIC_SUCCEEDED(QuicVersionNegotiationExtParseVersionInfo(
                Connection, Parsed.VersionInfo, (uint16_t)Parsed.VersionInfoLength, &Versions))) {
            CHECK(Parsed.VersionInfoLength == (1 + Versions.AvailableVersionsCount) * sizeof(uint32_t));
        }
    }
    QuicCryptoTlsCleanupTransportParameters(&Parsed);
}

// What a server finds in a ticket that it has decrypted.
static void ServerTicket(const uint8_t* In, uint16_t Length)
{
    static const uint8_t Protocols[] = "\x04test\x02h3";
    QUIC_TRANSPORT_PARAMETERS Parsed = { 0 }, Again = { 0 };
    const uint8_t* Data, * DataAgain;
    uint32_t DataLength, DataLengthAgain, TicketLength;
    uint8_t* Ticket;
    SetServer(TRUE);
    if (QUIC_SUCCEEDED(QuicCryptoDecodeServerTicket(
            Connection, Length, In, Protocols, sizeof(Protocols) - 1, &Parsed, &Data, &DataLength))) {
        CHECK(QUIC_SUCCEEDED(QuicCryptoEncodeServerTicket(
            Connection, QUIC_VERSION_1, DataLength, Data, &Parsed, 2, (const uint8_t*)"h3", &Ticket, &TicketLength)));
        CHECK(QUIC_SUCCEEDED(QuicCryptoDecodeServerTicket(
            Connection, (uint16_t)TicketLength, Ticket, Protocols, sizeof(Protocols) - 1, &Again, &DataAgain, &DataLengthAgain)));
        CHECK(DataLengthAgain == DataLength && (DataLength == 0 || memcmp(DataAgain, Data, DataLength) == 0));
        CHECK((Again.Flags & ~Parsed.Flags) == 0);
        QuicCryptoTlsCleanupTransportParameters(&Again);
        CXPLAT_FREE(Ticket, QUIC_POOL_SERVER_CRYPTO_TICKET);
    }
    QuicCryptoTlsCleanupTransportParameters(&Parsed);
}

// What a program gives a client to resume with.
static void ClientTicket(const uint8_t* In, uint16_t Length)
{
    QUIC_TRANSPORT_PARAMETERS Parsed = { 0 }, Again = { 0 };
    uint32_t DataLength, DataLengthAgain, TicketLength, Version, VersionAgain;
    uint8_t* Data = NULL, * DataAgain = NULL;
    const uint8_t* Ticket;
    SetServer(FALSE);
    if (QUIC_SUCCEEDED(QuicCryptoDecodeClientTicket(Connection, Length, In, &Parsed, &Data, &DataLength, &Version))) {
        CHECK(QUIC_SUCCEEDED(QuicCryptoEncodeClientTicket(
            Connection, DataLength, Data, &Parsed, Version, &Ticket, &TicketLength)));
        CHECK(QUIC_SUCCEEDED(QuicCryptoDecodeClientTicket(
            Connection, (uint16_t)TicketLength, Ticket, &Again, &DataAgain, &DataLengthAgain, &VersionAgain)));
        CHECK(DataLengthAgain == DataLength && (DataLength == 0 || memcmp(DataAgain, Data, DataLength) == 0));
        CHECK(VersionAgain == Version && (Again.Flags & ~Parsed.Flags) == 0);
        QuicCryptoTlsCleanupTransportParameters(&Again);
        CXPLAT_FREE(Ticket, QUIC_POOL_CLIENT_CRYPTO_TICKET);
        if (DataAgain != NULL) { CXPLAT_FREE(DataAgain, QUIC_POOL_CRYPTO_RESUMPTION_TICKET); }
    }
    if (Data != NULL) { CXPLAT_FREE(Data, QUIC_POOL_CRYPTO_RESUMPTION_TICKET); }
    QuicCryptoTlsCleanupTransportParameters(&Parsed);
}

static BOOLEAN IsWithin(const void* Field, uint16_t FieldLength, const uint8_t* In, uint32_t Length)
{
    return (const uint8_t*)Field >= In && (const uint8_t*)Field + FieldLength <= In + Length;
}

static void ClientHello(const uint8_t* In, uint32_t Length)
{
    QUIC_NEW_CONNECTION_INFO Info = { 0 };
    QUIC_TLS_SECRETS Secrets;
    SetServer(TRUE);
    const uint32_t Complete = QuicCryptoTlsGetCompleteTlsMessagesLength(In, Length);
    CHECK(Complete <= Length);
    if (QuicCryptoTlsReadInitial(Connection, In, Length, &Info) == QUIC_STATUS_SUCCESS) {
        CHECK(Complete == Length);
        CHECK(IsWithin(Info.ClientAlpnList, Info.ClientAlpnListLength, In, Length));
        CHECK(Info.ServerName == NULL || IsWithin(Info.ServerName, Info.ServerNameLength, In, Length));
        CxPlatTlsAlpnFindInList(Info.ClientAlpnListLength, Info.ClientAlpnList, 4, (const uint8_t*)"test");
        QuicCryptoTlsReadClientRandom(In, Length, &Secrets);
    }
    QuicCryptoTlsCleanupTransportParameters(&Connection->PeerTransportParams);
}

//
// Numbers
//

static void Numbers(const uint8_t* In, uint16_t Length)
{
    uint64_t Expected = 0, Value, Again = 0;
    uint16_t Offset = 0, End;
    while (QuicVarIntDecode(Length, In, &Offset, &Value)) {
        CHECK(Offset <= Length && Value <= QUIC_VAR_INT_MAX);
        End = 0;
        const uint16_t Written = (uint16_t)(QuicVarIntEncode(Value, First) - First);
        CHECK(Written == QuicVarIntSize(Value) && Written <= Offset);
        CHECK(QuicVarIntDecode(Written, First, &End, &Again) && End == Written && Again == Value);
        // A packet number has the low bytes that were sent, and is the nearest such number to the expected one.
        for (uint8_t Bytes = 1; Bytes <= 4; Bytes++) {
            const uint64_t Window = 1ULL << (8 * Bytes), Sent = Value & (Window - 1);
            Again = 0;
            QuicPktNumEncode(Sent, Bytes, First);
            QuicPktNumDecode(Bytes, First, &Again);
            CHECK(Again == Sent);
            const uint64_t Number = QuicPktNumDecompress(Expected, Sent, Bytes);
            CHECK((Number & (Window - 1)) == Sent);
            CHECK((Number > Expected ? Number - Expected : Expected - Number) <= Window / 2 || Number < Window);
        }
        Expected = Value;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t* In, size_t Size)
{
    static uint8_t Large[UINT16_MAX];
    if (Size < 1 || Size > 0x3000) { return -1; }
    const uint8_t Selected = *In++;
    const uint16_t Length = (uint16_t)(Size - 1);
    const BOOLEAN Option = (Selected & 8) != 0;
    switch (Selected & 7) {
    case 0:
        if (Option) { // at the end of the longest payload, where an offset may overflow
            memcpy(Large + sizeof(Large) - Length, In, Length);
            Frames(Large, sizeof(Large), (uint16_t)(sizeof(Large) - Length));
        } else {
            Frames(In, Length, 0);
        }
        break;
    case 1: Packets(In, Length, Option, (Selected & 16) != 0, (Selected & 32) != 0); break;
    case 2: Parameters(In, Length, Option); break;
    case 3: ServerTicket(In, Length); break;
    case 4: ClientTicket(In, Length); break;
    case 5: ClientHello(In, Length); break;
    case 6: Numbers(In, Length); break;
    default: return -1;
    }
    return 0;
}
