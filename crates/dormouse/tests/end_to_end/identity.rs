//! Identities of others: JWTs of an issuer, opaque tokens of a provider.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use crate::harness::provider::{CLIENT, Provider, SigningKey, now, unsigned};
use crate::harness::{Http, Server, dormouse, run_program, until};

/// An issuer, its key, and a server that knows it.
struct Issued {
    provider: Provider,
    key: SigningKey,
    server: Server,
}

impl Issued {
    fn start() -> Self {
        let provider = Provider::start();
        let key = SigningKey::new("first");
        provider.publish(&[&key]);
        let server = Server::start_with(&[
            ("DORMOUSE_AUTH__JWT__ISSUER", &provider.url()),
            ("DORMOUSE_AUTH__JWT__AUDIENCE", "other,db"),
            ("DORMOUSE_AUTH__JWT__REFETCH_MS_MIN", "0"),
            ("DORMOUSE_AUTH__CLAIMS__ROLE", "role"),
            ("DORMOUSE_AUTH__CLAIMS__ROLES", "postgres"),
            ("DORMOUSE_AUTH__CLAIMS__ADMIN", "write"),
            ("DORMOUSE_LOG", "debug"),
        ]);
        Self {
            provider,
            key,
            server,
        }
    }

    /// The database of a subject, as the command line says it.
    fn database(&self, subject: &str) -> String {
        let mut command = dormouse();
        command.args([
            "token",
            "database",
            subject,
            "--issuer",
            &self.provider.url(),
        ]);
        run_program(&mut command).done().trim_end().to_owned()
    }

    /// The status of a query with this token, and what is asked for where it is refused.
    fn ask(&self, token: &str) -> (u16, String) {
        let database = self.database("anna");
        let response = query(&mut self.server.http(), &database, token, "select 1");
        let challenge = response.header("www-authenticate");
        (response.status, challenge.unwrap_or_default().to_owned())
    }

    #[track_caller]
    fn is_refused(&self, token: &str, why: &str) {
        let (status, challenge) = self.ask(token);
        assert_eq!(status, 401, "{challenge}");
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
        assert!(challenge.contains(why), "{challenge}");
        let signature = token.rsplit('.').next().unwrap();
        let log = self.server.log();
        assert!(signature.is_empty() || !log.contains(signature), "{log}");
    }

    /// The good claims with one otherwise.
    fn with(&self, name: &str, value: Value) -> String {
        let mut claims = self.provider.claims("anna");
        claims[name] = value;
        self.key.sign(&claims)
    }
}

fn query(http: &mut Http, database: &str, token: &str, sql: &str) -> crate::harness::Response {
    http.request_with(
        "POST",
        &format!("/v1/databases/{database}/query"),
        &[("authorization", &format!("Bearer {token}"))],
        Some(&json!({ "sql": sql }).to_string()),
    )
}

#[test]
fn a_subject_has_a_database_of_its_own_and_its_claims_in_it() {
    let issued = Issued::start();
    let mut http = issued.server.http();
    let nobody = http.query("shop", "select 1");
    assert_eq!(nobody.status, 401);
    assert_eq!(
        nobody.header("www-authenticate"),
        Some("Bearer realm=\"dormouse\"")
    );
    assert_eq!(http.get("/ping").status, 200);
    assert_eq!(http.get("/metrics").status, 401);

    let token = issued.key.sign(&issued.provider.claims("anna"));
    let database = issued.database("anna");
    let sql = "select current_setting('request.jwt.claims')::jsonb ->> 'sub' as who";
    for _ in 0..2 {
        let answer = query(&mut http, &database, &token, sql);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["rows"][0]["who"], "anna");
    }
    for other in ["shop", &issued.database("berta")] {
        assert_eq!(query(&mut http, other, &token, sql).status, 403);
    }
    let (status, challenge) = issued.ask(&issued.with("scope", json!("openid")));
    assert_eq!(status, 403);
    assert!(
        challenge.contains("error=\"insufficient_scope\""),
        "{challenge}"
    );
    let listed = issued.with("role", json!("postgres"));
    assert_eq!(issued.ask(&listed).0, 200);
    let other_role = issued.with("role", json!("pg_write_all_data"));
    assert_eq!(issued.ask(&other_role).0, 403);
    assert!(
        !issued.server.log().contains(&token),
        "{}",
        issued.server.log()
    );
}

