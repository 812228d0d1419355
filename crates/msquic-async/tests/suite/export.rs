//! Keying material that both sides derive.

use super::peers::{Pair, credential, pair};
use super::skip::{has_patch, lacks_patch};
use crate::executors::run;
use msquic_async::ExportError;
use msquic_async::{Connection, Registration};

async fn export(side: &Connection, label: &[u8], context: &[u8], length: usize) -> Vec<u8> {
    side.export_keying_material(label, context, length).await.unwrap().to_vec()
}

#[test]
fn both_sides_export_the_same_and_nothing_else_does() {
    if lacks_patch("N32") {
        return;
    }
    run(async || {
        let (first, second) = (pair().await, pair().await);
        let mut known: Vec<Vec<u8>> = Vec::new();
        for Pair { client, server, .. } in [&first, &second] {
            for (label, context) in [
                (&b"EXPERIMENTAL a"[..], &b""[..]),
                (b"EXPERIMENTAL a", b"b"),
                (b"EXPERIMENTAL b", b"b"),
            ] {
                let ours = export(client, label, context, 32).await;
                assert_eq!(ours, export(server, label, context, 32).await);
                assert_eq!(ours.len(), 32);
                assert!(!known.contains(&ours) && ours != [0; 32]);
                known.push(ours);
            }
            let long = export(client, b"EXPERIMENTAL a", b"", 8160).await;
            assert_eq!(long, export(server, b"EXPERIMENTAL a", b"", 8160).await);
            assert!(export(client, &[b'x'; 249], &[7; 70_000], 0).await.is_empty());
        }
    });
}

#[test]
fn what_cannot_be_exported_is_a_typed_error() {
    run(async || {
        let registration = Registration::new("test").unwrap();
        let connection = Connection::new(&registration, credential()).unwrap();
        let early = connection.export_keying_material(b"label", b"", 32).await;
        if !has_patch("N32") {
            assert_eq!(early, Err(ExportError::Unsupported));
            return;
        }
        assert_eq!(early, Err(ExportError::NotConnected));
        let Pair { client, server, .. } = pair().await;
        let long = client.export_keying_material(b"label", b"", 8161).await;
        assert!(matches!(long, Err(ExportError::TooLong { length: 8161, max: 8160, .. })));
        let long = client.export_keying_material(&[b'x'; 250], b"", 32).await;
        assert!(matches!(long, Err(ExportError::TooLong { length: 250, max: 249, .. })));
        client.shutdown(3, "");
        server.watch_shutdown().await;
        for side in [&client, &server] {
            let late = side.export_keying_material(b"label", b"", 32).await;
            assert!(matches!(late, Err(ExportError::ConnectionLost(_))), "{late:?}");
        }
    });
}
