//! Names of application protocols (ALPN, RFC 7301), with the version of the wire protocol.
//!
//! For each name that the application gives, TLS offers the name with the suffix [`RECEIPTS`] and
//! then the name itself, which is all that older peers know. The application gets the name without
//! the suffix.

/// The suffix of a name in TLS that says that a side supports [receipts](crate::receipts) and
/// confirmations ([`Control`](crate::receipts::Control)).
pub const RECEIPTS: &str = "+receipts/2";

/// Returns the names that TLS offers, in order of preference. A name that the suffix would make
/// longer than 255 bytes is offered without it only.
///
/// ```
/// use net_kit::alpn::versions;
///
/// assert_eq!(versions(&["chat/1"]), ["chat/1+receipts/2", "chat/1"]);
/// ```
pub fn versions(alpn: &[impl AsRef<str>]) -> Vec<String> {
    let both = |name: &str| [format!("{name}{RECEIPTS}"), name.to_owned()];
    let is_short = |name: &String| name.len() <= 255;
    alpn.iter().flat_map(|name| both(name.as_ref())).filter(is_short).collect()
}

/// Removes the suffix of a negotiated name. Returns the application's name, and whether both sides
/// support receipts.
pub fn without_version(negotiated: &[u8]) -> (&[u8], bool) {
    let name = negotiated.strip_suffix(RECEIPTS.as_bytes());
    (name.unwrap_or(negotiated), name.is_some())
}

/// Returns copies of the names if they are valid: at least one, of 1 to 255 bytes each.
///
/// # Errors
///
/// A description of the fault, for `InvalidInput` of [`ListenError`](net_traits::ListenError) and
/// [`ConnectError`](net_traits::ConnectError).
///
/// ```
/// use net_kit::alpn::protocol_names;
///
/// assert_eq!(protocol_names(&["chat/1"]), Ok(vec!["chat/1".to_owned()]));
/// assert!(protocol_names(&[]).is_err());
/// ```
pub fn protocol_names(alpn: &[&str]) -> Result<Vec<String>, String> {
    if alpn.is_empty() {
        return Err("no application protocol (ALPN): give at least one".to_owned());
    }
    if alpn.iter().any(|name| name.is_empty() || name.len() > 255) {
        return Err("an application protocol (ALPN) must have 1 to 255 bytes".to_owned());
    }
    Ok(alpn.iter().map(|name| (*name).to_owned()).collect())
}
