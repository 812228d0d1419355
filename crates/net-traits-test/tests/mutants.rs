//! Tests the suite: each behaviour fails on a transport that violates its contract, and on no
//! other.
//!
//! All tests run on a paused clock, so a hanging behaviour takes no time.

mod broken;
mod common;

use broken::{Broken, Fault};
use net_traits_test::behaviours;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Returns the behaviours that fail with a fault.
fn failing(fault: Fault) -> Vec<&'static str> {
    let mut failing = Vec::new();
    for behaviour in behaviours() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let harness = Arc::new(Broken::new(fault));
        let play = || runtime.block_on(behaviour.play(&harness));
        if catch_unwind(AssertUnwindSafe(play)).is_err() {
            failing.push(behaviour.name);
        }
    }
    failing
}

#[test]
fn a_transport_without_faults_passes() {
    assert_eq!(failing(Fault::Nothing), Vec::<&str>::new());
}

#[test]
fn every_behaviour_has_a_mutant() {
    for behaviour in behaviours::<Broken>() {
        let count = MUTANTS.iter().filter(|(_, name)| *name == behaviour.name).count();
        assert!(count > 0, "no mutant tests {}", behaviour.name);
    }
}

macro_rules! mutants {
    ($($test:ident: $fault:ident => $($behaviour:literal)&+,)*) => {
        const MUTANTS: &[(Fault, &str)] = &[$($((Fault::$fault, $behaviour)),+),*];

        $(#[test]
        fn $test() {
            assert_eq!(failing(Fault::$fault), [$($behaviour),+]);
        })*
    };
}