#[test]
fn tokens_that_are_wrong() {
    let issued = Issued::start();
    let good = issued.key.sign(&issued.provider.claims("anna"));
    assert_eq!(issued.ask(&good).0, 200);
    issued.is_refused(&issued.with("exp", json!(now() - 61)), "expired");
    issued.is_refused(&issued.with("nbf", json!(now() + 120)), "not valid yet");
    issued.is_refused(&issued.with("aud", json!("shop")), "audience");
    issued.is_refused(&issued.with("iss", json!("http://other.example")), "issuer");

    let claims = issued.provider.claims("anna");
    let impostor = SigningKey::new("first");
    issued.is_refused(&impostor.sign(&claims), "signature");
    let stranger = SigningKey::new("second");
    issued.is_refused(&stranger.sign(&claims), "key that the issuer does not have");
    let none = format!("{}.", unsigned(&json!({"alg": "none"}), &claims));
    issued.is_refused(&none, "algorithm");
    // The public key taken for a secret.
    let text = unsigned(&json!({"alg": "HS256", "kid": "first"}), &claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, &issued.key.point());
    let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&key, text.as_bytes()));
    issued.is_refused(&format!("{text}.{tag}"), "algorithm");
    // A key that comes with the token.
    let header = json!({"alg": "ES256", "kid": "first", "jku": "http://evil.example"});
    issued.is_refused(&impostor.sign_as(&header, &claims), "signature");
    issued.is_refused(
        &issued.with("more", json!("x".repeat(20_000))),
        "token_bytes_max",
    );
    issued.is_refused("not-a-token", "no kind");
    issued.is_refused("dm_not-a-token", "no kind");
}

#[test]
fn keys_rotate_and_an_issuer_may_be_away() {
    let issued = Issued::start();
    let claims = issued.provider.claims("anna");
    let first = issued.key.sign(&claims);
    assert_eq!(issued.ask(&first).0, 200);
    let second = SigningKey::new("second");
    issued.provider.publish(&[&issued.key, &second]);
    assert_eq!(issued.ask(&second.sign(&claims)).0, 200);
    assert_eq!(issued.ask(&first).0, 200);

    issued.provider.is_away(true);
    assert_eq!(issued.ask(&first).0, 200);
    assert_eq!(issued.ask(&second.sign(&claims)).0, 200);
    let third = SigningKey::new("third");
    issued.is_refused(&third.sign(&claims), "key");

    // The first key is withdrawn: what was signed with it is no longer good, though it was remembered.
    issued.provider.is_away(false);
    issued.provider.publish(&[&third]);
    assert_eq!(issued.ask(&third.sign(&claims)).0, 200);
    issued.is_refused(&first, "key");
}

#[test]
fn nobody_comes_in_while_the_keys_were_never_had() {
    let provider = Provider::start();
    provider.is_away(true);
    let key = SigningKey::new("first");
    provider.publish(&[&key]);
    let server = Server::start_with(&[
        ("DORMOUSE_AUTH__JWT__ISSUER", &provider.url()),
        ("DORMOUSE_AUTH__JWT__AUDIENCE", "db"),
        ("DORMOUSE_AUTH__JWT__REFETCH_MS_MIN", "0"),
        ("DORMOUSE_AUTH__CLAIMS__DATABASE", "all"),
        ("DORMOUSE_AUTH__CLAIMS__ADMIN", "write"),
    ]);
    let token = key.sign(&provider.claims("anna"));
    let mut http = server.http();
    let away = query(&mut http, "shop", &token, "select 1");
    assert_eq!(away.status, 503);
    assert_eq!(away.header("retry-after"), Some("5"));
    provider.is_away(false);
    assert_eq!(query(&mut http, "shop", &token, "select 1").status, 200);
}

