//! `recheck_trust`: a connection whose handshake may have used an older policy.

use net_traits::{ConnectError, NetConnection, Rejection, TrustPolicy, close_code};

/// Aborts a new connection unless `policy`, which came into force during its handshake, trusts its peer.
///
/// # Errors
///
/// The rejection of the peer.
pub(crate) fn recheck_trust(
    connection: &impl NetConnection,
    policy: &TrustPolicy,
) -> Result<(), ConnectError> {
    // Without certificates, a transport has no use for policies.
    let Some(certificate) = connection.remote_certificate() else { return Ok(()) };
    policy.still_trusts(connection.peer_identity(), Some(&certificate)).map_err(|error| {
        connection.abort(close_code::REVOKED, "no longer trusted");
        Rejection::by_policy(connection.remote_addr(), error).into()
    })
}
