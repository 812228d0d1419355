//! Clauses about TLS secrets.

use super::events::{Answer, Event};
use super::handles::{Open, ignore, is_connected};
use super::harness::{ALPN, LOOPBACK, Pair, Role, plenty};
use super::is_patched;
use super::roots::Registration;
use crate::ffi::calls::{KeyingMaterial, QUIC_PARAM_CONN_KEYING_MATERIAL};
use crate::ffi::functions::call;
use crate::ffi::secrets::Secrets;
use crate::ffi::status::Status;
use msquic::ffi;
use std::ptr;
use std::sync::Arc;
use std::sync::mpsc;

const LENGTH: u32 = size_of::<ffi::QUIC_TLS_SECRETS>() as u32;

/// Has the secrets of the connection written to `secrets`.
fn write_secrets(connection: &impl Open, secrets: &Arc<Secrets>) -> Status {
    let (handle, secrets) = (connection.handle(), secrets.clone());
    connection.run(move || {
        let handle = { handle };
        // SAFETY: C27: tests keep the memory until the connection is closed.
        Status::from_raw(unsafe {
            call!(SetParam(handle.0, ffi::QUIC_PARAM_CONN_TLS_SECRETS, LENGTH, secrets.as_ptr()))
        })
    })
}

#[test]
fn c27_secrets_are_zeroed_first_and_written_by_the_end_of_the_handshake() {
    let registration = Registration::new();
    let (client_secrets, server_secrets) = (Arc::new(Secrets::new()), Arc::new(Secrets::new()));
    let (lines, from_callbacks) = mpsc::channel();
    let (adopted, connections) = mpsc::channel();
    let configuration = registration.configure(Role::Server, &plenty());
    let handle = configuration.handle;
    let listener = registration.open_listener({
        let (secrets, lines) = (server_secrets.clone(), lines.clone());
        move |call| {
            if let Event::NewConnection { .. } = call.event {
                let (secrets, lines) = (secrets.clone(), lines.clone());
                let connection = call.adopt({
                    let secrets = secrets.clone();
                    move |call| {
                        if is_connected(call.event) {
                            // SAFETY: C27: inside a callback of the connection.
                            let _ = lines.send(unsafe { secrets.lines() });
                        }
                        ignore(call)
                    }
                });
                let handle_status = write_secrets(&connection, &secrets);
                assert_eq!(handle_status, Status::SUCCESS);
                connection.accept(handle);
                let _ = adopted.send(connection);
            }
            Answer::default()
        }
    });
    assert_eq!(listener.listen(ALPN, LOOPBACK.parse().unwrap()), Status::SUCCESS);

    let client_configuration = registration.configure(Role::Client, &plenty());
    let client = registration.open_connection({
        let secrets = client_secrets.clone();
        move |call| {
            if is_connected(call.event) {
                // SAFETY: C27: inside a callback of the connection.
                let _ = lines.send(unsafe { secrets.lines() });
            }
            ignore(call)
        }
    });
    // SAFETY: C27: nothing else uses the memory yet; C10: bytes, of which each value is valid.
    unsafe { client_secrets.as_ptr().cast::<u8>().write_bytes(0xff, LENGTH as usize) };
    assert_eq!(write_secrets(&client, &client_secrets), Status::SUCCESS);
    // SAFETY: C27: the connection was not started, so nothing writes.
    assert!(unsafe { client_secrets.lines() }.is_none(), "the memory was not zeroed");
    assert!(client.connect(&client_configuration, listener.local_addr()).is_ok());
    let peer = connections.recv().unwrap();
    client.until(is_connected);
    peer.until(is_connected);
    let (first, second) = (from_callbacks.recv().unwrap(), from_callbacks.recv().unwrap());
    let text = first.as_ref().expect("no secrets");
    assert_eq!(first, second, "the peers have different secrets");
    assert!(text.contains("CLIENT_TRAFFIC_SECRET_0") && text.contains("SERVER_TRAFFIC_SECRET_0"));
    // After the start it is too late.
    assert_eq!(write_secrets(&client, &client_secrets), Status::INVALID_STATE);
    client.shutdown(0);
    client.until(Event::is_last);
    peer.until(Event::is_last);
    client.close();
    peer.close();
}

/// Has the connection export keying material for a label.
fn export(connection: &impl Open, label: &'static [u8]) -> (Status, [u8; 32]) {
    let handle = connection.handle();
    connection.run(move || {
        let (handle, mut output) = ({ handle }, [0; 32]);
        let mut material = KeyingMaterial {
            label: label.as_ptr(),
            context: ptr::null(),
            output: output.as_mut_ptr(),
            label_length: label.len() as u32,
            context_length: 0,
            output_length: output.len() as u32,
        };
        let mut length = size_of_val(&material) as u32;
        // SAFETY: C37, C5: the structure and what it points to live until the call returns.
        let status = Status::from_raw(unsafe {
            let material = (&raw mut material).cast();
            call!(GetParam(handle.0, QUIC_PARAM_CONN_KEYING_MATERIAL, &raw mut length, material))
        });
        (status, output)
    })
}

#[test]
fn c37_both_sides_export_the_same_keying_material_with_the_patch() {
    let pair = Pair::new();
    let ours = export(&pair.client, b"EXPERIMENTAL one");
    if !is_patched("N32") {
        assert_eq!(ours, (Status::INVALID_PARAMETER, [0; 32]));
        return pair.finish();
    }
    assert_eq!(ours.0, Status::SUCCESS);
    assert_eq!(ours, export(&pair.peer, b"EXPERIMENTAL one"));
    assert_ne!(ours, export(&pair.client, b"EXPERIMENTAL two"));
    assert_ne!(ours.1, [0; 32]);
    let early = pair.registration.open_connection(ignore);
    assert_eq!(export(&early, b"EXPERIMENTAL one").0, Status::INVALID_STATE);
    early.close();
    pair.finish();
}
