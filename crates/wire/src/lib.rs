//! Protocols as pure state machines: Postgres v3 messages, SQL over HTTP. No sockets, no clock.
