//! The list of all behaviours, and the code that runs one.

use crate::Harness;
use crate::stage::Stage;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::time::timeout;

/// The time limit of a behaviour.
const LIMIT: Duration = Duration::from_secs(120);

/// An optional capability of a transport, which some behaviours need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "the names are those after `without:`")]
#[non_exhaustive]
pub enum Capability {
    /// [`Harness::raw_peer`]: sending bytes that are not messages.
    raw_peer,
    /// [`Harness::anonymous_peer`]: dialling without a certificate.
    anonymous_peer,
    /// The peer receives the code and reason of `close`.
    close_reason,
    /// [`Limits::max_connections`](crate::Limits::max_connections) and its form per identity are
    /// enforced.
    connection_limit,
    /// The timeouts of [`Limits`](crate::Limits) are enforced.
    timeouts,
    /// Questions and answers, see [`NetRequests`](net_traits::NetRequests).
    requests,
    /// [`NetConnection::send_acked`](net_traits::NetConnection::send_acked).
    receipts,
    /// [`NetConnection::datagrams`](net_traits::NetConnection::datagrams).
    datagrams,
    /// [`Harness::path`]: a path between peers that can be interrupted.
    path,
}

/// Whether a behaviour runs once, or again with the roles swapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roles {
    /// The behaviour assigns its roles itself.
    Once,
    /// `one` dials in the first run, and `other` in the second.
    Swapped,
}

/// A contract and its test.
pub struct Behaviour<H> {
    /// Its name, such as `message::echo`.
    pub name: &'static str,
    /// The capabilities that it needs.
    pub needs: Option<Capability>,
    /// Which peer dials.
    pub roles: Roles,
    play: fn(Stage<H>) -> BoxFuture<'static, ()>,
}

