//
// N63: a public key of the curve P-256 is decoded without a search for a decoder, to the same key.
//
#include "allocations.h"

//
// Decodes a certificate with this key, and returns how often a decoder was searched for.
//
static int Decode(X509* Cert, X509** Decoded)
{
    unsigned char* Der = NULL;
    int Length = i2d_X509(Cert, &Der);
    MUST(Length > 0);
    const unsigned char* Next = Der;
    int Before = AllocationCount;
    *Decoded = d2i_X509(NULL, &Next, Length);
    MUST(*Decoded != NULL && Next == Der + Length);
    OPENSSL_free(Der);
    return AllocationCount - Before;
}

static void IsDecoded(const char* Group, const char* Format, int Quickly)
{
    EVP_PKEY* Key = Group ? EVP_EC_gen(Group) : EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
    MUST(Key != NULL);
    if (Format) {
        MUST(EVP_PKEY_set_utf8_string_param(Key, "point-format", Format));
    }
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    X509* Decoded;
    int Searches = Decode(Cert, &Decoded);
    const char* Name = Group ? Group : "RSA";
    CHECK(Quickly == (Searches == 0), "%s %s: %d allocations", Name, Format, Searches);
    CHECK(EVP_PKEY_eq(X509_get0_pubkey(Decoded), Key) == 1, "%s %s", Name, Format);
    CHECK(X509_verify(Decoded, Key) == 1, "%s %s", Name, Format);
    CHECK(X509_verify(Cert, X509_get0_pubkey(Decoded)) == 1, "%s %s", Name, Format);
    CHECK(ERR_peek_error() == 0, "%s %s: errors remain", Name, Format);

    // A signature by another key does not verify.
    EVP_PKEY* OtherKey = MakeKey();
    X509* Other = MakeCert("peer", Key, NULL, OtherKey, 0);
    CHECK(X509_verify(Other, X509_get0_pubkey(Decoded)) != 1, "%s %s", Name, Format);
    ERR_clear_error();
    X509_free(Other);
    EVP_PKEY_free(OtherKey);
    X509_free(Decoded);
    X509_free(Cert);
    EVP_PKEY_free(Key);
}

//
// A key with these changes of its encoded point has no value.
//
static void IsRejected(int At, int Change)
{
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    ASN1_BIT_STRING* Point = X509_get0_pubkey_bitstr(Cert);
    MUST(Point->length == 65);
    Point->data[At] ^= Change;
    X509* Decoded;
    Decode(Cert, &Decoded);
    CHECK(X509_get0_pubkey(Decoded) == NULL, "a change by %d of byte %d", Change, At);
    ERR_clear_error();
    X509_free(Decoded);
    X509_free(Cert);
    EVP_PKEY_free(Key);
}

int main(void)
{
    WatchAllocations("crypto/encode_decode/decoder_pkey.c");
    StartLibrary();
    IsDecoded("P-256", NULL, 1);
    IsDecoded("P-256", "compressed", 0);
    IsDecoded("P-384", NULL, 0);
    IsDecoded(NULL, NULL, 0);
    IsRejected(64, 1); // not on the curve
    IsRejected(0, 1);  // a format that does not exist

    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    StartListener();
    HQUIC ClientConfig = OpenConfig(1, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    int Before = AllocationCount;
    Connect(ClientConfig, 0);
    MUST(WaitFor(&ClientSide.Connected, 5000) && WaitFor(&ServerSide.Connected, 5000));
    CHECK(ClientSide.CertEvents == 1 && ServerSide.CertEvents == 1, "%d and %d", ClientSide.CertEvents,
        ServerSide.CertEvents);
    CHECK(AllocationCount == Before, "%d allocations in a handshake", AllocationCount - Before);
    CloseBoth();
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