#[test]
fn a_provider_is_asked_about_opaque_tokens() {
    let provider = Provider::start();
    let server = Server::start_with(&[
        (
            "DORMOUSE_AUTH__INTROSPECTION__URL",
            &format!("{}/introspect", provider.url()),
        ),
        ("DORMOUSE_AUTH__INTROSPECTION__CLIENT_ID", CLIENT.0),
        ("DORMOUSE_INTROSPECTION_SECRET", CLIENT.1),
        ("DORMOUSE_AUTH__CLAIMS__DATABASE", "claim"),
        ("DORMOUSE_AUTH__CLAIMS__DATABASE_CLAIM", "db"),
        ("DORMOUSE_AUTH__CLAIMS__ADMIN", "write"),
        ("DORMOUSE_LOG", "debug"),
    ]);
    let active = json!({"active": true, "sub": "anna", "scope": "read write", "db": "shop", "exp": now() + 600});
    provider.say("opaque-and-active", active.clone());
    provider.say(
        "opaque-and-over",
        json!({"active": false, "sub": "anna", "scope": "write", "db": "shop"}),
    );
    provider.say("opaque-and-late", active);
    let mut http = server.http();
    let mut ask = |database: &str, token: &str| {
        let answer = query(&mut http, database, token, "select 1");
        (answer.status, answer.header("retry-after").is_some())
    };
    assert_eq!(ask("shop", "opaque-and-active"), (200, false));
    assert_eq!(ask("other", "opaque-and-active"), (403, false));
    assert_eq!(ask("shop", "opaque-and-over"), (401, false));
    assert_eq!(ask("shop", "opaque-and-unknown"), (401, false));
    provider.is_away(true);
    // What is remembered still counts; nobody else comes in.
    assert_eq!(ask("shop", "opaque-and-active"), (200, false));
    for _ in 0..7 {
        assert_eq!(ask("shop", "opaque-and-late"), (503, true));
    }
    let log = server.log();
    assert!(
        !log.contains("opaque-and") && !log.contains(CLIENT.1),
        "{log}"
    );
}

#[test]
fn a_key_is_of_a_subject_and_of_what_it_may_see() {
    let issued = Issued::start();
    let mut http = issued.server.http();
    let path = format!("/v1/databases/{}/query", issued.database("anna"));
    let mut ask = |token: &str, key: &str, sql: &str| {
        let headers = [
            ("authorization", &*format!("Bearer {token}")),
            ("idempotency-key", key),
        ];
        let body = json!({ "sql": sql }).to_string();
        let answer = http.request_with("POST", &path, &headers, Some(&body));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.header("idempotency-replayed") == Some("true")
    };
    let sql = "select current_setting('request.jwt.claims')::jsonb ->> 'org' as org";
    let token = |claims: Value| {
        let mut all = issued.provider.claims("anna");
        all.as_object_mut()
            .unwrap()
            .extend(claims.as_object().unwrap().clone());
        issued.key.sign(&all)
    };
    assert!(!ask(&token(json!({"org": "a", "jti": "1"})), "order", sql));
    // A later token of the same.
    assert!(ask(
        &token(json!({"org": "a", "jti": "2", "exp": now() + 700})),
        "order",
        sql
    ));
    // The same subject, who sees other rows by these claims.
    assert!(!ask(&token(json!({"org": "b", "jti": "3"})), "order", sql));
}

