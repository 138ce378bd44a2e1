//! Settings of what is deployed.

use super::Setting;

/// In the order of the file.
pub(super) const WORKERS: &[Setting] = &[
    Setting::text(
        "workers.base_domain",
        "DORMOUSE_WORKERS__BASE_DOMAIN",
        "Where apps are: with \"apps.example.com\" those of the owner acme are at acme.apps.example.com,\n\
         each below the name of its repository. It must not overlap routing.base_domain. \"\": nowhere\n\
         but at hosts of their own.",
    ),
    Setting::list(
        "workers.domains",
        "Host names that apps may ask for in a file CNAME: names, \"*.example.com\", or \"*\" for any. With a\n\
         star workers.hosts_reserved must be set.",
    ),
    Setting::list(
        "workers.hosts_reserved",
        "Host names at which this server itself is asked, which no app gets: names, or \"*.example.com\".",
    ),
    Setting::list(
        "workers.repositories",
        "Repositories whose workflows of GitHub Actions may deploy themselves: \"owner/repo\", or\n\
         \"owner/*\". None: no workflow may, but who shows a token of this server.",
    ),
    Setting::list(
        "workers.production_refs",
        "Branches and tags whose workflows have to do with the environment production: \"refs/heads/main\",\n\
         \"refs/tags/v*\". Every other environment is for all workflows of its repository.",
    ),
    Setting::string(
        "workers.workerd",
        "The program that runs backends. Default: workerd on the PATH, or in node_modules here or above.",
    ),
    Setting::switch(
        "workers.public_network",
        "Whether backends reach public addresses. Private ones and this machine they never do.",
    ),
    Setting::list(
        "workers.network_deny",
        "Public addresses that they do not reach either: \"192.0.2.7\", \"192.0.2.0/24\". The addresses of this\n\
         machine's interfaces are known; name here the one at which a router passes on to it.",
    ),
    Setting::number(
        "workers.request_ms_max",
        "How long a backend may take until it begins to answer. Past it the answer is 504, and a\n\
         backend that does nothing at all is killed and started again.",
    ),
    Setting::number(
        "workers.upload_ms_max",
        "How long the archive of a deployment may take until all of it is there. Past it the answer is 408.",
    ),
    Setting::number("workers.deploys_max", "Deployments at once. Others wait."),
    Setting::number(
        "workers.versions_max",
        "Versions of an app that are kept beside the one that serves, to roll back to.",
    ),
    Setting::number(
        "workers.compile_ms_max",
        "How long compiling a backend may take. Past it a deployment is refused.",
    ),
    Setting::number(
        "workers.start_ms_max",
        "How long a backend may take until it listens. Past it a deployment is refused.",
    ),
    Setting::number(
        "workers.drain_ms_max",
        "How long an old version may take to finish its requests. Past it it is killed.",
    ),
    Setting::number(
        "workers.restart_ms_min",
        "The pause before a backend that ended is started again. It doubles with each end that follows.",
    ),
    Setting::number("workers.restart_ms_max", "The longest such pause."),
    Setting::number(
        "workers.heap_mib_max",
        "MiB of JavaScript's heap of a backend. Past it its process ends, and is started again.",
    ),
    Setting::number(
        "workers.memory_bytes_max",
        "Bytes that a backend's process may have resident. Past it it is killed, and started again.",
    ),
    Setting::number("workers.memory_check_ms", "How often that is looked at."),
    Setting::number(
        "workers.log_entries_max",
        "Entries of a backend's log, which is kept in memory. Past it the oldest go.",
    ),
    Setting::number("workers.log_bytes_max", "Bytes of the text of these."),
    Setting::number(
        "workers.log_entry_bytes_max",
        "Bytes of one entry. What is longer is cut.",
    ),
    Setting::number(
        "workers.archive_bytes_max",
        "Bytes of a deployment's archive. Past it the answer is 413.",
    ),
    Setting::number(
        "workers.expanded_bytes_max",
        "Bytes of all its files, unpacked. Past it, and past those that follow, a deployment is refused.",
    ),
    Setting::number("workers.file_bytes_max", "Bytes of one of its files."),
    Setting::number(
        "workers.entries_max",
        "Files and folders of an archive, served or not.",
    ),
    Setting::number("workers.static_files_max", "Files that are served."),
    Setting::number("workers.modules_max", "Modules of a backend."),
    Setting::string(
        "workers.oidc.issuer",
        "Who issues the tokens of workflows that deploy.",
    ),
    Setting::string(
        "workers.oidc.jwks",
        "Its keys: an address, or a file, which is read again when it changes. Default: by the issuer's\n\
         OpenID configuration.",
    ),
    Setting::list(
        "workers.oidc.audience",
        "For whom these tokens must be: one of these.",
    ),
    Setting::string(
        "secrets.key_file",
        "A file with the node's own key, with which secrets are sealed on the disk: 32 bytes, or 64\n\
         hexadecimal digits. Default: node.key in the data directory, made at the first start.",
    ),
];
