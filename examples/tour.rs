//! A tour of identity and trust: endorsements, hot reload of a credential, and revocation. It runs
//! in one process over loopback, and checks each step.
#![allow(clippy::print_stdout, reason = "a program")]

use anyhow::{Context, Result, bail, ensure};
use msquic_transport::{MsQuicListener, MsQuicNetConnection, MsQuicTransport};
use net_traits::{
    CloseReason, ConnectError, EndorsementValidity, Endorser, Endorsers, IdentityKey,
    NetConnection, NetCredential, NetIncomingRequest, NetListener, NetTransport, TrustPolicy,
    close_code,
};
use std::time::Duration;

const ALPN: &str = "tour/1";
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Creates a node with the policy `trust` and an endorsement by `endorser` for a day.
fn endorsed(endorser: &Endorser, trust: &TrustPolicy) -> Result<NetCredential> {
    let key = IdentityKey::generate()?;
    let endorsement =
        endorser.endorse(&key.public_key_info(), EndorsementValidity::for_duration(DAY));
    Ok(key.self_sign(&["node"], &[endorsement])?.credential(trust.clone())?)
}

fn trusting(endorser: &Endorser) -> TrustPolicy {
    TrustPolicy::endorsed_by(Endorsers::new([endorser.key()]))
}

/// The results of the dialler and the listener.
async fn connect_pair(
    transport: &MsQuicTransport,
    listener: &MsQuicListener,
    dialler: NetCredential,
) -> Result<(Result<MsQuicNetConnection, ConnectError>, Result<MsQuicNetConnection, ConnectError>)>
{
    let dial = transport.connect(listener.local_addr(), &[ALPN], dialler);
    let accept = async { anyhow::Ok(listener.accept().await?.accept().await) };
    let (dialled, accepted) = tokio::join!(dial, accept);
    Ok((dialled, accepted?))
}

/// Returns the first digits of an identity.
fn short(identity: &str) -> &str {
    &identity[..8]
}

async fn converse(one: &MsQuicNetConnection, other: &MsQuicNetConnection) -> Result<()> {
    one.send(b"hello").await?;
    ensure!(other.recv().await?.0 == "hello", "another message arrived");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let (first, second) = (Endorser::generate()?, Endorser::generate()?);
    let (dialling, serving) = (MsQuicTransport::new(), MsQuicTransport::new());

    println!("1. Trust by endorsement: the listener knows no peer, only the endorsing key.");
    let server = endorsed(&first, &trusting(&first))?;
    let address = "127.0.0.1:0".parse()?;
    let listener = serving.create_listener(address, &[ALPN], server.clone()).await?;
    let (alice, at_server) =
        connect_pair(&dialling, &listener, endorsed(&first, &trusting(&first))?).await?;
    let (alice, alice_at_server) = (alice?, at_server?);
    converse(&alice, &alice_at_server).await?;
    println!(
        "   {} is accepted: {} endorses it.",
        short(alice_at_server.remote_identity()),
        short(&first.key().to_string())
    );

    let stranger = NetCredential::self_signed(trusting(&first))?;
    match connect_pair(&dialling, &listener, stranger).await?.1 {
        Err(ConnectError::Rejected(rejection)) => println!("   Without one: {rejection}."),
        result => bail!("the untrusted peer was accepted: {result:?}"),
    }

    println!(
        "2. Hot reload: the listener gets a new key while it runs, and trusts another endorser."
    );
    let renewed = endorsed(&first, &trusting(&second))?;
    listener.set_credential(renewed.clone())?;
    let (bob, at_server) =
        connect_pair(&dialling, &listener, endorsed(&second, &trusting(&first))?).await?;
    let (bob, bob_at_server) = (bob?, at_server?);
    converse(&bob, &bob_at_server).await?;
    converse(&alice, &alice_at_server).await?;
    ensure!(bob.remote_identity() == renewed.identity().to_string(), "the old key was used");
    println!(
        "   {} sees {} instead of {}; the earlier connection remains open.",
        short(bob.local_identity()),
        short(bob.remote_identity()),
        short(alice.remote_identity())
    );

    println!("3. Revocation: connections that the new policy does not trust are closed.");
    let revoked = serving.revoke(&trusting(&second)).await;
    ensure!(revoked == 1, "{revoked} connections were revoked");
    let reason = alice.watch_close().await;
    ensure!(
        matches!(reason, CloseReason::Peer { code: close_code::REVOKED, .. }),
        "closed for another reason: {reason}"
    );
    println!("   {} sees: {reason}.", short(alice.local_identity()));
    converse(&bob_at_server, &bob).await?;
    println!("   {} is not affected.", short(bob.local_identity()));

    serving.shutdown(Duration::from_secs(5), "the tour is over").await;
    let reason = bob.watch_close().await;
    println!("4. Shutdown: {} sees: {reason}.", short(bob.local_identity()));
    let statistics = serving.statistics();
    let sent = statistics.messages.messages_sent;
    ensure!(sent == 1, "the server has sent {sent} messages");
    listener.accept().await.err().context("the listener is still open")?;
    Ok(())
}
