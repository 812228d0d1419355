// U6: the TLS send buffer grows for every permitted length; a larger one is an error, not a loop.
#include "tls_quictls.c"
#include <stdio.h>

#define CHECK(X) do { if (!(X)) { printf("failed: %s (have %u, add %u)\n", #X, Have, Add); return 1; } } while (0)
void MsQuicLibraryLoad(void);

int main(void)
{
    static const uint32_t Lengths[][2] = {
        { 0, 8192 }, { 0, 0x8000 }, { 0, 0x8001 }, { 0, 0xF000 }, { 8192, 30000 }, { 0x8000, 0x7000 }, { 0xEFFF, 1 } };
    alarm(5);
    MsQuicLibraryLoad();
    if (QUIC_FAILED(CxPlatInitialize())) { return 1; }
    SSL_CTX* Ctx = SSL_CTX_new(TLS_method());
    SSL* Ssl = SSL_new(Ctx);
    static uint8_t Data[0xF001];
    memset(Data, 0x5A, sizeof(Data));
    for (size_t i = 0; i < ARRAYSIZE(Lengths); i++) {
        const uint32_t Have = Lengths[i][0], Add = Lengths[i][1];
        CXPLAT_TLS_PROCESS_STATE State = { 0 };
        CXPLAT_TLS Tls = { 0 };
        Tls.State = &State;
        State.BufferAllocLength = 4096;
        State.Buffer = CXPLAT_ALLOC_NONPAGED(4096, QUIC_POOL_TLS_BUFFER);
        SSL_set_app_data(Ssl, &Tls);
        printf("have %u, add %u\n", Have, Add); // the last line shows where a loop happened
        fflush(stdout);
        if (Have != 0) {
            CHECK(CxPlatTlsAddHandshakeDataCallback(Ssl, ssl_encryption_initial, Data, Have) == 1);
        }
        CHECK(CxPlatTlsAddHandshakeDataCallback(Ssl, ssl_encryption_initial, Data, Add) == 1);
        CHECK(State.BufferLength == Have + Add && State.BufferTotalLength == Have + Add);
        CHECK(State.BufferAllocLength >= State.BufferLength);
        CHECK(memcmp(State.Buffer, Data, Have + Add) == 0 || Have + Add > sizeof(Data));
        CHECK(!(Tls.ResultFlags & CXPLAT_TLS_RESULT_ERROR));
        if (i + 1 == ARRAYSIZE(Lengths)) {
            // Nothing larger is permitted, and OpenSSL is told so.
            CHECK(CxPlatTlsAddHandshakeDataCallback(Ssl, ssl_encryption_initial, Data, 0xF001 - State.BufferLength) == 0);
            CHECK(Tls.ResultFlags & CXPLAT_TLS_RESULT_ERROR);
        }
        CXPLAT_FREE(State.Buffer, QUIC_POOL_TLS_BUFFER);
    }
    SSL_free(Ssl);
    SSL_CTX_free(Ctx);
    return 0;
}
