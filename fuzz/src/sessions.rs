//! Programs of several sessions, compared with a native server.

pub mod answer;
pub mod grammar;
pub mod op;
pub mod options;
pub mod program;
pub mod protocol_op;
pub mod run;
pub mod shrink;
pub mod side;