mutants! {
    remote_address_is_wrong: RemoteAddressIsWrong =>
        "connect::addresses_are_real",
    all_addresses_are_ipv6: AllAddressesAreIpv6 =>
        "connect::a_listener_on_all_addresses_takes_both_families",
    the_unspecified_address_is_refused: TheUnspecifiedAddressIsRefused =>
        "connect::the_unspecified_address_is_this_host",
    multicast_addresses_time_out: MulticastAddressesTimeOut =>
        "connect::addresses_of_no_host_are_invalid_input",
    listeners_leak: ListenersLeak =>
        "connect::a_port_is_free_again",
    taken_port_is_another_error: TakenPortIsAnotherError =>
        "connect::a_taken_port_is_refused",
    missing_listener_is_another_error: MissingListenerIsAnotherError =>
        "connect::no_listener_is_a_typed_error",
    protocol_is_the_wrong_one: ProtocolIsTheWrongOne =>
        "connect::a_protocol_is_agreed_on",
    no_common_protocol_is_a_refusal: NoCommonProtocolIsARefusal =>
        "connect::no_common_protocol_is_a_typed_error",
    no_protocol_is_another_error: NoProtocolIsAnotherError =>
        "connect::no_protocol_is_invalid_input",
    refused_requests_leak: RefusedRequestsLeak =>
        "connect::refusing_is_told",
    dropped_requests_leak: DroppedRequestsLeak =>
        "connect::a_dropped_request_is_rejected",
    one_handshake_at_a_time: OneHandshakeAtATime =>
        "connect::a_slow_peer_does_not_delay_others",
    accept_loses_requests: AcceptLosesRequests =>
        "connect::a_cancelled_accept_loses_no_request",
    remote_identity_is_the_local_one: RemoteIdentityIsTheLocalOne =>
        "identity::identities_match",
    endorsers_are_forgotten: EndorsersAreForgotten =>
        "identity::endorsers_are_told",
    custom_policies_are_ignored: CustomPoliciesAreIgnored =>
        "identity::every_trust_policy_is_applied",
    listener_forgets_whom_it_rejected: ListenerForgetsWhomItRejected =>
        "identity::a_listener_that_rejects_says_so",
    dialler_forgets_it_rejected: DiallerForgetsItRejected =>
        "identity::a_dialler_that_rejects_says_so",
    anonymous_is_a_refusal: AnonymousIsARefusal =>
        "identity::a_peer_without_a_certificate_is_rejected",
    new_credentials_are_ignored: NewCredentialsAreIgnored =>
        "identity::a_new_credential_counts_for_new_peers",
    new_trust_is_ignored: NewTrustIsIgnored =>
        "identity::a_new_trust_counts_for_new_peers",
    revocations_are_ignored: RevocationsAreIgnored =>
        "identity::revocation_closes_what_is_not_trusted",
    ended_trust_is_ignored: EndedTrustIsIgnored =>
        "identity::a_connection_ends_with_the_endorsement_of_its_peer",
    end_of_trust_is_not_told: EndOfTrustIsNotTold =>
        "identity::a_connection_ends_with_the_endorsement_of_its_peer",
    revoked_messages_are_handed_out: RevokedMessagesAreHandedOut =>
        "identity::nothing_of_a_revoked_peer_is_received",
    debug_shows_the_key: DebugShowsTheKey =>
        "identity::nothing_secret_is_printed",
    newer_keys_are_refused: NewerKeysAreRefused =>
        "credentials::common_keys_are_taken",
    unsupported_keys_are_damage: UnsupportedKeysAreDamage =>
        "credentials::unsupported_keys_are_named",
    panics_of_verifiers_are_not_told: PanicsOfVerifiersAreNotTold =>
        "credentials::a_verifier_that_panics_rejects",
    only_ascii_arrives: OnlyAsciiArrives =>
        "message::echo",
    empty_messages_are_skipped: EmptyMessagesAreSkipped =>
        "message::empty_messages_arrive",
    the_limit_is_one_too_low: TheLimitIsOneTooLow =>
        "message::a_message_of_the_limit_arrives",
    too_large_closes: TooLargeCloses =>
        "message::a_longer_message_is_refused",
    two_messages_are_swapped: TwoMessagesAreSwapped =>
        "message::messages_keep_their_order",
    concurrent_messages_are_torn: ConcurrentMessagesAreTorn =>
        "message::concurrent_messages_stay_whole",
    half_duplex: HalfDuplex =>
        "message::both_directions_go_at_once",
    parts_are_messages: PartsAreMessages =>
        "message::parts_are_one_message",
    one_receiver_only: OneReceiverOnly =>
        "message::receivers_share_the_messages",
    recv_loses_messages: RecvLosesMessages =>
        "message::a_cancelled_recv_loses_nothing",
    recv_loses_bytes: RecvLosesBytes =>
        "message::a_cancelled_recv_keeps_every_byte",
    dropped_sends_leave_halves: DroppedSendsLeaveHalves =>
        "message::a_cancelled_send_is_all_or_nothing",
    try_send_forgets: TrySendForgets =>
        "message::try_send_takes_or_refuses",
    flush_hangs: FlushHangs =>
        "message::flush_returns",
    queued_is_taken: QueuedIsTaken =>
        "message::an_acked_message_was_taken",
    unknown_is_taken: UnknownIsTaken =>
        "message::without_a_receipt_the_message_is_unknown",
    sending_never_pauses: SendingNeverPauses =>
        "message::tasks_that_are_always_ready_let_others_run",
    receiving_never_pauses: ReceivingNeverPauses =>
        "message::tasks_that_are_always_ready_let_others_run",
    queue_counts_messages: QueueCountsMessages =>
        "message::a_slow_reader_makes_send_wait",
    too_large_is_the_end: TooLargeIsTheEnd =>
        "message::an_announcement_beyond_the_limit_is_an_error",
    truncated_is_skipped: TruncatedIsSkipped =>
        "message::an_end_inside_a_message_is_an_error",
    silence_is_truncated: SilenceIsTruncated =>
        "message::an_end_between_messages_is_clean",
    the_end_overtakes: TheEndOvertakes =>
        "close::what_was_sent_before_is_delivered",
    only_a_few_are_kept: OnlyAFewAreKept =>
        "close::a_slow_receiver_loses_nothing",
    codes_are_bytes: CodesAreBytes =>
        "close::code_and_reason_reach_the_peer",
    codes_wrap_around: CodesWrapAround =>
        "close::codes_and_reasons_are_limited",
    reasons_are_cut_early: ReasonsAreCutEarly =>
        "close::codes_and_reasons_are_limited",
    ten_watchers: TenWatchers =>
        "close::everybody_who_watches_is_woken",
    wakers_pile_up: WakersPileUp =>
        "close::polling_for_the_end_does_not_grow",
    pending_recv_forgets_why: PendingRecvForgetsWhy =>
        "close::closing_ends_what_waits",
    closing_twice_hangs: ClosingTwiceHangs =>
        "close::closing_twice_is_closing_once",
    the_second_close_counts: TheSecondCloseCounts =>
        "close::closing_twice_is_closing_once",
    clones_leak: ClonesLeak =>
        "close::dropping_the_last_handle_closes",
    drops_discard: DropsDiscard =>
        "close::what_was_sent_before_a_drop_is_delivered",
    drops_need_a_runtime: DropsNeedARuntime =>
        "close::handles_are_dropped_anywhere",
    drops_linger_for_ever: DropsLingerForEver =>
        "close::a_drop_does_not_linger_for_ever",
    losses_are_not_counted: LossesAreNotCounted =>
        "close::what_a_drop_loses_is_counted",
    transports_take_connections_along: TransportsTakeConnectionsAlong =>
        "close::connections_outlive_what_made_them",
    orphans_leak: OrphansLeak =>
        "close::any_order_of_drops_ends",
    abort_forgets_the_code: AbortForgetsTheCode =>
        "close::abort_reaches_the_peer",
    abort_leaves_close_waiting: AbortLeavesCloseWaiting =>
        "close::abort_ends_a_close_that_waits",
    abort_hurries_a_close: AbortHurriesAClose =>
        "close::abort_ends_a_close_that_waits",
    revocations_wait_for_a_close: RevocationsWaitForAClose =>
        "close::revocation_ends_a_close_that_waits",
    close_forgets_what_was_lost: CloseForgetsWhatWasLost =>
        "close::a_close_tells_what_was_not_delivered",
    the_second_close_is_the_first: TheSecondCloseIsTheFirst =>
        "close::a_close_tells_that_it_is_over",
    each_close_has_delivered: EachCloseHasDelivered =>
        "close::a_close_that_meets_another_tells_the_truth",
    empty_answers_are_lost: EmptyAnswersAreLost =>
        "request::each_question_gets_its_answer",
    refusals_forget_the_code: RefusalsForgetTheCode =>
        "request::refused_questions_are_told",
    cancellations_are_not_told: CancellationsAreNotTold =>
        "request::cancelled_questions_are_told",
    refusals_need_room: RefusalsNeedRoom =>
        "request::full_queues_delay_no_end_for_ever",
    cancellations_need_room: CancellationsNeedRoom =>
        "request::full_queues_delay_no_end_for_ever",
    requests_have_no_deadline: RequestsHaveNoDeadline =>
        "request::questions_have_a_deadline",
    questions_are_unlimited: QuestionsAreUnlimited =>
        "request::long_questions_are_refused",
    requests_outlive_connections: RequestsOutliveConnections =>
        "request::closing_ends_requests",
    revoked_questions_are_handed_out: RevokedQuestionsAreHandedOut =>
        "request::questions_of_a_revoked_peer_are_not_handed_out",
    revoked_questions_are_read: RevokedQuestionsAreRead =>
        "request::questions_of_a_revoked_peer_are_not_handed_out",
    datagrams_are_cut: DatagramsAreCut =>
        "datagram::datagrams_arrive_whole",
    dropped_recv_loses_a_datagram: DroppedRecvLosesADatagram =>
        "datagram::a_cancelled_recv_loses_no_datagram",
    datagrams_forget_the_end: DatagramsForgetTheEnd =>
        "datagram::the_end_ends_datagrams",
    revoked_datagrams_are_handed_out: RevokedDatagramsAreHandedOut =>
        "datagram::datagrams_of_a_revoked_peer_are_not_handed_out",
    connections_are_not_listed: ConnectionsAreNotListed =>
        "operation::open_connections_are_listed",
    ended_connections_are_listed: EndedConnectionsAreListed =>
        "operation::open_connections_are_listed",
    ended_connections_are_counted: EndedConnectionsAreCounted =>
        "operation::open_connections_are_listed",
    closing_a_peer_closes_all: ClosingAPeerClosesAll =>
        "operation::closing_a_peer_closes_its_connections",
    tried_messages_are_not_counted: TriedMessagesAreNotCounted =>
        "operation::messages_are_counted",
    refusals_are_not_counted: RefusalsAreNotCounted =>
        "operation::refused_attempts_are_counted",
    overlong_messages_are_not_counted: OverlongMessagesAreNotCounted =>
        "operation::messages_over_the_limit_are_counted",
    shutdown_forgets_listeners: ShutdownForgetsListeners =>
        "operation::shutdown_ends_everything_in_order",
    shutdown_forgets_the_reason: ShutdownForgetsTheReason =>
        "operation::shutdown_ends_everything_in_order",
    shutdown_ignores_its_deadline: ShutdownIgnoresItsDeadline =>
        "operation::shutdown_keeps_its_deadline",
    receiving_needs_its_runtime: ReceivingNeedsItsRuntime =>
        "operation::handles_outlive_their_runtime",
    connections_are_unlimited: ConnectionsAreUnlimited =>
        "limits::connections_are_limited",
    identities_are_unlimited: IdentitiesAreUnlimited =>
        "limits::the_newest_connection_of_an_identity_stays",
    handshake_timeout_is_ignored: HandshakeTimeoutIsIgnored =>
        "limits::a_handshake_ends_in_time",
    handshake_timeout_is_not_told: HandshakeTimeoutIsNotTold =>
        "limits::a_handshake_ends_in_time",
    send_timeout_is_not_told: SendTimeoutIsNotTold =>
        "limits::sending_to_a_stuck_peer_ends_in_time",
    operations_have_no_total_time: OperationsHaveNoTotalTime =>
        "limits::an_operation_ends_after_its_total_time",
    unfinished_messages_stay: UnfinishedMessagesStay =>
        "limits::an_unfinished_message_ends_in_time"
        & "limits::an_unfinished_question_ends_in_time",
    unfinished_messages_are_not_counted: UnfinishedMessagesAreNotCounted =>
        "limits::an_unfinished_message_ends_in_time",
    unfinished_questions_stay: UnfinishedQuestionsStay =>
        "limits::an_unfinished_question_ends_in_time",
    memory_is_unlimited: MemoryIsUnlimited =>
        "limits::the_peer_that_holds_most_gives_way",
}
