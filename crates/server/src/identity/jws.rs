//! A signed token in its compact form (RFC 7515): taken apart, and its signature checked.
//!
//! Only checking is here. The rules of RFC 8725 hold: the algorithm must be one that is allowed, and one of the key that is used;
//! a key that comes with the token is not looked at.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::{hmac, signature};
use serde::Deserialize;
use serde_json::Value;

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
    Hs256,
    Hs384,
    Hs512,
}

/// All of them by their names. `none` is not one.
const ALGORITHMS: [(&str, Algorithm); 13] = [
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("PS256", Algorithm::Ps256),
    ("PS384", Algorithm::Ps384),
    ("PS512", Algorithm::Ps512),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("EdDSA", Algorithm::EdDsa),
    ("Ed25519", Algorithm::EdDsa),
    ("HS256", Algorithm::Hs256),
    ("HS384", Algorithm::Hs384),
    ("HS512", Algorithm::Hs512),
];

/// What a signature is checked with. Each goes with its own algorithms, and with no others.
#[derive(Clone)]
pub(super) enum Key {
    /// Modulus and exponent, big-endian.
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point.
    P256(Vec<u8>),
    /// An uncompressed point.
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
    /// A secret that both sides know.
    Secret(std::sync::Arc<zeroize::Zeroizing<Vec<u8>>>),
}

/// A token taken apart.
pub(super) struct Jws<'a> {
    pub(super) algorithm: Algorithm,
    /// Which of the issuer's keys it is signed with.
    pub(super) key_id: Option<String>,
    /// What is signed.
    signed: &'a str,
    pub(super) payload: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<Value>,
}

impl Algorithm {
    pub(super) fn parse(name: &str) -> Option<Self> {
        let found = ALGORITHMS.iter().find(|(known, _)| *known == name);
        found.map(|(_, algorithm)| *algorithm)
    }

    /// Whether it needs a secret that both sides know.
    pub(super) fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

impl<'a> Jws<'a> {
    /// Takes a token apart. Nothing of it is true before [`is_signed_with`](Self::is_signed_with) says so.
    ///
    /// # Errors
    /// Why it is none, or none that is accepted.
    pub(super) fn parse(token: &'a str) -> Result<Self, &'static str> {
        let malformed = "the token is not a JWT of three parts";
        let (signed, signature) = token.rsplit_once('.').ok_or(malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(malformed)?;
        if payload.contains('.') {
            return Err(malformed);
        }
        let decode = |part: &str| BASE64.decode(part).map_err(|_| malformed);
        let header: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| "the token's header cannot be read")?;
        if header.crit.is_some() {
            return Err("the token has critical extensions, and none is known");
        }
        if !header.typ.as_deref().is_none_or(is_access_token) {
            return Err("the token's type is not that of an access token");
        }
        Ok(Self {
            algorithm: Algorithm::parse(&header.alg)
                .ok_or("the token's algorithm is not one that is allowed")?,
            key_id: header.kid,
            signed,
            payload: decode(payload)?,
            signature: decode(signature)?,
        })
    }

    /// Whether the signature is of this key.
    pub(super) fn is_signed_with(&self, key: &Key) -> bool {
        let (message, signature) = (self.signed.as_bytes(), &*self.signature);
        match key {
            Key::Rsa { n, e } => rsa(self.algorithm).is_some_and(|parameters| {
                let key = signature::RsaPublicKeyComponents { n, e };
                key.verify(parameters, message, signature).is_ok()
            }),
            Key::P256(point) if self.algorithm == Algorithm::Es256 => verify(
                &signature::ECDSA_P256_SHA256_FIXED,
                point,
                message,
                signature,
            ),
            Key::P384(point) if self.algorithm == Algorithm::Es384 => verify(
                &signature::ECDSA_P384_SHA384_FIXED,
                point,
                message,
                signature,
            ),
            Key::Ed25519(point) if self.algorithm == Algorithm::EdDsa => {
                verify(&signature::ED25519, point, message, signature)
            }
            Key::Secret(secret) => symmetric(self.algorithm).is_some_and(|algorithm| {
                let key = hmac::Key::new(algorithm, secret);
                hmac::verify(&key, message, signature).is_ok()
            }),
            _ => false,
        }
    }
}

impl Key {
    /// Whether tokens that are signed so can be signed with it.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => rsa(algorithm).is_some(),
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::P384(_) => algorithm == Algorithm::Es384,
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
            Self::Secret(_) => algorithm.is_symmetric(),
        }
    }
}

