//! `Fault`: the contract that a broken transport violates.

use net_traits_test::Limits;
use std::time::Duration;

/// The contract that is violated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    // Connecting
    RemoteAddressIsWrong,
    AllAddressesAreIpv6,
    TheUnspecifiedAddressIsRefused,
    MulticastAddressesTimeOut,
    ListenersLeak,
    TakenPortIsAnotherError,
    MissingListenerIsAnotherError,
    ProtocolIsTheWrongOne,
    NoCommonProtocolIsARefusal,
    NoProtocolIsAnotherError,
    RefusedRequestsLeak,
    DroppedRequestsLeak,
    OneHandshakeAtATime,
    AcceptLosesRequests,
    // Identity
    RemoteIdentityIsTheLocalOne,
    EndorsersAreForgotten,
    CustomPoliciesAreIgnored,
    ListenerForgetsWhomItRejected,
    DiallerForgetsItRejected,
    AnonymousIsARefusal,
    NewCredentialsAreIgnored,
    NewTrustIsIgnored,
    RevocationsAreIgnored,
    RevokedMessagesAreHandedOut,
    EndedTrustIsIgnored,
    EndOfTrustIsNotReported,
    DebugShowsTheKey,
    // Credentials
    NewerKeysAreRefused,
    UnsupportedKeysAreDamage,
    PanicsOfVerifiersAreNotReported,
    // Messages
    OnlyAsciiArrives,
    EmptyMessagesAreSkipped,
    TheLimitIsOneTooLow,
    TooLargeCloses,
    TwoMessagesAreSwapped,
    ConcurrentMessagesAreTorn,
    HalfDuplex,
    PartsAreMessages,
    OneReceiverOnly,
    RecvLosesMessages,
    RecvLosesBytes,
    DroppedSendsLeaveHalves,
    TrySendForgets,
    FlushHangs,
    QueuedIsTaken,
    UnknownIsTaken,
    QueueCountsMessages,
    SendingNeverPauses,
    ReceivingNeverPauses,
    TooLargeIsTheEnd,
    TruncatedIsSkipped,
    SilenceIsTruncated,
    // Datagrams
    DatagramsAreCut,
    DroppedRecvLosesADatagram,
    DatagramsForgetTheEnd,
    RevokedDatagramsAreHandedOut,
    // The end
    TheEndOvertakes,
    EndedConnectionsAreNotReturned,
    OnlyAFewAreKept,
    CodesAreBytes,
    CodesWrapAround,
    ReasonsAreCutEarly,
    TenWatchers,
    WakersPileUp,
    PendingRecvForgetsWhy,
    ClosingTwiceHangs,
    TheSecondCloseCounts,
    ClonesLeak,
    DropsDiscard,
    DropsNeedARuntime,
    DropsLingerForever,
    LossesAreNotCounted,
    LossesOfEndsAreNotCounted,
    TransportsTakeConnectionsAlong,
    OrphansLeak,
    EndedConnectionsHoldMemory,
    AbortForgetsTheCode,
    AbortLeavesCloseWaiting,
    AbortHurriesAClose,
    RevocationsWaitForAClose,
    CloseForgetsWhatWasLost,
    TheSecondCloseIsTheFirst,
    EachCloseHasDelivered,
    // Requests
    EmptyAnswersAreLost,
    RefusalsForgetTheCode,
    CancellationsAreNotReported,
    RefusalsNeedRoom,
    CancellationsNeedRoom,
    RequestsHaveNoDeadline,
    QuestionsAreUnlimited,
    RequestsOutliveConnections,
    RevokedQuestionsAreHandedOut,
    RevokedQuestionsAreRead,
    // Operation
    ConnectionsAreNotListed,
    EndedConnectionsAreListed,
    EndedConnectionsAreCounted,
    ClosingAPeerClosesAll,
    TriedMessagesAreNotCounted,
    RefusalsAreNotCounted,
    OverlongMessagesAreNotCounted,
    ShutdownForgetsListeners,
    ShutdownForgetsTheReason,
    ShutdownIgnoresItsDeadline,
    ReceivingNeedsItsRuntime,
    // Limits
    ConnectionsAreUnlimited,
    IdentitiesAreUnlimited,
    HandshakeTimeoutIsNotReported,
    HandshakeTimeoutIsIgnored,
    SendTimeoutIsNotReported,
    OperationsHaveNoTotalTime,
    UnfinishedMessagesStay,
    UnfinishedMessagesAreNotCounted,
    UnfinishedQuestionsStay,
    MemoryIsUnlimited,
}

impl Fault {
    /// Returns the limits of the transport below, some of which the fault lifts.
    pub(crate) fn inner_limits(self, limits: &Limits) -> Limits {
        let (mut limits, default) = (limits.clone(), Limits::default());
        match self {
            Self::HandshakeTimeoutIsIgnored => limits.handshake_timeout = default.handshake_timeout,
            Self::OperationsHaveNoTotalTime => limits.operation_timeout = default.operation_timeout,
            Self::UnfinishedMessagesStay => limits.message_timeout = Duration::MAX,
            Self::MemoryIsUnlimited => limits.max_memory = usize::MAX,
            _ => {}
        }
        limits
    }
}
