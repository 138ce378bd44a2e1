//! Settings of managed bindings.

use super::Setting;

/// In the order of the file.
pub(super) const BINDINGS: &[Setting] = &[
    Setting::number(
        "bindings.clients_max",
        "Clients of managed bindings at once, beside the sessions of pgwire.connections_max. Past it a\n\
         connection fails with 53300.",
    ),
    Setting::string(
        "bindings.socket_directory",
        "The folder of the socket by which deployed backends reach their bindings; nobody else may enter\n\
         it. Default: run in the data directory.",
    ),
];
