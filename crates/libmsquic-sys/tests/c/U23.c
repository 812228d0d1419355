// U23: transport parameters are not accepted when the copy of VersionInfo cannot be allocated, and a
// failed decode leaves nothing to free.
#include "unit.h"
#include <errno.h>

#ifdef __SANITIZE_ADDRESS__
int main(void) { return 0; } // malloc cannot be replaced under ASan
#else
static int Fail;
static int Live; // allocations of 12 bytes that were not freed
static void* Mine[16];

void* malloc(size_t Size)
{
    extern void* __libc_malloc(size_t);
    if (Size == 12 && Fail) { errno = ENOMEM; return NULL; }
    void* Mem = __libc_malloc(Size);
    if (Size == 12) {
        for (int i = 0; i < 16; i++) { if (Mine[i] == NULL) { Mine[i] = Mem; Live++; break; } }
    }
    return Mem;
}

void free(void* Mem)
{
    extern void __libc_free(void*);
    for (int i = 0; i < 16; i++) { if (Mem != NULL && Mine[i] == Mem) { Mine[i] = NULL; Live--; } }
    __libc_free(Mem);
}

int main(void)
{
    static const uint8_t Good[] = {
        0x11, 12, 0, 0, 0, 1, 0, 0, 0, 1, 0x6b, 0x33, 0x43, 0xcf, // version_information
        0x01, 2, 0x75, 0x30 };                                    // max_idle_timeout 30000
    static const uint8_t Bad[] = {
        0x11, 12, 0, 0, 0, 1, 0, 0, 0, 1, 0x6b, 0x33, 0x43, 0xcf,
        0x0a, 1, 21 };                                            // ack_delay_exponent above 20
    QUIC_TRANSPORT_PARAMETERS Params = { 0 }, Copy = { 0 };
    alarm(20);
    MsQuicLibraryLoad();
    CHECK(QUIC_SUCCEEDED(CxPlatInitialize()));
    QUIC_CONNECTION* Connection = calloc(1, sizeof(*Connection));
    memset(Mine, 0, sizeof(Mine)); // only what is allocated from here on counts
    Live = 0;

    CHECK(QuicCryptoTlsDecodeTransportParameters(Connection, FALSE, Good, sizeof(Good), &Params));
    CHECK(Params.VersionInfoLength == 12 && Params.VersionInfo != NULL && Live == 1);
    Fail = 1;
    CHECK(QuicCryptoTlsCopyTransportParameters(&Params, &Copy) == QUIC_STATUS_OUT_OF_MEMORY);
    if (Copy.Flags & QUIC_TP_FLAG_VERSION_NEGOTIATION) { FAIL("a failed copy announces VersionInfo that is NULL"); }
    QuicCryptoTlsCleanupTransportParameters(&Copy);
    QuicCryptoTlsCleanupTransportParameters(&Params);
    CHECK(Live == 0);

    memset(&Params, 0, sizeof(Params));
    if (QuicCryptoTlsDecodeTransportParameters(Connection, FALSE, Good, sizeof(Good), &Params)) {
        FAIL("decoded although VersionInfo could not be allocated: the downgrade check would be skipped");
    }
    Fail = 0;
    memset(&Params, 0, sizeof(Params));
    CHECK(!QuicCryptoTlsDecodeTransportParameters(Connection, FALSE, Bad, sizeof(Bad), &Params));
    if (Live != 0) { FAIL("a failed decode keeps VersionInfo"); }
    CHECK(Params.VersionInfo == NULL && !(Params.Flags & QUIC_TP_FLAG_VERSION_NEGOTIATION));
    QuicCryptoTlsCleanupTransportParameters(&Params);
    free(Connection);
    CxPlatUninitialize();
    MsQuicLibraryUnload();
    return 0;
}
#endif