/// Calls a macro with the list of all behaviours: name, capabilities and roles.
#[macro_export]
#[doc(hidden)]
macro_rules! __behaviours {
    ([$($callback:tt)*] $arguments:tt) => {
        $($callback)*! {
            $arguments
            connect {
                each_side_knows_both_addresses [] Once,
                a_listener_on_all_addresses_is_dual_stack [] Once,
                the_unspecified_address_is_this_host [] Once,
                addresses_of_no_host_are_invalid_input [] Once,
                the_port_of_a_dropped_listener_is_free [] Once,
                a_port_in_use_is_a_typed_error [] Once,
                no_listener_is_a_typed_error [] Once,
                a_common_protocol_is_negotiated [] Once,
                no_common_protocol_is_a_typed_error [] Once,
                no_protocol_is_invalid_input [] Once,
                a_refused_peer_is_notified [] Once,
                a_dropped_request_is_rejected [] Once,
                a_slow_peer_does_not_delay_others [] Once,
                a_cancelled_accept_loses_no_request [] Once,
            }
            identity {
                identities_match [] Once,
                endorsers_are_reported [] Once,
                every_trust_policy_is_applied [] Once,
                a_rejection_by_the_listener_is_reported [] Once,
                a_rejection_by_the_dialler_is_reported [] Once,
                a_peer_without_a_certificate_is_rejected [anonymous_peer] Once,
                a_new_credential_applies_to_new_peers [] Once,
                a_new_trust_policy_applies_to_new_peers [] Once,
                a_revocation_closes_untrusted_connections [] Once,
                nothing_of_a_revoked_peer_is_received [] Swapped,
                a_connection_ends_with_the_endorsement_of_its_peer [close_reason] Swapped,
                debug_output_contains_no_secrets [] Once,
            }
            credentials {
                common_keys_are_accepted [] Once,
                unsupported_keys_are_reported [] Once,
                a_verifier_that_panics_rejects [] Once,
            }
            message {
                echo [] Swapped,
                empty_messages_arrive [] Swapped,
                a_message_of_the_limit_arrives [] Swapped,
                a_message_over_the_limit_is_rejected [] Swapped,
                messages_keep_their_order [] Swapped,
                concurrent_messages_are_not_interleaved [] Swapped,
                both_directions_are_independent [] Once,
                parts_are_sent_as_one_message [] Swapped,
                receivers_share_the_messages [] Swapped,
                a_cancelled_recv_loses_nothing [] Swapped,
                a_cancelled_send_is_all_or_nothing [] Swapped,
                try_send_queues_or_would_block [] Swapped,
                flush_returns [] Swapped,
                a_flush_waits_for_the_peer [path] Swapped,
                an_acked_message_was_taken [receipts] Swapped,
                without_a_receipt_the_message_is_unknown [receipts] Swapped,
                send_waits_for_a_slow_reader [] Swapped,
                tasks_that_are_always_ready_yield [] Swapped,
                an_announcement_beyond_the_limit_is_an_error [raw_peer] Once,
                an_end_inside_a_message_is_an_error [raw_peer] Once,
                an_end_between_messages_is_clean [raw_peer] Once,
                a_cancelled_recv_keeps_every_byte [raw_peer] Once,
            }
            batch {
                send_many_removes_what_it_queues [] Swapped,
                a_cancelled_send_many_keeps_the_rest [] Swapped,
                try_recv_does_not_wait [] Swapped,
                recv_many_appends_what_has_arrived [] Swapped,
                batches_that_are_always_ready_yield [] Swapped,
            }
            close {
                messages_sent_before_a_close_are_delivered [] Swapped,
                a_connection_may_end_before_it_is_returned [] Swapped,
                a_slow_receiver_loses_nothing [] Swapped,
                code_and_reason_reach_the_peer [close_reason] Swapped,
                codes_and_reasons_are_limited [close_reason] Swapped,
                all_waiters_are_woken [close_reason] Swapped,
                polling_for_the_end_uses_constant_memory [] Swapped,
                a_close_ends_pending_operations [] Swapped,
                a_second_close_does_nothing [close_reason] Swapped,
                messages_lost_by_an_end_are_counted [] Swapped,
                a_flush_ends_with_the_connection [path] Swapped,
                abort_reaches_the_peer [close_reason] Swapped,
                an_abort_ends_a_pending_close [] Swapped,
                a_revocation_ends_a_pending_close [] Swapped,
                a_close_returns_what_was_not_delivered [] Swapped,
                a_close_of_a_closed_connection_returns_the_reason [] Swapped,
                what_arrives_during_a_close_can_be_received [] Swapped,
                simultaneous_closes_return_correct_outcomes [] Swapped,
            }
            handles {
                dropping_the_last_handle_closes [] Swapped,
                messages_sent_before_a_drop_are_delivered [] Swapped,
                handles_may_be_dropped_anywhere [] Swapped,
                a_dropped_connection_lingers_for_a_limited_time [] Swapped,
                a_lingering_connection_can_be_closed [] Swapped,
                messages_lost_by_a_drop_are_counted [] Swapped,
                connections_outlive_listener_and_transport [] Swapped,
                handles_may_be_dropped_in_any_order [] Swapped,
                nothing_is_held_without_handles [] Swapped,
            }
            request {
                each_question_gets_its_answer [requests] Swapped,
                refused_questions_are_reported [requests] Swapped,
                cancelled_questions_are_reported [requests] Swapped,
                refusals_and_cancellations_pass_full_queues [requests] Swapped,
                questions_have_a_deadline [requests] Swapped,
                questions_over_the_limit_are_rejected [requests] Swapped,
                closing_ends_requests [requests] Swapped,
                questions_of_a_revoked_peer_are_not_handed_out [requests] Swapped,
            }
            datagram {
                datagrams_arrive_whole [datagrams] Swapped,
                a_cancelled_recv_loses_no_datagram [datagrams] Swapped,
                datagrams_end_with_the_connection [datagrams] Swapped,
                datagrams_of_a_revoked_peer_are_not_handed_out [datagrams] Swapped,
            }
            polling {
                the_last_waker_is_enough [] Swapped,
                the_last_waker_is_enough_for_requests [requests] Swapped,
                a_dropped_waiter_passes_its_wake_on [] Swapped,
                operations_that_need_not_wait_yield [] Swapped,
                requests_that_need_not_wait_yield [requests] Swapped,
                acked_sends_that_need_not_wait_yield [receipts] Swapped,
            }
            dropping {
                a_recv_takes_nothing_at_any_step [] Swapped,
                a_send_queues_all_or_nothing_at_any_step [] Swapped,
                a_recv_datagram_takes_nothing_at_any_step [datagrams] Swapped,
                a_flush_changes_nothing_at_any_step [] Swapped,
                a_listen_leaves_nothing_at_any_step [] Once,
                a_revocation_can_be_repeated_at_any_step [] Swapped,
                attempts_leave_nothing_at_any_step [] Swapped,
                a_close_closes_at_any_step [] Swapped,
                requests_leave_the_connection_usable_at_any_step [requests] Swapped,
            }
            operation {
                open_connections_are_listed [] Swapped,
                closing_a_peer_closes_its_connections [close_reason] Once,
                messages_are_counted [] Swapped,
                refused_attempts_are_counted [connection_limit] Once,
                messages_over_the_limit_are_counted [raw_peer] Once,
                shutdown_closes_gracefully [close_reason] Once,
                shutdown_keeps_its_deadline [] Swapped,
                shutdown_does_not_wait_for_handshakes [] Once,
                shutdown_ends_dials_before_it_has_closed [path] Once,
                handles_outlive_their_runtime [] Swapped,
            }
            limits {
                connections_are_limited [connection_limit] Once,
                the_newest_connection_of_an_identity_replaces_the_oldest [connection_limit] Once,
                the_newest_connection_is_the_one_whose_handshake_began_last [connection_limit] Once,
                a_handshake_times_out [timeouts] Once,
                sending_to_a_stuck_peer_times_out [timeouts] Swapped,
                an_operation_ends_after_its_total_time [timeouts] Swapped,
                a_peer_that_keeps_announcing_too_much_is_disconnected [raw_peer] Once,
                an_unfinished_message_times_out [raw_peer] Once,
                an_unfinished_question_times_out [raw_peer] Once,
                the_connection_that_holds_most_memory_is_ended [raw_peer] Once,
            }
        }
    };
}