#[test]
fn a_key_that_is_withdrawn_is_believed_no_longer_than_keys_are_kept() {
    let provider = Provider::start();
    let (first, second) = (SigningKey::new("first"), SigningKey::new("second"));
    provider.publish(&[&first]);
    let server = Server::start_with(&[
        ("DORMOUSE_AUTH__JWT__ISSUER", &provider.url()),
        ("DORMOUSE_AUTH__JWT__AUDIENCE", "db"),
        ("DORMOUSE_AUTH__JWT__REFETCH_MS_MIN", "0"),
        ("DORMOUSE_AUTH__JWT__KEYS_MS_MAX", "0"),
        ("DORMOUSE_AUTH__JWT__KEYS_STALE_MS_MAX", "2000"),
        ("DORMOUSE_AUTH__CLAIMS__DATABASE", "all"),
    ]);
    let claims = provider.claims("anna");
    let (of_first, of_second) = (first.sign(&claims), second.sign(&claims));
    let ask = |token: &str| query(&mut server.http(), "shop", token, "select 1").status;
    assert_eq!(ask(&of_first), 200);
    provider.publish(&[&second]);
    assert_eq!(ask(&of_first), 401);
    assert_eq!(ask(&of_second), 200);

    provider.is_away(true);
    assert_eq!(ask(&of_second), 200);
    until(|| ask(&of_second), |status| *status == 503);
    provider.is_away(false);
    assert_eq!(ask(&of_second), 200);
}

#[test]
fn a_file_of_keys_is_read_again() {
    let provider = Provider::start();
    let (first, second) = (SigningKey::new("first"), SigningKey::new("second"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks");
    let publish = |key: &SigningKey| {
        std::fs::write(&file, json!({"keys": [key.public()]}).to_string()).unwrap();
    };
    publish(&first);
    let server = Server::start_with(&[
        ("DORMOUSE_AUTH__JWT__ISSUER", &provider.url()),
        ("DORMOUSE_AUTH__JWT__JWKS", file.to_str().unwrap()),
        ("DORMOUSE_AUTH__JWT__AUDIENCE", "db"),
        ("DORMOUSE_AUTH__CLAIMS__DATABASE", "all"),
    ]);
    let of_first = first.sign(&provider.claims("anna"));
    let ask = || query(&mut server.http(), "shop", &of_first, "select 1").status;
    assert_eq!(ask(), 200);
    publish(&second);
    server.signal(rustix::process::Signal::HUP);
    until(ask, |status| *status == 401);
}

#[test]
fn a_wait_for_a_provider_is_not_held_against_it() {
    let provider = Provider::start();
    let server = Server::start_with(&[
        (
            "DORMOUSE_AUTH__INTROSPECTION__URL",
            &format!("{}/introspect", provider.url()),
        ),
        ("DORMOUSE_AUTH__INTROSPECTION__CLIENT_ID", CLIENT.0),
        ("DORMOUSE_INTROSPECTION_SECRET", CLIENT.1),
        ("DORMOUSE_AUTH__INTROSPECTION__CONCURRENCY_MAX", "1"),
        ("DORMOUSE_AUTH__INTROSPECTION__QUEUE_MAX", "2"),
        ("DORMOUSE_AUTH__CLAIMS__DATABASE", "all"),
    ]);
    let active = json!({"active": true, "sub": "anna", "scope": "write", "exp": now() + 600});
    provider.say("good", active);
    // Whoever comes with what nobody knows makes others wait, and is turned away when too many do.
    provider.hold(true);
    let asking: Vec<_> = (0..12)
        .map(|number| {
            let mut http = server.http();
            std::thread::spawn(move || {
                query(&mut http, "shop", &format!("unknown-{number}"), "select 1").status
            })
        })
        .collect();
    let turned_away = || asking.iter().filter(|asking| asking.is_finished()).count();
    until(turned_away, |count| *count == 9);
    provider.hold(false);
    let statuses: Vec<u16> = asking
        .into_iter()
        .map(|asking| asking.join().unwrap())
        .collect();
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(503), count(401)), (9, 3), "{statuses:?}");
    assert_eq!(
        query(&mut server.http(), "shop", "good", "select 1").status,
        200
    );
}
