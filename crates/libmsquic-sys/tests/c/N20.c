//
// N20: the CA certificates of a PKCS#12 are sent in the order of the file; a
// load that cannot keep one of them fails and leaks nothing.
//
#include "tls.h"
#include "openssl/crypto.h"

static pthread_t Loader;
static volatile int Watching, FailAt, Seen;
static volatile long Live;

//
// Makes the allocation number FailAt of a stack of pointers fail.
//
static int Fail(const char* File)
{
    if (!Watching || !pthread_equal(pthread_self(), Loader) || File == NULL || strstr(File, "stack.c") == NULL) {
        return 0;
    }
    return ++Seen == FailAt;
}
static void* Malloc(size_t Length, const char* File, int Line)
{
    (void)Line;
    void* Pointer = Fail(File) ? NULL : malloc(Length);
    if (Pointer) {
        __atomic_fetch_add(&Live, 1, __ATOMIC_SEQ_CST);
    }
    return Pointer;
}
static void Free(void* Pointer, const char* File, int Line)
{
    (void)File; (void)Line;
    if (Pointer) {
        __atomic_fetch_sub(&Live, 1, __ATOMIC_SEQ_CST);
    }
    free(Pointer);
}
static void* Realloc(void* Pointer, size_t Length, const char* File, int Line)
{
    if (Pointer == NULL) {
        return Malloc(Length, File, Line);
    }
    if (Length == 0) {
        Free(Pointer, File, Line);
        return NULL;
    }
    return Fail(File) ? NULL : realloc(Pointer, Length);
}

int main(void)
{
    MUST(CRYPTO_set_mem_functions(Malloc, Realloc, Free));
    Loader = pthread_self();
    Portable = 0;
    StartLibrary();
    StartListener();
    enum { Depth = 5 };
    EVP_PKEY* Key[Depth + 1];
    X509* Cert[Depth + 1];
    for (int i = Depth; i >= 0; i--) {
        char Name[16];
        snprintf(Name, sizeof(Name), "level %d", i);
        Key[i] = MakeKey();
        Cert[i] = MakeCert(Name, Key[i], i == Depth ? NULL : Cert[i + 1], i == Depth ? NULL : Key[i + 1], i > 0);
    }
    STACK_OF(X509)* Ca = sk_X509_new_null();
    for (int i = 1; i <= Depth; i++) {
        sk_X509_push(Ca, Cert[i]);
    }
    HQUIC ClientConfig = OpenConfig(1, Key[0], Cert[0], NULL, QUIC_SERVER_NO_RESUME);

    //
    // The first load does not fail. It shows how many such allocations there
    // are; those for the chain are among the last of them.
    //
    int Succeeded = 0, Total = 0;
    for (int k = 0; k <= Total; k = k == 0 ? (Total > 12 ? Total - 12 : 1) : k + 1) {
        //
        // PKCS12_create allocates memory too, and may return NULL: call it before.
        //
        PKCS12* P12 = PKCS12_create("secret", NULL, Key[0], Cert[0], Ca, 0, 0, 1, 1, 0);
        unsigned char* Der = NULL;
        int DerLength = i2d_PKCS12(P12, &Der);
        PKCS12_free(P12);
        QUIC_CERTIFICATE_PKCS12 Pkcs12 = { Der, (uint32_t)DerLength, "secret" };
        QUIC_CREDENTIAL_CONFIG Credential = { 0 };
        Credential.Type = QUIC_CREDENTIAL_TYPE_CERTIFICATE_PKCS12;
        Credential.CertificatePkcs12 = &Pkcs12;
        Credential.Flags = QUIC_CREDENTIAL_FLAG_NO_CERTIFICATE_VALIDATION;
        QUIC_BUFFER Alpn = { 4, (uint8_t*)"test" };
        MUST(QUIC_SUCCEEDED(Api->ConfigurationOpen(Registration, &Alpn, 1, NULL, 0, NULL, &ServerConfig)));
        ERR_clear_error();
        usleep(1000);
        long Before = Live;
        Seen = 0;
        FailAt = k;                 // 0: no failure
        Watching = 1;
        QUIC_STATUS Status = Api->ConfigurationLoadCredential(ServerConfig, &Credential);
        Watching = 0;
        ERR_clear_error();
        if (k == 0) {
            Total = Seen;
        }
        if (QUIC_FAILED(Status)) {
            long Leaked = Live - Before;
            CHECK(Leaked <= 0, "load %d failed and leaked %ld allocations", k, Leaked);
            CHECK(k > 0, "load");
        } else {
            Succeeded++;
            ResetSides();
            Connect(ClientConfig, 0);
            CHECK(WaitFor(&ClientSide.Connected, 3000), "no handshake");
            CHECK(ClientSide.ChainCount == Depth + 1, "load %d succeeded, chain of %d", k, ClientSide.ChainCount);
            for (int i = 0; i < ClientSide.ChainCount; i++) {
                int Same = ClientSide.ChainCount == Depth + 1 && X509_cmp(ClientSide.Chain[i], Cert[i]) == 0;
                CHECK(Same || ClientSide.ChainCount != Depth + 1, "load %d: position %d is wrong", k, i);
                X509_free(ClientSide.Chain[i]);
            }
            CloseBoth();
        }
        Api->ConfigurationClose(ServerConfig);
        ServerConfig = NULL;
        OPENSSL_free(Der);
    }
    printf("%d loads succeeded\n", Succeeded);
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
