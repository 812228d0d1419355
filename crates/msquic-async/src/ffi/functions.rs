//! `Functions`: the functions of the API table that this crate calls, none of them missing.

use msquic::ffi;
use std::sync::OnceLock;

/// A function of the table is an `Option` there.
pub(super) trait Optional {
    type Some;
}

impl<F> Optional for Option<F> {
    type Some = F;
}

macro_rules! functions {
    ($($(#[$attribute:meta])* $name:ident: $type:ident,)*) => {
        /// The functions that this crate calls. Looked up once, when the library is loaded.
        #[expect(non_snake_case, reason = "the names of the table")]
        #[allow(dead_code, reason = "some are called with a driver, or by tests only")]
        pub(super) struct Functions {
            $($(#[$attribute])* pub(super) $name: <ffi::$type as Optional>::Some,)*
        }

        impl Functions {
            /// `None` if the table lacks one.
            fn of(table: &ffi::QUIC_API_TABLE) -> Option<Self> {
                Some(Self { $($(#[$attribute])* $name: table.$name?,)* })
            }
        }
    };
}

functions! {
    ConfigurationClose: QUIC_CONFIGURATION_CLOSE_FN,
    ConfigurationLoadCredential: QUIC_CONFIGURATION_LOAD_CREDENTIAL_FN,
    ConfigurationOpen: QUIC_CONFIGURATION_OPEN_FN,
    ConnectionClose: QUIC_CONNECTION_CLOSE_FN,
    ConnectionOpen: QUIC_CONNECTION_OPEN_FN,
    ConnectionSendResumptionTicket: QUIC_CONNECTION_SEND_RESUMPTION_FN,
    ConnectionSetConfiguration: QUIC_CONNECTION_SET_CONFIGURATION_FN,
    ConnectionShutdown: QUIC_CONNECTION_SHUTDOWN_FN,
    ConnectionStart: QUIC_CONNECTION_START_FN,
    DatagramSend: QUIC_DATAGRAM_SEND_FN,
    #[cfg(all(feature = "driver", target_os = "linux"))]
    ExecutionCreate: QUIC_EXECUTION_CREATE_FN,
    #[cfg(all(feature = "driver", target_os = "linux"))]
    ExecutionPoll: QUIC_EXECUTION_POLL_FN,
    GetParam: QUIC_GET_PARAM_FN,
    ListenerClose: QUIC_LISTENER_CLOSE_FN,
    ListenerOpen: QUIC_LISTENER_OPEN_FN,
    ListenerStart: QUIC_LISTENER_START_FN,
    ListenerStop: QUIC_LISTENER_STOP_FN,
    RegistrationClose: QUIC_REGISTRATION_CLOSE_FN,
    RegistrationOpen: QUIC_REGISTRATION_OPEN_FN,
    SetCallbackHandler: QUIC_SET_CALLBACK_HANDLER_FN,
    SetParam: QUIC_SET_PARAM_FN,
    StreamClose: QUIC_STREAM_CLOSE_FN,
    StreamOpen: QUIC_STREAM_OPEN_FN,
    StreamReceiveComplete: QUIC_STREAM_RECEIVE_COMPLETE_FN,
    StreamReceiveSetEnabled: QUIC_STREAM_RECEIVE_SET_ENABLED_FN,
    StreamSend: QUIC_STREAM_SEND_FN,
    StreamShutdown: QUIC_STREAM_SHUTDOWN_FN,
    StreamStart: QUIC_STREAM_START_FN,
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// Keeps the functions of the library's table, once; `None` if the table lacks one.
pub(super) fn set(table: &ffi::QUIC_API_TABLE) -> Option<()> {
    let functions = Functions::of(table)?;
    FUNCTIONS.get_or_init(|| functions);
    Some(())
}

/// The functions of the library, which is loaded: a handle exists.
pub(super) fn functions() -> &'static Functions {
    match FUNCTIONS.get() {
        Some(functions) => functions,
        None => unreachable!("a handle of a library that is not loaded"),
    }
}

/// Calls a function of the API table.
macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {
        ($crate::ffi::functions::functions().$function)($($argument),*)
    };
}
pub(super) use call;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_lacks_a_function_is_refused() {
        let mut table = *crate::api_table().unwrap();
        assert!(Functions::of(&table).is_some());
        table.StreamSend = None;
        assert!(Functions::of(&table).is_none());
    }
}