macro_rules! list {
    ({} $($group:ident { $($name:ident [$($needs:ident)?] $roles:ident,)* })*) => {
        /// Returns all behaviours.
        pub fn behaviours<H: Harness>() -> Vec<Behaviour<H>> {
            vec![$($(Behaviour {
                name: concat!(stringify!($group), "::", stringify!($name)),
                needs: None$(.or(Some(Capability::$needs)))?,
                roles: Roles::$roles,
                play: |stage| crate::suite::$group::$name(stage).boxed(),
            },)*)*]
        }
    };
}

__behaviours!([list] {});

impl<H: Harness> Behaviour<H> {
    /// Runs the behaviour once or twice.
    ///
    /// # Panics
    ///
    /// If the transport violates the contract, or the behaviour takes longer than two minutes.
    pub async fn play(&self, harness: &Arc<H>) {
        let both: &[bool] = match self.roles {
            Roles::Once => &[false],
            Roles::Swapped => &[false, true],
        };
        for is_swapped in both.iter().copied() {
            let stage = Stage { harness: harness.clone(), is_swapped };
            let played = timeout(LIMIT, (self.play)(stage)).await;
            let name = self.name;
            assert!(played.is_ok(), "{name} hangs, with swapped roles: {is_swapped}");
        }
    }
}

