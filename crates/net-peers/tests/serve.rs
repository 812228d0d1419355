//! `serve`: stalling peers, handlers that never end or panic, and the end of the listener.

use async_trait::async_trait;
use net_peers::serve;
use net_traits::{
    AcceptError, ConnectError, ListenError, NetConnection, NetCredential, NetIncomingRequest,
    NetListener, NetTransport, TrustPolicy,
};
use net_traits_test::memory::{
    MemoryConnection, MemoryIncomingRequest, MemoryListener, MemoryNetwork, MemoryTransport,
};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const ALPN: &str = "serve/1";

fn credential() -> NetCredential {
    NetCredential::self_signed(TrustPolicy::Any).unwrap()
}

/// A listener whose first peer never completes its handshake.
struct Stalling {
    inner: MemoryListener,
    has_stalled: AtomicBool,
}

struct Request(MemoryIncomingRequest, bool);

#[async_trait]
impl NetListener for Stalling {
    type Connection = MemoryConnection;
    type IncomingRequest = Request;

    async fn accept(&self) -> Result<Request, AcceptError> {
        let request = self.inner.accept().await?;
        Ok(Request(request, !self.has_stalled.swap(true, Ordering::SeqCst)))
    }

    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn set_credential(&self, credential: NetCredential) -> Result<(), ListenError> {
        self.inner.set_credential(credential)
    }

    fn set_trust(&self, trust: TrustPolicy) {
        self.inner.set_trust(trust);
    }
}

#[async_trait]
impl NetIncomingRequest for Request {
    type Connection = MemoryConnection;

    fn remote_addr(&self) -> SocketAddr {
        self.0.remote_addr()
    }

    fn refuse(self, code: u64) {
        self.0.refuse(code);
    }

    async fn accept(self) -> Result<MemoryConnection, ConnectError> {
        if self.1 {
            pending::<()>().await;
        }
        self.0.accept().await
    }
}

/// Creates a transport and its listener.
async fn server(network: &MemoryNetwork) -> (MemoryTransport, MemoryListener) {
    let transport = network.transport();
    let address = "0.0.0.0:0".parse().unwrap();
    let listener = transport.create_listener(address, &[ALPN], credential()).await.unwrap();
    (transport, listener)
}

#[tokio::test(start_paused = true)]
async fn stalling_peers_do_not_delay_others() {
    let network = MemoryNetwork::new(1);
    let (_server, inner) = server(&network).await;
    let address = inner.local_addr();
    let dial = async || network.transport().connect(address, &[ALPN], credential()).await;
    let listener = Stalling { inner, has_stalled: AtomicBool::new(false) };
    let handler = async |connection: MemoryConnection| {
        let (message, _) = connection.recv().await.unwrap();
        match &message[..] {
            b"stay" => pending().await,
            b"panic" => panic!("as asked"),
            _ => connection.send_bytes(message).await.unwrap(),
        }
        connection.flush().await.unwrap();
    };
    tokio::select! {
        biased; // the stalling peer dials first
        _ = serve(&listener, handler) => panic!("the listener is open"),
        _ = dial() => panic!("its handshake does not end"),
        () = async {
            let (stays, panics) = (dial().await.unwrap(), dial().await.unwrap());
            stays.send(b"stay").await.unwrap();
            panics.send(b"panic").await.unwrap();
            panics.watch_close().await;
            let connection = dial().await.unwrap();
            connection.send(b"hello").await.unwrap();
            assert_eq!(connection.recv().await.unwrap().0, "hello");
        } => {}
    }
}

#[tokio::test(start_paused = true)]
async fn serve_returns_after_the_listener_is_closed_and_the_last_handler_has_ended() {
    let network = MemoryNetwork::new(1);
    let (transport, listener) = server(&network).await;
    let dial = network.transport();
    let has_ended = std::sync::Arc::new(AtomicBool::new(false));
    let ended = has_ended.clone();
    let handler = move |connection: MemoryConnection| {
        let ended = ended.clone();
        async move {
            connection.watch_close().await;
            tokio::time::sleep(Duration::from_secs(60)).await;
            ended.store(true, Ordering::SeqCst);
        }
    };
    let connected = async {
        let connection = dial.connect(listener.local_addr(), &[ALPN], credential()).await.unwrap();
        transport.shutdown(Duration::from_secs(1), "the end").await;
        drop(connection);
    };
    let (end, ()) = tokio::join!(serve(&listener, handler), connected);
    assert_eq!(end, AcceptError::Closed);
    assert!(has_ended.load(Ordering::SeqCst));
}
