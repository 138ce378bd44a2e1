//! Spans: what a request waits for and does, for whoever subscribes to them.

/// The target of every span here, all of them at level TRACE. What a subscriber does not want costs a load of
/// one number; whoever wants them is to begin with a span of its own, and to leave out those that have no parent.
pub const TRACE: &str = "dormouse::trace";

/// Whether what runs now is recorded. Asked once for all that comes of it: where spans are wanted at all, each
/// of them would be asked for by itself.
pub(crate) fn is_traced() -> bool {
    tracing::span_enabled!(target: TRACE, tracing::Level::TRACE)
}
