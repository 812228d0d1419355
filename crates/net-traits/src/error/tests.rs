//! Tests of the [errors](super).

use super::*;

#[test]
fn rejections_say_who_rejected_whom_and_why() {
    let addr = "127.0.0.1:7".parse().unwrap();
    let hash = CertHash::from_bytes([0xab; 32]);
    let ours = Rejection::new(RejectionBy::Us, addr, "not trusted").with_identity(Some(hash));
    let text = format!("rejected the certificate {hash} of 127.0.0.1:7: not trusted");
    assert_eq!(ours.to_string(), text);
    let ours = Rejection::by_policy(addr, TrustError::UntrustedIdentity(hash));
    assert_eq!((ours.identity, ours.by), (Some(hash), RejectionBy::Us));
    assert_eq!(ours.cause.as_deref(), Some(&TrustError::UntrustedIdentity(hash)));
    let line = WithCauses(&ours).to_string();
    assert!(line.ends_with(&format!("of 127.0.0.1:7: identity {hash} is not trusted")), "{line}");
    let theirs = Rejection::new(RejectionBy::Peer, addr, "unknown CA").with_alert(Some(48));
    assert_eq!(theirs.to_string(), "127.0.0.1:7 rejected our certificate: unknown CA");
    assert!(!ConnectError::Rejected(theirs.clone()).is_retryable());
    assert!(ConnectError::Rejected(theirs.clone().with_retryable(true)).is_retryable());
    assert!(!SendError::Closed(CloseReason::Rejected(theirs)).is_retryable());
}

#[test]
fn causes_are_printed_once_and_found_by_their_type() {
    let addr = "127.0.0.1:7".parse().unwrap();
    let hash = CertHash::from_bytes([0xab; 32]);
    let system = || Cause::new(io::Error::other("the cable is out"));
    let rejection = Rejection::by_policy(addr, TrustError::UntrustedIdentity(hash));
    let errors: [(&dyn Error, &str); 5] = [
        (&SendError::Closed(CloseReason::Transport(system())), "cable"),
        (&RecvError::Closed(CloseReason::ProtocolViolation(system())), "cable"),
        (&ListenError::Transport(system()), "cable"),
        (&ConnectError::Rejected(rejection), "not trusted"),
        (&CredentialError::File { path: "key.pem".to_owned(), cause: system() }, "cable"),
    ];
    for (error, text) in errors {
        assert!(!error.to_string().contains(text), "{error} repeats its cause");
        let line = WithCauses(error).to_string();
        assert_eq!(line.matches(text).count(), 1, "{line}");
        assert!(chain(error).any(|cause| cause.is::<io::Error>() || cause.is::<TrustError>()));
    }
}

#[test]
fn is_retryable_depends_on_the_code_and_the_cause() {
    let by_peer = |code| CloseReason::Peer { code, reason: String::new() };
    for (code, expected) in [
        (close_code::REVOKED, false),
        (close_code::SHUTDOWN, true),
        (close_code::TOO_MANY_CONNECTIONS, true),
        (close_code::HANDSHAKE_TIMEOUT, true),
        (7, true),
    ] {
        assert_eq!(by_peer(code).is_retryable(), expected, "{}", by_peer(code));
        assert_eq!(ConnectError::Closed(by_peer(code)).is_retryable(), expected);
        let local = CloseReason::Local { code, reason: String::new() };
        assert!(!local.is_retryable(), "{local}");
    }
    for (kind, expected) in [
        (io::ErrorKind::NetworkUnreachable, true),
        (io::ErrorKind::PermissionDenied, false),
        (io::ErrorKind::Unsupported, false),
    ] {
        let cause = Cause::new(io::Error::from(kind));
        assert_eq!(ListenError::Transport(cause.clone()).is_retryable(), expected, "{kind}");
        assert_eq!(CloseReason::Transport(cause).is_retryable(), expected, "{kind}");
    }
    assert!(!AcceptError::Closed.is_retryable());
}

#[test]
fn two_failed_transports_are_both_reported() {
    let remote_addr = "127.0.0.1:7".parse().unwrap();
    let revoked = CloseReason::Peer { code: close_code::REVOKED, reason: String::new() };
    let error = ConnectError::BothFailed {
        specific: Box::new(ConnectError::Closed(revoked)),
        retryable: Box::new(ConnectError::Refused(remote_addr)),
    };
    assert!(error.is_retryable());
    assert_eq!(
        WithCauses(&error).to_string(),
        "closed during the handshake: closed by the peer with code revoked (0x6e657405); over the \
         other transport: 127.0.0.1:7 refused the connection"
    );
}

#[test]
fn codes_are_printed_by_name() {
    let reason = |code, reason: &str| CloseReason::Peer { code, reason: reason.to_owned() };
    for (reason, text) in [
        (reason(7, ""), "closed by the peer with code 7"),
        (reason(7, "bye"), "closed by the peer with code 7: \"bye\""),
        (reason(close_code::REVOKED, ""), "closed by the peer with code revoked (0x6e657405)"),
    ] {
        assert_eq!(reason.to_string(), text);
    }
}
