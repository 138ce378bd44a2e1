//! A small provider of identities: an issuer of JWTs with keys that rotate, and who knows opaque tokens.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use parking_lot::{Condvar, Mutex};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::{Value, json};

use super::until;

/// As whom the server asks, and its secret.
pub(crate) const CLIENT: (&str, &str) = ("dormouse", "the client's own");

/// A key of an issuer.
pub(crate) struct SigningKey {
    id: String,
    pair: EcdsaKeyPair,
}

/// A running provider. Dropping it ends it.
pub(crate) struct Provider {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// What it publishes.
    keys: Mutex<Vec<Value>>,
    /// What it says of opaque tokens.
    tokens: Mutex<HashMap<String, Value>>,
    away: AtomicBool,
    asked: AtomicUsize,
    ended: AtomicBool,
    /// Whether answers are kept back.
    is_held: Mutex<bool>,
    released: Condvar,
}

impl SigningKey {
    pub(crate) fn new(id: &str) -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        Self {
            id: id.to_owned(),
            pair: EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).unwrap(),
        }
    }

    /// As it is published.
    pub(crate) fn public(&self) -> Value {
        let point = self.point();
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": URL_SAFE_NO_PAD.encode(&point[1..33]),
            "y": URL_SAFE_NO_PAD.encode(&point[33..]),
        })
    }

    /// What everybody knows of it.
    pub(crate) fn point(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_as(
            &json!({"alg": "ES256", "typ": "JWT", "kid": self.id}),
            claims,
        )
    }

    pub(crate) fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let text = unsigned(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), text.as_bytes());
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.unwrap()))
    }
}

/// What is signed of a token.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

impl Provider {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.ended.load(Ordering::Acquire) {
                    return;
                }
                // A client that leaves in the midst is its own affair.
                let _ = serving.answer(stream, address);
            }
        });
        Self {
            address,
            shared,
            thread: Some(thread),
        }
    }

    /// The issuer, and the address of the rest.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn publish(&self, keys: &[&SigningKey]) {
        *self.shared.keys.lock() = keys.iter().map(|key| key.public()).collect();
    }

    /// From now on this is said of an opaque token.
    pub(crate) fn say(&self, token: &str, claims: Value) {
        self.shared.tokens.lock().insert(token.to_owned(), claims);
    }

    /// From now on nobody gets an answer, or everybody.
    pub(crate) fn is_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::Release);
    }

    /// From now on everybody waits for an answer, or nobody.
    pub(crate) fn hold(&self, hold: bool) {
        *self.shared.is_held.lock() = hold;
        self.shared.released.notify_all();
    }

    /// Waits until it was asked for something.
    pub(crate) fn until_asked(&self) {
        until(
            || self.shared.asked.load(Ordering::Acquire),
            |asked| *asked > 0,
        );
    }

    /// Good claims of a subject.
    pub(crate) fn claims(&self, subject: &str) -> Value {
        json!({
            "iss": self.url(), "aud": "db", "sub": subject, "scope": "write",
            "iat": now(), "exp": now() + 600,
        })
    }
}

impl Shared {
    fn answer(&self, stream: TcpStream, address: SocketAddr) -> std::io::Result<()> {
        if self.away.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut stream = BufReader::new(stream);
        let (mut line, mut length, mut authorization) = (String::new(), 0, String::new());
        stream.read_line(&mut line)?;
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            match &*name.to_ascii_lowercase() {
                "content-length" => length = value.parse().unwrap(),
                "authorization" => value.clone_into(&mut authorization),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        self.asked.fetch_add(1, Ordering::AcqRel);
        let mut is_held = self.is_held.lock();
        self.released.wait_while(&mut is_held, |is_held| *is_held);
        drop(is_held);
        let document = match &*path {
            "/.well-known/openid-configuration" => json!({
                "issuer": format!("http://{address}"),
                "jwks_uri": format!("http://{address}/keys"),
            }),
            "/keys" => json!({ "keys": *self.keys.lock() }),
            "/introspect" => self.introspect(&authorization, &String::from_utf8(body).unwrap()),
            _ => Value::Null,
        };
        let status = if document.is_null() {
            "401 Unauthorized"
        } else {
            "200 OK"
        };
        let text = document.to_string();
        write!(
            stream.get_mut(),
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncache-control: max-age=300\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{text}",
            text.len()
        )
    }

    fn introspect(&self, authorization: &str, form: &str) -> Value {
        let expected = STANDARD.encode(format!(
            "{}:{}",
            CLIENT.0,
            CLIENT.1.replace(' ', "+").replace('\'', "%27")
        ));
        if authorization != format!("Basic {expected}") {
            return Value::Null;
        }
        let token = form
            .split('&')
            .find_map(|field| field.strip_prefix("token="));
        let tokens = self.tokens.lock();
        let known = token.and_then(|token| tokens.get(token)).cloned();
        known.unwrap_or_else(|| json!({"active": false}))
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Release);
        self.hold(false);
        // It waits for a connection; that it cannot be had means that it has ended.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
