//! `recheck_trust`: verifies the peer of a connection whose handshake may have used an older
//! policy.

use net_traits::{ConnectError, NetConnection, Rejection, TrustPolicy, close_code};

/// Aborts a new connection unless its peer is trusted by `policy`, which was set during the
/// handshake.
///
/// # Errors
///
/// The rejection of the peer.
pub(crate) fn recheck_trust(
    connection: &impl NetConnection,
    policy: &TrustPolicy,
) -> Result<(), ConnectError> {
    // A transport without certificates does not apply policies.
    let Some(certificate) = connection.remote_certificate() else { return Ok(()) };
    policy.still_trusts(connection.peer_identity(), Some(&certificate)).map_err(|error| {
        connection.abort(close_code::REVOKED, "no longer trusted");
        Rejection::by_policy(connection.remote_addr(), error).into()
    })
}
