//! `Mutant`: faults of nodes, which show that the checker can fail.

/// A fault of all nodes, for tests of the checker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutant {
    /// It loses every 50th message that it receives.
    LosesMessages,
    /// It receives every 50th message twice.
    ReceivesTwice,
    /// Every 50th message that it receives has changed.
    AltersMessages,
    /// It receives every 50th message as if it had sent it itself.
    MistakesSenders,
    /// It ignores the reports of messages that are not delivered.
    NeverReports,
    /// It claims of every message that is reported that it has not arrived.
    DeniesArrivals,
    /// After 20 messages its task is not woken by further ones.
    MissesWakeup,
    /// It passes no rumor on.
    KeepsRumors,
    /// It goes on although it is told to end.
    NeverEnds,
    /// It keeps its connections with an identity that is revoked.
    KeepsRevoked,
    /// It accepts connections with an identity that is revoked.
    AcceptsRevoked,
    /// It dials the peers that are not its neighbours any more.
    KeepsConnections,
    /// It keeps 64 KiB of memory for each message that it receives.
    LeaksMemory,
    /// It panics when it receives its 50th message.
    Panics,
}
