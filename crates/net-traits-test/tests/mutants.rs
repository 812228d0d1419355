//! Tests the suite: each behaviour fails on the transports that violate its contract, and on no
//! others.
//!
//! All tests run on a paused clock, so a hanging behaviour takes no time.

mod broken;
mod common;

use broken::{Broken, Fault};
use net_traits_test::{behaviours, random};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

fn on_paused_clock(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test);
}

/// Returns the behaviours that fail with a fault.
fn failing(fault: Fault) -> Vec<&'static str> {
    let mut failing = Vec::new();
    for behaviour in behaviours() {
        let harness = Arc::new(Broken::new(fault));
        let play = || on_paused_clock(behaviour.play(&harness));
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

/// Random schedules find faults that need no special case.
#[test]
fn random_schedules_find_faults() {
    let fails = |fault, seed| {
        let play = || on_paused_clock(random::play(&Arc::new(Broken::new(fault)), seed));
        catch_unwind(AssertUnwindSafe(play)).is_err()
    };
    for fault in [
        Fault::OnlyAFewAreKept,
        Fault::CodesAreBytes,
        Fault::ClonesLeak,
        Fault::TriedMessagesAreNotCounted,
        Fault::RecvLosesMessages,
        Fault::EndedConnectionsAreNotReturned,
    ] {
        assert!((0..1000).any(|seed| fails(fault, seed)), "{fault:?} is not found");
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
        "connect::each_side_knows_both_addresses",
    all_addresses_are_ipv6: AllAddressesAreIpv6 =>
        "connect::a_listener_on_all_addresses_is_dual_stack",
    the_unspecified_address_is_refused: TheUnspecifiedAddressIsRefused =>
        "connect::the_unspecified_address_is_this_host",
    multicast_addresses_time_out: MulticastAddressesTimeOut =>
        "connect::addresses_of_no_host_are_invalid_input",
    listeners_leak: ListenersLeak =>
        "connect::the_port_of_a_dropped_listener_is_free"
            & "dropping::a_listen_leaves_nothing_at_any_step",
    taken_port_is_another_error: TakenPortIsAnotherError =>
        "connect::a_port_in_use_is_a_typed_error",
    missing_listener_is_another_error: MissingListenerIsAnotherError =>
        "connect::no_listener_is_a_typed_error",
    protocol_is_the_wrong_one: ProtocolIsTheWrongOne =>
        "connect::a_common_protocol_is_negotiated",
    no_common_protocol_is_a_refusal: NoCommonProtocolIsARefusal =>
        "connect::no_common_protocol_is_a_typed_error",
    no_protocol_is_another_error: NoProtocolIsAnotherError =>
        "connect::no_protocol_is_invalid_input",
    refused_requests_leak: RefusedRequestsLeak =>
        "connect::a_refused_peer_is_notified",
    refusals_with_huge_codes_leak: RefusalsWithHugeCodesLeak =>
        "connect::a_refused_peer_is_notified",
    dropped_requests_leak: DroppedRequestsLeak =>
        "connect::a_dropped_request_is_rejected"
            & "dropping::attempts_leave_nothing_at_any_step",
    one_handshake_at_a_time: OneHandshakeAtATime =>
        "connect::a_slow_peer_does_not_delay_others"
            & "limits::the_newest_connection_is_the_one_whose_handshake_began_last",
    accept_loses_requests: AcceptLosesRequests =>
        "connect::a_cancelled_accept_loses_no_request"
            & "dropping::attempts_leave_nothing_at_any_step",
    remote_identity_is_the_local_one: RemoteIdentityIsTheLocalOne =>
        "identity::identities_match",
    endorsers_are_forgotten: EndorsersAreForgotten =>
        "identity::endorsers_are_reported",
    custom_policies_are_ignored: CustomPoliciesAreIgnored =>
        "identity::every_trust_policy_is_applied",
    listener_forgets_whom_it_rejected: ListenerForgetsWhomItRejected =>
        "identity::a_rejection_by_the_listener_is_reported",
    dialler_forgets_it_rejected: DiallerForgetsItRejected =>
        "identity::a_rejection_by_the_dialler_is_reported",
    anonymous_is_a_refusal: AnonymousIsARefusal =>
        "identity::a_peer_without_a_certificate_is_rejected",
    new_credentials_are_ignored: NewCredentialsAreIgnored =>
        "identity::a_new_credential_applies_to_new_peers",
    new_trust_is_ignored: NewTrustIsIgnored =>
        "identity::a_new_trust_policy_applies_to_new_peers",
    revocations_are_ignored: RevocationsAreIgnored =>
        "identity::a_revocation_closes_untrusted_connections",
    ended_trust_is_ignored: EndedTrustIsIgnored =>
        "identity::a_connection_ends_with_the_endorsement_of_its_peer",
    end_of_trust_is_not_reported: EndOfTrustIsNotReported =>
        "identity::a_connection_ends_with_the_endorsement_of_its_peer",
    revoked_messages_are_handed_out: RevokedMessagesAreHandedOut =>
        "identity::nothing_of_a_revoked_peer_is_received"
            & "dropping::a_revocation_can_be_repeated_at_any_step",
    revoked_batches_are_handed_out: RevokedBatchesAreHandedOut =>
        "identity::nothing_of_a_revoked_peer_is_received",
    revoked_messages_are_tried: RevokedMessagesAreTried =>
        "identity::nothing_of_a_revoked_peer_is_received",
    debug_shows_the_key: DebugShowsTheKey =>
        "identity::debug_output_contains_no_secrets",
    newer_keys_are_refused: NewerKeysAreRefused =>
        "credentials::common_keys_are_accepted",
    unsupported_keys_are_damage: UnsupportedKeysAreDamage =>
        "credentials::unsupported_keys_are_reported",
    unsupported_keys_are_faults_of_listeners: UnsupportedKeysAreFaultsOfListeners =>
        "credentials::unsupported_keys_are_reported",
    panics_of_verifiers_are_not_reported: PanicsOfVerifiersAreNotReported =>
        "credentials::a_verifier_that_panics_rejects",
    only_ascii_arrives: OnlyAsciiArrives =>
        "message::echo",
    empty_messages_are_skipped: EmptyMessagesAreSkipped =>
        "message::empty_messages_arrive",
    the_limit_is_one_too_low: TheLimitIsOneTooLow =>
        "message::a_message_of_the_limit_arrives",
    too_large_closes: TooLargeCloses =>
        "message::a_message_over_the_limit_is_rejected",
    two_messages_are_swapped: TwoMessagesAreSwapped =>
        "message::messages_keep_their_order",
    concurrent_messages_are_torn: ConcurrentMessagesAreTorn =>
        "message::concurrent_messages_are_not_interleaved",
    half_duplex: HalfDuplex =>
        "message::both_directions_are_independent",
    parts_are_messages: PartsAreMessages =>
        "message::parts_are_sent_as_one_message"
            & "polling::the_last_waker_is_enough",
    one_receiver_only: OneReceiverOnly =>
        "message::receivers_share_the_messages"
            & "polling::a_dropped_waiter_passes_its_wake_on",
    recv_loses_messages: RecvLosesMessages =>
        "message::a_cancelled_recv_loses_nothing"
            & "dropping::a_recv_takes_nothing_at_any_step"
            & "dropping::a_send_queues_all_or_nothing_at_any_step",
    recv_loses_bytes: RecvLosesBytes =>
        "message::a_cancelled_recv_keeps_every_byte",
    dropped_sends_leave_halves: DroppedSendsLeaveHalves =>
        "message::a_cancelled_send_is_all_or_nothing"
            & "dropping::a_send_queues_all_or_nothing_at_any_step",
    try_send_forgets: TrySendForgets =>
        "message::try_send_queues_or_would_block"
            & "polling::the_last_waker_is_enough"
            & "dropping::a_flush_changes_nothing_at_any_step",
    send_many_keeps_what_it_queued: SendManyKeepsWhatItQueued =>
        "batch::send_many_removes_what_it_queues",
    dropped_send_many_keeps_all: DroppedSendManyKeepsAll =>
        "batch::a_cancelled_send_many_keeps_the_rest",
    try_recv_finds_nothing: TryRecvFindsNothing =>
        "batch::try_recv_does_not_wait",
    recv_many_ignores_its_limit: RecvManyIgnoresItsLimit =>
        "batch::recv_many_appends_what_has_arrived",
    dropped_recv_many_appends: DroppedRecvManyAppends =>
        "batch::recv_many_appends_what_has_arrived"
            & "dropping::a_recv_takes_nothing_at_any_step",
    send_many_never_pauses: SendManyNeverPauses =>
        "batch::batches_that_are_always_ready_yield",
    recv_many_never_pauses: RecvManyNeverPauses =>
        "batch::batches_that_are_always_ready_yield",
    try_recv_never_pauses: TryRecvNeverPauses =>
        "batch::batches_that_are_always_ready_yield",
    flush_hangs: FlushHangs =>
        "message::flush_returns"
        & "message::a_flush_waits_for_the_peer"
        & "close::a_flush_ends_with_the_connection"
        & "close::what_arrives_during_a_close_can_be_received"
        & "polling::the_last_waker_is_enough"
        & "polling::operations_that_need_not_wait_yield"
        & "dropping::a_flush_changes_nothing_at_any_step",
    flush_is_local: FlushIsLocal =>
        "message::a_flush_waits_for_the_peer"
            & "polling::operations_that_need_not_wait_yield",
    flush_forgets_the_end: FlushForgetsTheEnd =>
        "close::a_flush_ends_with_the_connection",
    queued_is_taken: QueuedIsTaken =>
        "message::an_acked_message_was_taken",
    unknown_is_taken: UnknownIsTaken =>
        "message::without_a_receipt_the_message_is_unknown",
    sending_never_pauses: SendingNeverPauses =>
        "message::tasks_that_are_always_ready_yield"
            & "polling::operations_that_need_not_wait_yield",
    receiving_never_pauses: ReceivingNeverPauses =>
        "message::tasks_that_are_always_ready_yield"
            & "polling::operations_that_need_not_wait_yield",
    queue_counts_messages: QueueCountsMessages =>
        "message::send_waits_for_a_slow_reader"
            & "polling::the_last_waker_is_enough"
            & "limits::an_operation_ends_after_its_total_time",
    too_large_is_the_end: TooLargeIsTheEnd =>
        "message::an_announcement_beyond_the_limit_is_an_error"
            & "limits::a_peer_that_keeps_announcing_too_much_is_disconnected",
    truncated_is_skipped: TruncatedIsSkipped =>
        "message::an_end_inside_a_message_is_an_error",
    silence_is_truncated: SilenceIsTruncated =>
        "message::an_end_between_messages_is_clean",
    the_end_overtakes: TheEndOvertakes =>
        "close::messages_sent_before_a_close_are_delivered",
    ended_connections_are_not_returned: EndedConnectionsAreNotReturned =>
        "close::a_connection_may_end_before_it_is_returned",
    only_a_few_are_kept: OnlyAFewAreKept =>
        "close::a_slow_receiver_loses_nothing",
    codes_are_bytes: CodesAreBytes =>
        "close::code_and_reason_reach_the_peer",
    codes_wrap_around: CodesWrapAround =>
        "close::codes_and_reasons_are_limited",
    reasons_are_cut_early: ReasonsAreCutEarly =>
        "close::codes_and_reasons_are_limited",
    ten_watchers: TenWatchers =>
        "close::all_waiters_are_woken",
    wakers_pile_up: WakersPileUp =>
        "close::polling_for_the_end_uses_constant_memory",
    pending_recv_forgets_why: PendingRecvForgetsWhy =>
        "close::a_close_ends_pending_operations",
    closing_twice_hangs: ClosingTwiceHangs =>
        "close::a_second_close_does_nothing",
    the_second_close_counts: TheSecondCloseCounts =>
        "close::a_second_close_does_nothing"
            & "polling::operations_that_need_not_wait_yield",
    clones_leak: ClonesLeak =>
        "handles::dropping_the_last_handle_closes",
    drops_discard: DropsDiscard =>
        "handles::messages_sent_before_a_drop_are_delivered",
    drops_need_a_runtime: DropsNeedARuntime =>
        "handles::handles_may_be_dropped_anywhere",
    drops_linger_forever: DropsLingerForever =>
        "handles::a_dropped_connection_lingers_for_a_limited_time",
    lingering_connections_escape: LingeringConnectionsEscape =>
        "handles::a_lingering_connection_can_be_closed",
    losses_are_not_counted: LossesAreNotCounted =>
        "handles::messages_lost_by_a_drop_are_counted",
    losses_of_ends_are_not_counted: LossesOfEndsAreNotCounted =>
        "close::messages_lost_by_an_end_are_counted",
    transports_take_connections_along: TransportsTakeConnectionsAlong =>
        "handles::connections_outlive_listener_and_transport",
    ended_connections_hold_memory: EndedConnectionsHoldMemory =>
        "handles::nothing_is_held_without_handles",
    orphans_leak: OrphansLeak =>
        "handles::handles_may_be_dropped_in_any_order",
    abort_forgets_the_code: AbortForgetsTheCode =>
        "close::abort_reaches_the_peer",
    abort_leaves_close_waiting: AbortLeavesCloseWaiting =>
        "close::an_abort_ends_a_pending_close",
    abort_hurries_a_close: AbortHurriesAClose =>
        "close::an_abort_ends_a_pending_close",
    revocations_wait_for_a_close: RevocationsWaitForAClose =>
        "close::a_revocation_ends_a_pending_close",
    close_forgets_what_was_lost: CloseForgetsWhatWasLost =>
        "close::a_close_returns_what_was_not_delivered",
    the_second_close_is_the_first: TheSecondCloseIsTheFirst =>
        "close::a_close_of_a_closed_connection_returns_the_reason",
    each_close_has_delivered: EachCloseHasDelivered =>
        "close::what_arrives_during_a_close_can_be_received"
            & "close::simultaneous_closes_return_correct_outcomes",
    empty_answers_are_lost: EmptyAnswersAreLost =>
        "request::each_question_gets_its_answer",
    refusals_forget_the_code: RefusalsForgetTheCode =>
        "request::refused_questions_are_reported",
    cancellations_are_not_reported: CancellationsAreNotReported =>
        "request::cancelled_questions_are_reported",
    refusals_need_room: RefusalsNeedRoom =>
        "request::refusals_and_cancellations_pass_full_queues",
    cancellations_need_room: CancellationsNeedRoom =>
        "request::refusals_and_cancellations_pass_full_queues",
    requests_have_no_deadline: RequestsHaveNoDeadline =>
        "request::questions_have_a_deadline",
    questions_are_unlimited: QuestionsAreUnlimited =>
        "request::questions_over_the_limit_are_rejected"
            & "polling::requests_that_need_not_wait_yield",
    requests_outlive_connections: RequestsOutliveConnections =>
        "request::closing_ends_requests",
    revoked_questions_are_handed_out: RevokedQuestionsAreHandedOut =>
        "request::questions_of_a_revoked_peer_are_not_handed_out",
    revoked_questions_are_read: RevokedQuestionsAreRead =>
        "request::questions_of_a_revoked_peer_are_not_handed_out",
    datagrams_are_unsupported: DatagramsAreUnsupported =>
        "datagram::datagrams_arrive_whole"
            & "datagram::a_cancelled_recv_loses_no_datagram"
            & "datagram::datagrams_end_with_the_connection"
            & "datagram::datagrams_of_a_revoked_peer_are_not_handed_out"
            & "dropping::a_recv_datagram_takes_nothing_at_any_step",
    datagrams_are_cut: DatagramsAreCut =>
        "datagram::datagrams_arrive_whole",
    dropped_recv_loses_a_datagram: DroppedRecvLosesADatagram =>
        "datagram::a_cancelled_recv_loses_no_datagram"
            & "dropping::a_recv_datagram_takes_nothing_at_any_step",
    datagrams_forget_the_end: DatagramsForgetTheEnd =>
        "datagram::datagrams_end_with_the_connection",
    revoked_datagrams_are_handed_out: RevokedDatagramsAreHandedOut =>
        "datagram::datagrams_of_a_revoked_peer_are_not_handed_out",
    recv_keeps_its_first_waker: RecvKeepsItsFirstWaker =>
        "polling::the_last_waker_is_enough"
            & "polling::a_dropped_waiter_passes_its_wake_on",
    send_parts_keeps_no_waker: SendPartsKeepsNoWaker =>
        "polling::the_last_waker_is_enough"
            & "dropping::a_send_queues_all_or_nothing_at_any_step",
    canceled_keeps_its_first_waker: CanceledKeepsItsFirstWaker =>
        "polling::the_last_waker_is_enough_for_requests",
    dropped_recvs_end_others: DroppedRecvsEndOthers =>
        "polling::a_dropped_waiter_passes_its_wake_on",
    flush_never_pauses: FlushNeverPauses =>
        "polling::operations_that_need_not_wait_yield",
    watch_close_never_pauses: WatchCloseNeverPauses =>
        "polling::operations_that_need_not_wait_yield",
    close_never_pauses: CloseNeverPauses =>
        "polling::operations_that_need_not_wait_yield",
    datagrams_never_pause: DatagramsNeverPause =>
        "polling::operations_that_need_not_wait_yield",
    accept_never_pauses: AcceptNeverPauses =>
        "polling::operations_that_need_not_wait_yield",
    request_never_pauses: RequestNeverPauses =>
        "polling::requests_that_need_not_wait_yield",
    accept_request_never_pauses: AcceptRequestNeverPauses =>
        "polling::requests_that_need_not_wait_yield",
    send_acked_never_pauses: SendAckedNeverPauses =>
        "polling::acked_sends_that_need_not_wait_yield",
    dropped_flushes_end_later_ones: DroppedFlushesEndLaterOnes =>
        "dropping::a_flush_changes_nothing_at_any_step",
    dropped_listens_leak: DroppedListensLeak =>
        "dropping::a_listen_leaves_nothing_at_any_step",
    dropped_revocations_end_later_ones: DroppedRevocationsEndLaterOnes =>
        "dropping::a_revocation_can_be_repeated_at_any_step",
    dropped_dials_leak: DroppedDialsLeak =>
        "dropping::attempts_leave_nothing_at_any_step",
    dropped_closes_are_forgotten: DroppedClosesAreForgotten =>
        "close::a_close_of_a_closed_connection_returns_the_reason"
            & "dropping::a_close_closes_at_any_step",
    dropped_accept_loses_a_question: DroppedAcceptLosesAQuestion =>
        "dropping::requests_leave_the_connection_usable_at_any_step",
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
        "polling::operations_that_need_not_wait_yield"
            & "operation::shutdown_closes_gracefully"
            & "operation::shutdown_does_not_wait_for_handshakes"
            & "operation::shutdown_ends_dials_before_it_has_closed",
    shutdown_forgets_the_reason: ShutdownForgetsTheReason =>
        "operation::shutdown_closes_gracefully",
    shutdown_ignores_its_deadline: ShutdownIgnoresItsDeadline =>
        "operation::shutdown_keeps_its_deadline",
    shutdown_waits_for_dials: ShutdownWaitsForDials =>
        "operation::shutdown_does_not_wait_for_handshakes",
    shutdown_closes_connections_first: ShutdownClosesConnectionsFirst =>
        "operation::shutdown_ends_dials_before_it_has_closed",
    receiving_needs_its_runtime: ReceivingNeedsItsRuntime =>
        "operation::handles_outlive_their_runtime",
    connections_are_unlimited: ConnectionsAreUnlimited =>
        "limits::connections_are_limited",
    identities_are_unlimited: IdentitiesAreUnlimited =>
        "limits::the_newest_connection_of_an_identity_replaces_the_oldest"
            & "limits::the_newest_connection_is_the_one_whose_handshake_began_last",
    the_newest_is_the_last_to_end: TheNewestIsTheLastToEnd =>
        "limits::the_newest_connection_of_an_identity_replaces_the_oldest"
            & "limits::the_newest_connection_is_the_one_whose_handshake_began_last",
    handshake_timeout_is_ignored: HandshakeTimeoutIsIgnored =>
        "limits::a_handshake_times_out",
    handshake_timeout_is_not_reported: HandshakeTimeoutIsNotReported =>
        "limits::a_handshake_times_out",
    send_timeout_is_not_reported: SendTimeoutIsNotReported =>
        "limits::sending_to_a_stuck_peer_times_out",
    operations_have_no_total_time: OperationsHaveNoTotalTime =>
        "limits::an_operation_ends_after_its_total_time",
    violations_are_forgiven: ViolationsAreForgiven =>
        "limits::a_peer_that_keeps_announcing_too_much_is_disconnected",
    timed_out_closes_forget_losses: TimedOutClosesForgetLosses =>
        "limits::an_operation_ends_after_its_total_time",
    unfinished_messages_stay: UnfinishedMessagesStay =>
        "limits::an_unfinished_message_times_out"
        & "limits::an_unfinished_question_times_out",
    unfinished_messages_are_not_counted: UnfinishedMessagesAreNotCounted =>
        "limits::an_unfinished_message_times_out",
    unfinished_questions_stay: UnfinishedQuestionsStay =>
        "limits::an_unfinished_question_times_out",
    memory_ends_the_newest: MemoryEndsTheNewest =>
        "limits::the_connection_that_holds_most_memory_is_ended",
    memory_is_unlimited: MemoryIsUnlimited =>
        "limits::the_connection_that_holds_most_memory_is_ended",
}
