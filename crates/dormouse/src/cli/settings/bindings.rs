//! Settings of managed bindings.

use super::Setting;

/// In the order of the file.
pub(super) const BINDINGS: &[Setting] = &[
    Setting::number(
        "bindings.clients_max",
        "Clients of managed bindings at once, beside the sessions of pgwire.connections_max. Past it a\n\
         connection fails with 53300.",
    ),
    Setting::number(
        "bindings.app_clients_max",
        "Of them, clients of one application, or of one user of a binding. Past it its next connection fails\n\
         with 53300. 0: as many as there may be.",
    ),
    Setting::number(
        "bindings.threads",
        "Threads that the pools of bindings run on; each pool is on one of them. 0: as many as there are\n\
         processors.",
    ),
    Setting::number(
        "bindings.metrics_max",
        "Bindings with samples of their own at /metrics; all others are told as one.",
    ),
    Setting::number(
        "bindings.cache_bytes_max",
        "Answers that the caches of all bindings keep. Past it those go that nobody has asked for the longest.",
    ),
    Setting::number(
        "bindings.cache_entries_max",
        "The same, counted in answers.",
    ),
    Setting::number(
        "bindings.cache_result_bytes_max",
        "The longest answer that is kept; a longer one passes through.",
    ),
    Setting::number(
        "bindings.cache_query_bytes_max",
        "The longest query, with its parameters, whose answer is kept.",
    ),
    Setting::number(
        "bindings.cancels_max",
        "Cancellations of one binding that are on their way to its origin at once, each by a connection of\n\
         its own beside the pool's. Others wait.",
    ),
    Setting::number(
        "bindings.cancel_ms_max",
        "How long one may take, its wait included; then it is given up, and counted. 1 to 3,600,000.",
    ),
    Setting::number(
        "bindings.keepalive_ms",
        "A connection to an origin over TCP over which nothing comes for this long is looked after: whether\n\
         the other machine is still there. In whole seconds, 1,000 to 32,767,000.",
    ),
    Setting::number(
        "bindings.keepalive_each_ms",
        "From one look to the next. In whole seconds, 1,000 to 32,767,000.",
    ),
    Setting::number(
        "bindings.keepalives_max",
        "After so many looks that nobody answers the connection is lost: its client gets 08006. 1 to 127.",
    ),
    Setting::string(
        "bindings.socket_directory",
        "The folder of the socket by which deployed backends reach their bindings; nobody else may enter\n\
         it. Default: run in the data directory.",
    ),
];
