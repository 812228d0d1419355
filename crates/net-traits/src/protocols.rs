//! The names of application protocols (ALPN, RFC 7301), as transports are given them.

/// The names, if they can be used: at least one, of 1 to 255 bytes each.
///
/// # Errors
///
/// What is wrong, for [`ListenError::InvalidInput`](crate::ListenError::InvalidInput) and
/// [`ConnectError::InvalidInput`](crate::ConnectError::InvalidInput).
///
/// ```
/// assert_eq!(net_traits::protocol_names(&["chat/1"]), Ok(vec!["chat/1".to_owned()]));
/// assert!(net_traits::protocol_names(&[]).is_err());
/// ```
pub fn protocol_names(alpn: &[&str]) -> Result<Vec<String>, String> {
    if alpn.is_empty() {
        return Err("at least one application protocol (ALPN) is needed".to_owned());
    }
    if alpn.iter().any(|name| name.is_empty() || name.len() > 255) {
        return Err("the name of an application protocol (ALPN) has 1 to 255 bytes".to_owned());
    }
    Ok(alpn.iter().map(|name| (*name).to_owned()).collect())
}
