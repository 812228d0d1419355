//! Names of application protocols (ALPN, RFC 7301).

/// Copies the names if they are valid: at least one, of 1 to 255 bytes each.
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
