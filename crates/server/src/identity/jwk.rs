//! The keys of an issuer, as it publishes them (RFC 7517).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::Deserialize;
use serde_json::Value;

use super::jws::{Algorithm, Jws, Key};

/// The most keys of one set that are looked at.
const KEYS_MAX: usize = 64;

/// The keys of an issuer.
#[derive(Clone, Default)]
pub(super) struct KeySet(Vec<Named>);

/// A key, and which tokens it is for.
#[derive(Clone)]
struct Named {
    id: Option<String>,
    /// The only algorithm that it is for, if it says so.
    algorithm: Option<Algorithm>,
    key: Key,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// What is read of a key. Kinds that are not known are left out: a set may have keys for other purposes.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    r#use: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads `{"keys":[…]}`.
    ///
    /// # Errors
    /// If it is none, or has no key that can be used.
    pub(super) fn parse(json: &[u8]) -> Result<Self, String> {
        let set: Set =
            serde_json::from_slice(json).map_err(|error| format!("it is no JWK set: {error}"))?;
        let keys: Vec<Named> = set
            .keys
            .into_iter()
            .take(KEYS_MAX)
            .filter_map(named)
            .collect();
        if keys.is_empty() {
            return Err("it has no key that a signature could be checked with".to_owned());
        }
        Ok(Self(keys))
    }

    /// Of one secret that both sides know.
    pub(super) fn of_secret(key: Key) -> Self {
        Self(vec![Named {
            id: None,
            algorithm: None,
            key,
        }])
    }

    /// Whether there is a key that a token names; any that fits, if it names none.
    pub(super) fn has_key_for(&self, jws: &Jws<'_>) -> bool {
        self.candidates(jws).next().is_some()
    }

    /// Whether a token is signed with the key that it names.
    pub(super) fn has_signed(&self, jws: &Jws<'_>) -> bool {
        self.candidates(jws).any(|key| jws.is_signed_with(key))
    }

    fn candidates<'a>(&'a self, jws: &'a Jws<'_>) -> impl Iterator<Item = &'a Key> {
        let fits = |named: &&Named| {
            let named_by_token = match (&jws.key_id, &named.id) {
                (Some(wanted), Some(id)) => wanted == id,
                // A secret has no name, nor has a lone key in a file.
                (Some(_), None) | (None, _) => true,
            };
            named_by_token
                && named.algorithm.is_none_or(|only| only == jws.algorithm)
                && named.key.fits(jws.algorithm)
        };
        self.0.iter().filter(fits).map(|named| &named.key)
    }
}

fn named(value: Value) -> Option<Named> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let for_signatures = jwk.r#use.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk
            .key_ops
            .as_ref()
            .is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    if !for_signatures {
        return None;
    }
    let algorithm = match jwk.alg.as_deref() {
        Some(name) => Some(Algorithm::parse(name)?),
        None => None,
    };
    let bytes = |text: &Option<String>| BASE64.decode(text.as_deref()?).ok();
    let key = match (&*jwk.kty, jwk.crv.as_deref()) {
        ("RSA", _) => Key::Rsa {
            n: bytes(&jwk.n)?,
            e: bytes(&jwk.e)?,
        },
        ("EC", Some("P-256")) => Key::P256(point(bytes(&jwk.x)?, bytes(&jwk.y)?, 32)?),
        ("EC", Some("P-384")) => Key::P384(point(bytes(&jwk.x)?, bytes(&jwk.y)?, 48)?),
        ("OKP", Some("Ed25519")) => Key::Ed25519(bytes(&jwk.x)?),
        // "oct" is a secret, which nobody may publish.
        _ => return None,
    };
    Some(Named {
        id: jwk.kid,
        algorithm,
        key,
    })
}

/// An uncompressed point of two coordinates of this length.
fn point(x: Vec<u8>, y: Vec<u8>, length: usize) -> Option<Vec<u8>> {
    (x.len() == length && y.len() == length).then(|| [vec![4], x, y].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const P256: &str = r#"{"kty":"EC","crv":"P-256","kid":"1","use":"sig",
        "x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;

    fn fits(set: &str, header: &str) -> bool {
        let set = KeySet::parse(set.as_bytes()).unwrap();
        let token = format!("{}..AAAA", BASE64.encode(header));
        set.has_key_for(&Jws::parse(&token).unwrap())
    }

    #[test]
    fn the_key_is_the_one_that_the_token_names() {
        let set = format!("{{\"keys\":[{P256},{{\"kty\":\"new\"}}]}}");
        assert!(fits(&set, r#"{"alg":"ES256","kid":"1"}"#));
        assert!(fits(&set, r#"{"alg":"ES256"}"#));
        assert!(!fits(&set, r#"{"alg":"ES256","kid":"2"}"#));
        assert!(!fits(&set, r#"{"alg":"RS256","kid":"1"}"#));
        assert!(!fits(&set, r#"{"alg":"HS256","kid":"1"}"#));
    }

    #[test]
    fn a_key_for_one_algorithm_is_for_no_other() {
        let rsa = r#"{"keys":[{"kty":"RSA","alg":"PS256","n":"AQAB","e":"AQAB"}]}"#;
        assert!(fits(rsa, r#"{"alg":"PS256"}"#));
        assert!(!fits(rsa, r#"{"alg":"RS256"}"#));
    }

    #[test]
    fn sets_without_a_key_for_signatures_are_refused() {
        let encryption = P256.replace("sig", "enc");
        let short = P256.replace("f83OJ3D2", "");
        let secret = r#"{"kty":"oct","k":"AAAA"}"#;
        for key in [&*encryption, &short, secret, "1", ""] {
            assert!(KeySet::parse(format!("{{\"keys\":[{key}]}}").as_bytes()).is_err());
        }
        assert!(KeySet::parse(b"[]").is_err());
    }
}
