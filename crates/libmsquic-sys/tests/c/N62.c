// N62: path MTU discovery finds jumbo packets, and data arrives in them.
#include "tls.h"

int main(void)
{
    EVP_PKEY* Key = MakeKey();
    X509* Cert = MakeCert("peer", Key, NULL, NULL, 0);
    StartLibrary();
    QUIC_SETTINGS Jumbo = { 0 };
    Jumbo.MaximumMtu = 9000;
    Jumbo.IsSet.MaximumMtu = TRUE;
    MUST(QUIC_SUCCEEDED(Api->SetParam(NULL, QUIC_PARAM_GLOBAL_SETTINGS, sizeof(Jumbo), &Jumbo)));
    ServerConfig = OpenConfig(0, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    HQUIC ClientConfig = OpenConfig(1, Key, Cert, NULL, QUIC_SERVER_NO_RESUME);
    StartListener();
    Connect(ClientConfig, 0);
    MUST(WaitFor(&ClientSide.Connected, 5000) && WaitFor(&ServerSide.Connected, 5000));
    uint16_t Mtu = 0;
    for (int i = 0; i < 500 && Mtu < 9000; i++) {
        QUIC_STATISTICS_V2 Statistics;
        uint32_t Length = sizeof(Statistics);
        MUST(QUIC_SUCCEEDED(
            Api->GetParam(ClientSide.Connection, QUIC_PARAM_CONN_STATISTICS_V2, &Length, &Statistics)));
        Mtu = Statistics.SendPathMtu;
        usleep(10000);
    }
    CHECK(Mtu == 9000, "the path MTU is %hu", Mtu);
    CloseBoth();
    Api->ConfigurationClose(ClientConfig);
    return StopLibrary();
}
