//! The victim: echoes messages that begin with [`ECHO`], discards others, and answers requests.

use crate::node::{self, ALPN, Kind};
use crate::process;
use anyhow::Result;
use net_traits::{
    DynConnection, NetConnection, NetListener, NetQuestion, NetRequests, NetTransport, RecvError,
};

/// Messages that begin with this byte are sent back.
pub(crate) const ECHO: u8 = b'?';

pub(crate) async fn run(kind: Kind) -> Result<()> {
    let transport = kind.transport()?;
    let address = "127.0.0.1:0".parse()?;
    let listener = transport.create_listener(address, &[ALPN], node::member()?).await?;
    println!("{}", listener.local_addr());
    tokio::select! {
        end = net_peers::serve(&listener, serve) => Err(end.into()),
        () = process::parent_has_ended() => Ok(()),
    }
}

async fn serve(connection: DynConnection) {
    tokio::join!(messages(&connection), requests(&connection));
}

async fn messages(connection: &DynConnection) {
    loop {
        match connection.recv().await {
            Ok((message, _)) if message.first() == Some(&ECHO) => {
                if connection.send_bytes(message).await.is_err() {
                    break;
                }
            }
            Err(RecvError::Closed(_)) => break,
            Ok(_) | Err(_) => {} // the error of one message
        }
    }
}

/// Answers as many questions concurrently as the transport allows.
async fn requests(connection: &DynConnection) {
    while let Ok(mut question) = connection.accept_request().await {
        tokio::spawn(async move {
            if let Ok(bytes) = question.question().await {
                let _ = question.answer(bytes).await; // the asker may have left
            }
        });
    }
}
