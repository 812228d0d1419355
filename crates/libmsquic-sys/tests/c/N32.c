//
// N32: both ends export the same keying material (RFC 8446, section 7.5), which differs by label,
// context and connection.
//
#include "tls.h"

// The private parameter and its structure, as the patch has them.
#define KEYING_MATERIAL 0x05F00001
typedef struct MATERIAL {
    const uint8_t* Label;
    const uint8_t* Context;
    uint8_t* Output;
    uint32_t LabelLength, ContextLength, OutputLength;
} MATERIAL;

static QUIC_STATUS Export(
    HQUIC Connection, const char* Label, const char* Context, uint8_t* Output, uint32_t OutputLength)
{
    MATERIAL Material = {
        (const uint8_t*)Label, (const uint8_t*)Context, Output,
        (uint32_t)strlen(Label), (uint32_t)strlen(Context), OutputLength
    };
    uint32_t Length = sizeof(Material);
    memset(Output, 0, OutputLength);
    return Api->GetParam(Connection, KEYING_MATERIAL, &Length, &Material);
}

//
// The value without a secret: the TLS library's answer with an exporter secret of zeros.
//
static int IsConstant(const uint8_t* Output)
{
    static uint8_t Before[32];
    int Same = memcmp(Before, Output, sizeof(Before)) == 0;
    memcpy(Before, Output, sizeof(Before));
    return Same;
}

int main(void)
{
    StartLibrary();
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    StartListener();
    HQUIC ClientConfig = OpenConfig(1, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    for (int Round = 0; Round < 3; Round++) {
        ResetSides();
        HQUIC Unused;
        uint8_t Early[32];
        MUST(QUIC_SUCCEEDED(Api->ConnectionOpen(Registration, OnConnection, &ClientSide, &Unused)));
        CHECK(QUIC_FAILED(Export(Unused, "label", "", Early, 32)), "exported before the handshake");
        Api->ConnectionClose(Unused);
        ResetSides();

        Connect(ClientConfig, 0);
        MUST(WaitFor(&ClientSide.Connected, 5000) && WaitFor(&ServerSide.Connected, 5000));
        static const struct { const char *Label, *Context; uint32_t Length; } Cases[] = {
            { "EXPERIMENTAL one", "", 32 },
            { "EXPERIMENTAL one", "context", 32 },
            { "EXPERIMENTAL two", "context", 32 },
            { "EXPERIMENTAL two", "context", 1000 },
            { "", "", 32 },
        };
        uint8_t All[5][1000];
        for (int i = 0; i < 5; i++) {
            uint8_t Theirs[1000];
            uint32_t Length = Cases[i].Length;
            QUIC_STATUS Status =
                Export(ClientSide.Connection, Cases[i].Label, Cases[i].Context, All[i], Length);
            CHECK(QUIC_SUCCEEDED(Status), "client, case %d: 0x%x", i, Status);
            Status = Export(ServerSide.Connection, Cases[i].Label, Cases[i].Context, Theirs, Length);
            CHECK(QUIC_SUCCEEDED(Status), "server, case %d: 0x%x", i, Status);
            CHECK(memcmp(All[i], Theirs, Length) == 0, "case %d differs", i);
            for (int k = 0; k < i; k++) {
                CHECK(memcmp(All[i], All[k], 32) != 0, "cases %d and %d are alike", i, k);
            }
        }
        CHECK(!IsConstant(All[0]), "two connections export the same");
        static uint8_t TooLong[255 * 48 + 1];
        char Label[251];
        memset(Label, 'x', 250);
        Label[250] = 0;
        CHECK(QUIC_FAILED(Export(ClientSide.Connection, "", "", TooLong, sizeof(TooLong))), "too much");
        CHECK(QUIC_FAILED(Export(ClientSide.Connection, Label, "", All[0], 32)), "label too long");
        CHECK(QUIC_SUCCEEDED(Export(ClientSide.Connection, Label + 1, "", All[0], 32)), "longest label");
        CloseBoth();
    }
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