/// Runs the behaviour `name` on its own runtime; called by [`conformance!`](crate::conformance).
///
/// # Panics
///
/// If the transport violates the contract, or there is no such behaviour.
pub fn run<H: Harness>(harness: H, name: &str) {
    let behaviour = behaviours().into_iter().find(|behaviour| behaviour.name == name);
    let behaviour = behaviour.unwrap_or_else(|| panic!("there is no behaviour {name}"));
    // On its own thread, so that a blocked behaviour cannot keep the test from failing.
    let (running, ended) = mpsc::channel::<()>();
    let play = move || {
        let _running = running;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        runtime.expect("a runtime can be started").block_on(behaviour.play(&Arc::new(harness)));
    };
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(play);
    let thread = thread.expect("a thread can be started");
    match ended.recv_timeout(3 * LIMIT) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name} blocks a thread"),
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

/// Defines a test for each behaviour.
///
/// The first argument is an expression that creates a [`Harness`](crate::Harness), one per test.
/// `without:` lists the [`Capability`](crate::Capability) names that the transport lacks; their
/// tests are ignored.
///
/// Call it once in a file of `tests/`; see the [crate](crate) for an example.
#[macro_export]
macro_rules! conformance {
    ($harness:expr $(,)?) => {
        $crate::conformance!($harness, without: []);
    };
    ($harness:expr, without: [$($lacks:ident),* $(,)?] $(,)?) => {
        fn __harness() -> impl $crate::Harness {
            $harness
        }
        // A name that is not a capability does not compile.
        const _: &[$crate::Capability] = &[$($crate::Capability::$lacks),*];
        $crate::__behaviours!([$crate::__groups] { $($lacks)* });
    };
}

#[macro_export]
#[doc(hidden)]
macro_rules! __groups {
    ($lacks:tt $($group:ident { $($name:ident $needs:tt $roles:ident,)* })*) => {
        $(mod $group {
            $($crate::__test!($needs $lacks $group $name);)*
        })*
    };
}

/// Defines a test, ignored if the transport lacks a capability that it needs.
#[macro_export]
#[doc(hidden)]
macro_rules! __test {
    ([raw_peer] { raw_peer $($rest:ident)* } $group:ident $name:ident) => {
        $crate::__test!("the transport lacks raw_peer", $group $name);
    };
    ([anonymous_peer] { anonymous_peer $($rest:ident)* } $group:ident $name:ident) => {
        $crate::__test!("the transport lacks anonymous_peer", $group $name);
    };
    ([close_reason] { close_reason $($rest:ident)* } $group:ident $name:ident) => {
        $crate::__test!("the transport lacks close_reason", $group $name);
    };
    ([connection_limit] { connection_limit $($rest:ident)* } $group:ident $name:ident) => {
        $crate::__test!("the transport lacks connection_limit", $group $name);
    };
    ([requests] { requests $($rest:ident)* } $group:ident $name:ident) => {
        $crate::__test!("the transport lacks requests", $group $name);
    };
    ([receipts] { receipts $($rest:ident)* } $group:ident $name:ident) => {
        $crate::__test!("the transport lacks receipts", $group $name);
    };
    ([datagrams] { datagrams $($rest:ident)* } $group:ident $name:ident) => {
        $crate::__test!("the transport lacks datagrams", $group $name);
    };
    ([path] { path $($rest:ident)* } $group:ident $name:ident) => {
        $crate::__test!("the transport lacks path", $group $name);
    };
    ([timeouts] { timeouts $($rest:ident)* } $group:ident $name:ident) => {
        $crate::__test!("the transport lacks timeouts", $group $name);
    };
    ([$($needs:ident)?] { } $group:ident $name:ident) => {
        #[test]
        fn $name() {
            $crate::run(super::__harness(), concat!(stringify!($group), "::", stringify!($name)));
        }
    };
    ($needs:tt { $other:ident $($rest:ident)* } $group:ident $name:ident) => {
        $crate::__test!($needs { $($rest)* } $group $name);
    };
    ($why:literal, $group:ident $name:ident) => {
        #[test]
        #[ignore = $why]
        fn $name() {
            $crate::run(super::__harness(), concat!(stringify!($group), "::", stringify!($name)));
        }
    };
}
