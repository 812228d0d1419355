//
// N4: after the library has started, loading a credential and a handshake with
// certificates on both sides must open no file, and the chain given to the
// application must consist of the peer's certificates only.
//
#include "tls.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static volatile int Watching;
static volatile int Opened;

static void Saw(const char* How, const char* Path)
{
    if (Watching) {
        Opened++;
        fprintf(stderr, "%s(%s)\n", How, Path);
    }
}

#define OPEN_MODE(Flags, Mode) \
    mode_t Mode = 0; \
    if ((Flags) & (O_CREAT | O_TMPFILE)) { va_list Args; va_start(Args, Flags); Mode = va_arg(Args, mode_t); va_end(Args); }

int open(const char* Path, int Flags, ...)
{
    OPEN_MODE(Flags, Mode)
    Saw("open", Path);
    return (int)syscall(SYS_openat, AT_FDCWD, Path, Flags, Mode);
}
int open64(const char* Path, int Flags, ...)
{
    OPEN_MODE(Flags, Mode)
    Saw("open64", Path);
    return (int)syscall(SYS_openat, AT_FDCWD, Path, Flags, Mode);
}
int openat(int Dir, const char* Path, int Flags, ...)
{
    OPEN_MODE(Flags, Mode)
    Saw("openat", Path);
    return (int)syscall(SYS_openat, Dir, Path, Flags, Mode);
}
int openat64(int Dir, const char* Path, int Flags, ...)
{
    OPEN_MODE(Flags, Mode)
    Saw("openat64", Path);
    return (int)syscall(SYS_openat, Dir, Path, Flags, Mode);
}
FILE* fopen(const char* Path, const char* Mode)
{
    Saw("fopen", Path);
    return ((FILE*(*)(const char*, const char*))dlsym(RTLD_NEXT, "fopen"))(Path, Mode);
}
FILE* fopen64(const char* Path, const char* Mode)
{
    Saw("fopen64", Path);
    return ((FILE*(*)(const char*, const char*))dlsym(RTLD_NEXT, "fopen64"))(Path, Mode);
}
int stat(const char* restrict Path, struct stat* restrict Buffer)
{
    Saw("stat", Path);
    return ((int(*)(const char*, struct stat*))dlsym(RTLD_NEXT, "stat"))(Path, Buffer);
}
int stat64(const char* restrict Path, struct stat64* restrict Buffer)
{
    Saw("stat64", Path);
    return ((int(*)(const char*, struct stat64*))dlsym(RTLD_NEXT, "stat64"))(Path, Buffer);
}
DIR* opendir(const char* Path)
{
    Saw("opendir", Path);
    return ((DIR*(*)(const char*))dlsym(RTLD_NEXT, "opendir"))(Path);
}

static void WritePem(const char* Path, X509* Cert)
{
    BIO* Bio = BIO_new_file(Path, "w");
    MUST(Bio != NULL && PEM_write_bio_X509(Bio, Cert) == 1);
    BIO_free(Bio);
}

int main(void)
{
    //
    // A system store with the root of the peers: it must not be read.
    //
    char Store[] = "/tmp/msquic-n4-XXXXXX";
    MUST(mkstemp(Store) >= 0);
    EVP_PKEY* RootKey = MakeKey();
    X509* Root = MakeCert("root", RootKey, NULL, NULL, 1);
    EVP_PKEY* MidKey = MakeKey();
    X509* Mid = MakeCert("intermediate", MidKey, Root, RootKey, 1);
    EVP_PKEY* ServerKey = MakeKey();
    X509* ServerCert = MakeCert("server", ServerKey, Mid, MidKey, 0);
    EVP_PKEY* ClientKey = MakeKey();
    X509* ClientCert = MakeCert("client", ClientKey, Root, RootKey, 0);
    WritePem(Store, Root);
    setenv("SSL_CERT_FILE", Store, 1);
    setenv("SSL_CERT_DIR", "/tmp/msquic-n4-no-such-directory", 1);

    StartLibrary();
    StartListener();
    STACK_OF(X509)* ServerCa = sk_X509_new_null();
    sk_X509_push(ServerCa, Mid);

    for (int i = 0; i < 2; i++) {
        Watching = 1;
        ServerConfig = OpenConfig(0, ServerKey, ServerCert, ServerCa, QUIC_SERVER_NO_RESUME);
        HQUIC ClientConfig = OpenConfig(1, ClientKey, ClientCert, NULL, QUIC_SERVER_NO_RESUME);
        int Loading = Opened;
        ResetSides();
        Connect(ClientConfig, 0);
        WaitFor(&ServerSide.Connected, 3000);
        WaitFor(&ClientSide.Connected, 3000);
        Watching = 0;
        CHECK(ServerSide.Connected && ClientSide.Connected, "no handshake");
        CHECK(Loading == 0, "%d files touched by two credential loads", Loading);
        CHECK(Opened == Loading, "%d files touched by the handshake", Opened - Loading);
        Opened = 0;

        CHECK(SameCert(&ClientSide, ServerCert), "leaf at the client");
        CHECK(SameCert(&ServerSide, ClientCert), "leaf at the server");
        CHECK(ClientSide.ChainCount == 2, "chain at the client has %d", ClientSide.ChainCount);
        CHECK(ClientSide.ChainCount >= 2 &&
            X509_cmp(ClientSide.Chain[0], ServerCert) == 0 &&
            X509_cmp(ClientSide.Chain[1], Mid) == 0, "order of the chain");
        CHECK(ServerSide.ChainCount == 1, "chain at the server has %d", ServerSide.ChainCount);
        CloseBoth();
        Api->ConfigurationClose(ClientConfig);
        Api->ConfigurationClose(ServerConfig);
        ServerConfig = NULL;
    }
    unlink(Store);
    return StopLibrary();
}