/// `JWT`, or `at+jwt` of RFC 9068. Other types are for other purposes: a logout token must not log in.
fn is_access_token(media_type: &str) -> bool {
    let media_type = media_type.to_ascii_lowercase();
    let short = media_type
        .strip_prefix("application/")
        .unwrap_or(&media_type);
    matches!(short, "jwt" | "at+jwt")
}

fn verify(
    algorithm: &'static dyn signature::VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    let key = signature::UnparsedPublicKey::new(algorithm, key);
    key.verify(message, signature).is_ok()
}

/// Keys of less than 2,048 bits are refused.
fn rsa(algorithm: Algorithm) -> Option<&'static signature::RsaParameters> {
    Some(match algorithm {
        Algorithm::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

fn symmetric(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    Some(match algorithm {
        Algorithm::Hs256 => hmac::HMAC_SHA256,
        Algorithm::Hs384 => hmac::HMAC_SHA384,
        Algorithm::Hs512 => hmac::HMAC_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendix A.2 and A.3: the same claims, signed with RS256 and ES256.
    const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    const RS256: &str = "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
    const ES256: &str =
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    const X: &str = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU";
    const Y: &str = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0";

    fn bytes(text: &str) -> Vec<u8> {
        BASE64.decode(text).unwrap()
    }

    fn rsa_key() -> Key {
        Key::Rsa {
            n: bytes(N),
            e: vec![1, 0, 1],
        }
    }

    fn p256() -> Key {
        Key::P256([vec![4], bytes(X), bytes(Y)].concat())
    }

    fn token(header: &str, signature: &str) -> String {
        format!("{}.{CLAIMS}.{signature}", BASE64.encode(header))
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let rs256 = token(r#"{"alg":"RS256"}"#, RS256);
        let jws = Jws::parse(&rs256).unwrap();
        assert!(jws.is_signed_with(&rsa_key()));
        assert!(!jws.is_signed_with(&p256()));
        let es256 = token(r#"{"alg":"ES256"}"#, ES256);
        let jws = Jws::parse(&es256).unwrap();
        assert!(jws.is_signed_with(&p256()));
        assert!(!jws.is_signed_with(&rsa_key()));
    }

    #[test]
    fn a_public_key_is_no_secret() {
        // Who takes the algorithm from the token would check it with the key that everybody knows.
        let header = BASE64.encode(r#"{"alg":"HS256"}"#);
        let signed = format!("{header}.{CLAIMS}");
        for known in [bytes(N), bytes(X), N.as_bytes().to_vec()] {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &known);
            let tag = BASE64.encode(hmac::sign(&key, signed.as_bytes()));
            let forged = format!("{signed}.{tag}");
            let jws = Jws::parse(&forged).unwrap();
            assert!(!jws.is_signed_with(&rsa_key()) && !jws.is_signed_with(&p256()));
            assert!(!rsa_key().fits(jws.algorithm));
        }
    }

    #[test]
    fn what_is_changed_is_not_signed() {
        let good = token(r#"{"alg":"ES256"}"#, ES256);
        for at in 0..good.len() {
            let mut changed = good.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            let accepted = Jws::parse(&changed).is_ok_and(|jws| jws.is_signed_with(&p256()));
            assert!(!accepted, "{changed}");
        }
        for end in 0..good.len() {
            let cut = Jws::parse(&good[..end]);
            assert!(!cut.is_ok_and(|jws| jws.is_signed_with(&p256())));
        }
    }

    #[test]
    fn headers_that_are_refused() {
        let refused = [
            r#"{"alg":"none"}"#,
            r#"{"alg":"None"}"#,
            r#"{"alg":""}"#,
            r#"{}"#,
            r#"{"alg":"RS256","crit":["b64"],"b64":false}"#,
            r#"{"alg":"RS256","typ":"logout+jwt"}"#,
            r#"{"alg":"RS256","alg":"HS256"}"#,
            "not JSON",
        ];
        for header in refused {
            assert!(Jws::parse(&token(header, RS256)).is_err(), "{header}");
        }
        for header in [
            r#"{"alg":"RS256","typ":"JWT"}"#,
            r#"{"alg":"RS256","typ":"at+jwt"}"#,
        ] {
            assert!(Jws::parse(&token(header, RS256)).is_ok(), "{header}");
        }
        let unsigned = token(r#"{"alg":"none"}"#, "");
        assert!(Jws::parse(&unsigned).is_err());
        for shape in ["", ".", "..", "...", "a.b", "a.b.c.d", "a.b.c.d.e"] {
            assert!(Jws::parse(shape).is_err());
        }
    }
}
