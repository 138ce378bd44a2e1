//! What the server tells of itself: metrics, figures, logs, traces.

mod figures;
mod logs;
mod metrics;
mod rotel;
mod statements;
mod traces;
