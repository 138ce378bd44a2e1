//! The settings of who comes in, how often, and what is written down of it.

use super::Setting;

/// In the order of the file.
pub(super) const ACCESS: &[Setting] = &[
    Setting::string(
        "auth.method",
        "Who may come in with a password: \"trust\", nobody is asked for one, and over PostgreSQL's\n\
         protocol everybody comes in as whoever they say; \"scram\", who knows the password of a role of\n\
         the database, or the administrator's, also over HTTP.",
    ),
    Setting::string(
        "auth.admin_password_file",
        "The password of the administrator, the role postgres of every database: a file with what\n\
         `dormouse password` prints, or with the password itself. It is read again as those of TLS.\n\
         The variable DORMOUSE_ADMIN_PASSWORD can hold the same, and wins.",
    ),
    Setting::number(
        "auth.timeout_ms",
        "How long a client may take for each answer to a request for its password.",
    ),
    Setting::number(
        "auth.scram_iterations_max",
        "The most rounds of a role's password (scram_iterations when it was set) where the password\n\
         comes as it is, over HTTP and in a tunnel, and is hashed here. Past it nobody comes in that way.",
    ),
    Setting::number(
        "auth.password_queue_max",
        "Passwords that come as they are, over HTTP and in tunnels, and wait for their turn to be hashed.\n\
         Who would wait too is sent away: 503, over /sql 400, with the code 57P03.",
    ),
    Setting::number(
        "auth.password_wait_ms_max",
        "How long one of them waits, and is sent away then.",
    ),
    Setting::string(
        "auth.tokens_file",
        "Static tokens for HTTP: the file in which `dormouse token` keeps their hashes. With it HTTP\n\
         asks everybody who they are; so it does with auth.jwt, auth.introspection, and \"scram\".",
    ),
    Setting::number(
        "auth.token_bytes_max",
        "The longest token that is looked at. Past it the answer is 401.",
    ),
    Setting::number(
        "auth.cache_ms_max",
        "How long it is remembered that a JWT is good, or what introspection said; never longer than the\n\
         token lasts.",
    ),
    Setting::number(
        "auth.cache_entries_max",
        "Tokens that are remembered, of JWT and of introspection each. Past it some are forgotten.",
    ),
    Setting::string(
        "auth.provider_ca",
        "Authorities of the certificates of issuers and providers, besides those of the system: a file\n\
         in PEM.",
    ),
    Setting::number(
        "auth.provider_timeout_ms",
        "How long an issuer or a provider may take to answer. Past it the answer is 503, where nothing\n\
         is known from before.",
    ),
    Setting::string(
        "auth.jwt.issuer",
        "Who issues the JWTs that are accepted over HTTP, exactly as in their claim iss.",
    ),
    Setting::string(
        "auth.jwt.jwks",
        "Its keys: a JWK set, at an address or in a file. Default: those of its OpenID configuration.",
    ),
    Setting::string(
        "auth.jwt.secret_file",
        "Instead of keys: a file with a secret that it signs with, for HS256, HS384 and HS512.",
    ),
    Setting::list(
        "auth.jwt.audience",
        "For whom they must be made: one of these must be in the claim aud.",
    ),
    Setting::list("auth.jwt.algorithms", "How they may be signed."),
    Setting::number(
        "auth.jwt.clock_skew_ms",
        "How far the issuer's clock may be from ours.",
    ),
    Setting::number(
        "auth.jwt.keys_ms_max",
        "How long keys are used without asking for others. Cache-Control can shorten it.",
    ),
    Setting::number(
        "auth.jwt.keys_stale_ms_max",
        "How much longer keys are used while the issuer does not answer. Past it the answer is 503.",
    ),
    Setting::number(
        "auth.jwt.refetch_ms_min",
        "The shortest time between two fetches of keys, when a token names an unknown one.",
    ),
    Setting::string(
        "auth.introspection.url",
        "Who is asked about opaque tokens (RFC 7662), as those of oauth.do.",
    ),
    Setting::string("auth.introspection.client_id", "As whom we ask."),
    Setting::string(
        "auth.introspection.client_secret_file",
        "A file with our secret there. The variable DORMOUSE_INTROSPECTION_SECRET can hold the same, and\n\
         wins.",
    ),
    Setting::list(
        "auth.introspection.audience",
        "For whom tokens must be made: one of these must be in aud. Empty: that is not looked at.",
    ),
    Setting::number(
        "auth.introspection.concurrency_max",
        "Questions at once; others wait for as long as auth.provider_timeout_ms.",
    ),
    Setting::number(
        "auth.introspection.queue_max",
        "Tokens that wait for their turn. Past it the answer is 503.",
    ),
    Setting::string(
        "auth.claims.scope",
        "The claim with the scopes of a JWT or of introspection: words in a text, or a list. Default:\n\
         scope, or else scp.",
    ),
    Setting::list("auth.claims.read", "The scopes that allow to read."),
    Setting::list(
        "auth.claims.write",
        "The scopes that allow to read and write.",
    ),
    Setting::list(
        "auth.claims.admin",
        "The scopes that allow everything, as the administrator may.",
    ),
    Setting::string(
        "auth.claims.role",
        "The claim that names the role of sessions. Default: none, the role is that of the scope.",
    ),
    Setting::list("auth.claims.roles", "The roles that it may name."),
    Setting::string(
        "auth.claims.database",
        "Which database a token reaches: \"subject\", one of its own, whose name `dormouse token database`\n\
         prints; \"claim\", the one that auth.claims.database_claim names; \"all\".",
    ),
    Setting::string(
        "auth.claims.database_claim",
        "The claim that names the database.",
    ),
    Setting::string(
        "auth.claims.database_prefix",
        "The beginning of the name of a subject's database.",
    ),
    Setting::list("auth.claims.required", "Claims that must be there."),
    Setting::list(
        "http.cors.origins",
        "Which pages may read answers: origins such as \"https://app.example\", or \"*\" for all.",
    ),
    Setting::list(
        "http.cors.headers",
        "Headers that their requests may have, besides those that this server reads.",
    ),
    Setting::switch(
        "http.cors.credentials",
        "Whether browsers may send what they remember of this server.",
    ),
    Setting::number(
        "http.cors.max_age_s",
        "How long a browser may remember what is allowed.",
    ),
    Setting::number(
        "limits.token_requests_per_second",
        "Requests of one token over HTTP, for each second. Past it the answer is 429. 0: no limit.",
    ),
    Setting::number(
        "limits.database_requests_per_second",
        "Requests for one database. 0: no limit.",
    ),
    Setting::number(
        "limits.requests_burst",
        "Requests that may come at once before these limits count. 0: as many as in a second.",
    ),
    Setting::number(
        "limits.token_concurrency_max",
        "Requests of one token that are served at once. Past it the answer is 429. 0: no limit.",
    ),
    Setting::number(
        "limits.database_concurrency_max",
        "Requests for one database that are served at once. 0: no limit.",
    ),
    Setting::number(
        "limits.token_body_bytes_max",
        "The body of a request of one token, and a message of its WebSockets. Past it the answer is 413.\n\
         A token may have a smaller limit of its own. 0: http.body_bytes_max and\n\
         websocket.message_bytes_max alone.",
    ),
    Setting::number(
        "limits.token_result_bytes_max",
        "The result of a request of one token, also one that is streamed, as lines or in a WebSocket.\n\
         A token may have a smaller limit of its own. 0: http.result_bytes_max alone, which streams\n\
         do not have.",
    ),
    Setting::number(
        "limits.database_body_bytes_max",
        "The same of a request for one database. A database may have a smaller limit of its own:\n\
         dormouse db set.",
    ),
    Setting::number(
        "limits.database_result_bytes_max",
        "The same of the result of a request for one database.",
    ),
    Setting::number(
        "limits.entries_max",
        "Tokens and databases that are counted at once. Past it new ones get 429.",
    ),
    Setting::switch(
        "metrics.open",
        "Whether everybody may read /metrics; else it needs the scope admin where HTTP asks.",
    ),
    Setting::string(
        "audit.file",
        "Where it is written who makes, changes and deletes databases and tokens: a line of JSON before it\n\
         is done and one after, on the disk before the answer; what cannot be written is not done.\n\
         SIGHUP opens the file anew. Default: the log's target \"audit\", with what was done alone.",
    ),
];
