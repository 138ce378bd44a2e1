//! Tokens of an issuer whose secret is known here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use serde_json::json;

use super::*;
use crate::http::caller::Scope;

const SECRET: &str = "a secret that is long enough for it";
const NOW: u64 = 1_800_000_000;

fn options(folder: &std::path::Path) -> JwtOptions {
    let secret = folder.join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    JwtOptions {
        issuer: "https://issuer.example".to_owned(),
        keys: KeySource::Secret(secret),
        ca: None,
        audience: vec!["db".to_owned(), "other".to_owned()],
        algorithms: vec!["HS256".to_owned()],
        clock_skew: Duration::from_secs(60),
        cache_max: Duration::from_secs(300),
        cache_entries_max: 10,
        keys_max: Duration::from_secs(300),
        keys_stale_max: Duration::from_secs(300),
        refetch_min: Duration::from_secs(10),
        provider_timeout: Duration::from_secs(5),
        claims: ClaimOptions::default(),
    }
}

fn jwt() -> Jwt {
    let folder = tempfile::tempdir().unwrap();
    Jwt::new(options(folder.path())).unwrap()
}

fn claims() -> Value {
    json!({
        "iss": "https://issuer.example",
        "aud": ["x", "db"],
        "sub": "anna",
        "scope": "read",
        "exp": NOW + 100,
        "nbf": NOW - 100,
    })
}

fn signed(secret: &str, header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    let text = format!("{}.{}", part(header), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = BASE64.encode(hmac::sign(&key, text.as_bytes()));
    format!("{text}.{signature}")
}

fn token(claims: &Value) -> String {
    signed(SECRET, &json!({"alg": "HS256"}), claims)
}

/// The token with one claim otherwise.
fn with(name: &str, value: Value) -> String {
    let mut claims = claims();
    claims[name] = value;
    token(&claims)
}

async fn why(jwt: &Jwt, token: &str) -> &'static str {
    match jwt.caller(token, NOW).await {
        Err(NotLet::Refused(Refused::Invalid(why) | Refused::Insufficient(why))) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_good_token_lets_in_until_it_expires() {
    let jwt = jwt();
    let token = token(&claims());
    // The second time it is remembered.
    for _ in 0..2 {
        let caller = jwt.caller(&token, NOW).await.unwrap();
        assert_eq!(caller.scope, Scope::Read);
        assert!(caller.claims.unwrap().contains("\"sub\":\"anna\""));
    }
    assert!(jwt.caller(&token, NOW + 159).await.is_ok());
    assert!(jwt.caller(&token, NOW + 160).await.is_err());
}

#[tokio::test]
async fn claims_that_are_wrong() {
    let jwt = jwt();
    let cases = [
        ("exp", json!(NOW - 60), "expired"),
        ("exp", json!("soon"), "number"),
        ("exp", json!(-1), "number"),
        ("nbf", json!(NOW + 61), "not valid yet"),
        ("iss", json!("https://issuer.example/"), "issuer"),
        ("iss", json!(null), "issuer"),
        ("aud", json!("x"), "audience"),
        ("aud", json!([]), "audience"),
        ("aud", json!({"db": 1}), "audience"),
        ("sub", json!(null), "subject"),
        ("scope", json!("nothing"), "scope"),
    ];
    for (name, value, word) in cases {
        let said = why(&jwt, &with(name, value)).await;
        assert!(said.contains(word), "{name}: {said}");
    }
    let mut endless = claims();
    endless.as_object_mut().unwrap().remove("exp");
    assert!(why(&jwt, &token(&endless)).await.contains("expires"));
    assert!(jwt.caller(&with("exp", json!(1e300)), NOW).await.is_ok());
    assert!(jwt.caller(&with("exp", json!(NOW - 59)), NOW).await.is_ok());
    assert!(jwt.caller(&with("aud", json!("other")), NOW).await.is_ok());
}

#[tokio::test]
async fn tokens_that_are_forged() {
    let jwt = jwt();
    let header = json!({"alg": "HS256"});
    let other = signed("another secret that is long enough", &header, &claims());
    assert!(why(&jwt, &other).await.contains("signature"));
    let unsigned = signed(SECRET, &json!({"alg": "none"}), &claims());
    assert!(why(&jwt, &unsigned).await.contains("algorithm"));
    let stronger = signed(SECRET, &json!({"alg": "HS512"}), &claims());
    assert!(why(&jwt, &stronger).await.contains("algorithm"));
    assert!(why(&jwt, &token(&json!([1]))).await.contains("object"));
    assert!(why(&jwt, "a.b.c").await.contains("JWT"));
}

#[test]
fn options_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut JwtOptions)| {
        let mut options = options(folder.path());
        change(&mut options);
        Jwt::new(options).unwrap_err()
    };
    assert!(refused(&|options| options.audience.clear()).contains("auth.jwt.audience"));
    assert!(refused(&|options| options.algorithms.clear()).contains("auth.jwt.algorithms"));
    for name in ["none", "RS256"] {
        let said = refused(&|options| options.algorithms = vec![name.to_owned()]);
        assert!(said.contains(name), "{said}");
    }
    let asymmetric = |options: &mut JwtOptions| options.keys = KeySource::Discovery;
    assert!(refused(&asymmetric).contains("HS256"));
    let insecure = refused(&|options| {
        options.algorithms = vec!["RS256".to_owned()];
        options.issuer = "http://issuer.example".to_owned();
        options.keys = KeySource::Discovery;
    });
    assert!(insecure.contains("https://"), "{insecure}");
    let short = folder.path().join("short");
    std::fs::write(&short, "short\n").unwrap();
    let said = refused(&|options| options.keys = KeySource::Secret(short.clone()));
    assert!(said.contains("32 bytes"), "{said}");
}
