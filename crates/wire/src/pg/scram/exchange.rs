//! The conversation.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{NONCE_BYTES, SHA_256, SHA_256_PLUS, Verifier, hmac, xor};
use crate::pg::{PgError, sqlstate};

/// The channel binding that there is (RFC 5929).
pub(super) const END_POINT: &str = "tls-server-end-point";

/// What a conversation runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// A connection in clear.
    Plain,
    /// TLS.
    Tls {
        /// The hash of the server's certificate; none if its signature has no hash to take.
        end_point: Option<Vec<u8>>,
    },
}

impl Channel {
    /// The mechanisms to offer in it.
    pub fn mechanisms(&self) -> &'static [&'static str] {
        match self.end_point() {
            Some(_) => &[SHA_256_PLUS, SHA_256],
            None => &[SHA_256],
        }
    }

    pub(super) fn end_point(&self) -> Option<&[u8]> {
        match self {
            Self::Tls { end_point } => end_point.as_deref(),
            Self::Plain => None,
        }
    }
}

/// Why a conversation ends without an authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The client does not know the password.
    Password,
    /// The client does not speak the mechanism, or somebody stands between.
    Error(PgError),
}

impl From<PgError> for Refused {
    fn from(error: PgError) -> Self {
        Self::Error(error)
    }
}

/// A conversation that waits for the client's first message.
#[derive(Debug)]
pub struct Exchange {
    verifier: Verifier,
    channel: Channel,
}

/// A conversation that waits for the client's proof.
#[derive(Debug)]
pub struct Challenge {
    verifier: Verifier,
    /// What the client must say of the channel: the header of its first message, and the binding.
    channel: Vec<u8>,
    is_bound: bool,
    nonce: String,
    /// The client's first message without its header, and ours.
    said: String,
}

impl Exchange {
    /// With the verifier of a role's password.
    pub fn new(verifier: Verifier, channel: Channel) -> Self {
        Self { verifier, channel }
    }

    /// Reads the client's first message, in the mechanism that it chose: the answer, and what waits
    /// for its proof.
    ///
    /// # Errors
    ///
    /// 08P01 for what is no such message, and for a client that was made to believe that there is no
    /// channel binding; 0A000 for a wish to act as somebody else.
    pub fn challenge(
        self,
        mechanism: &str,
        message: &[u8],
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<(String, Challenge), PgError> {
        let end_point = self.channel.end_point();
        let is_bound = match mechanism {
            SHA_256 => false,
            SHA_256_PLUS if end_point.is_some() => true,
            _ => {
                return Err(violation(
                    "client selected an invalid SASL authentication mechanism",
                ));
            }
        };
        let first = First::parse(message)?;
        match first.binding {
            Binding::Named(END_POINT) if is_bound => {}
            Binding::Named(_) if is_bound => {
                return Err(violation("unsupported SCRAM channel-binding type"));
            }
            Binding::NotSupported if !is_bound => {}
            // Somebody has taken the mechanism from the list that the client saw.
            Binding::NotOffered if !is_bound && end_point.is_some() => {
                return Err(PgError::fatal(
                    sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
                    "SCRAM channel binding negotiation error",
                )
                .detail(
                    "The client supports SCRAM channel binding but thinks the server does not. \
                     However, this server does support channel binding.",
                ));
            }
            Binding::NotOffered if !is_bound => {}
            _ => {
                return Err(malformed(
                    "The channel binding flag does not go with the mechanism that was selected.",
                ));
            }
        }
        if first.authorization.is_some() {
            return Err(PgError::fatal(
                sqlstate::FEATURE_NOT_SUPPORTED,
                "client uses authorization identity, but it is not supported",
            ));
        }
        let mut channel = first.header.as_bytes().to_vec();
        if is_bound {
            channel.extend_from_slice(end_point.unwrap_or_default());
        }
        let nonce = format!("{}{}", first.nonce, BASE64.encode(nonce));
        let answer = format!(
            "r={nonce},s={},i={}",
            BASE64.encode(&self.verifier.salt),
            self.verifier.iterations
        );
        let challenge = Challenge {
            verifier: self.verifier,
            channel,
            is_bound,
            nonce,
            said: format!("{},{answer}", first.bare),
        };
        Ok((answer, challenge))
    }
}

impl Challenge {
    /// Judges the client's last message: the answer, which proves that we know the verifier.
    ///
    /// # Errors
    ///
    /// Why the client is not who it says.
    pub fn judge(self, message: &[u8]) -> Result<String, Refused> {
        let last = Last::parse(message)?;
        let channel = BASE64.encode(&self.channel);
        if last.channel != channel && self.is_bound {
            return Err(Refused::Error(PgError::fatal(
                sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
                "SCRAM channel binding check failed",
            )));
        }
        if last.channel != channel {
            return Err(violation(
                "unexpected SCRAM channel-binding attribute in client-final-message",
            )
            .into());
        }
        if last.nonce != self.nonce {
            return Err(violation("invalid SCRAM response")
                .detail("Nonce does not match.")
                .into());
        }
        let said: [&[u8]; 3] = [self.said.as_bytes(), b",", last.without_proof.as_bytes()];
        let mut client_key = Zeroizing::new(last.proof);
        xor(&mut client_key, &hmac(&*self.verifier.stored_key, &said));
        let stored_key: [u8; 32] = Sha256::digest(*client_key).into();
        if !bool::from(stored_key.ct_eq(&*self.verifier.stored_key)) {
            return Err(Refused::Password);
        }
        let signature = hmac(&*self.verifier.server_key, &said);
        Ok(format!("v={}", BASE64.encode(signature)))
    }
}

/// What a client says of channel binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Binding<'a> {
    /// It has none.
    NotSupported,
    /// It has, but believes that we have not.
    NotOffered,
    Named(&'a str),
}

/// A client's first message.
struct First<'a> {
    binding: Binding<'a>,
    authorization: Option<&'a str>,
    /// The two before, as they were written.
    header: &'a str,
    bare: &'a str,
    nonce: &'a str,
}

impl<'a> First<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, PgError> {
        let text = text(message)?;
        let comma = |text: &'a str| text.split_once(',').ok_or_else(|| expected(","));
        let (flag, rest) = comma(text)?;
        let binding = match flag {
            "n" => Binding::NotSupported,
            "y" => Binding::NotOffered,
            _ => Binding::Named(attribute(flag, 'p')?),
        };
        let (authorization, bare) = comma(rest)?;
        if bare.starts_with("m=") {
            return Err(PgError::fatal(
                sqlstate::FEATURE_NOT_SUPPORTED,
                "client requires an unsupported SCRAM extension",
            ));
        }
        // The name is that of the startup packet; PostgreSQL, too, does not look at this one.
        let (name, rest) = comma(bare)?;
        attribute(name, 'n')?;
        let nonce = attribute(rest.split(',').next().unwrap_or_default(), 'r')?;
        if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(malformed("Non-printable characters in SCRAM nonce."));
        }
        Ok(Self {
            binding,
            authorization: Some(authorization).filter(|name| !name.is_empty()),
            header: &text[..text.len() - bare.len()],
            bare,
            nonce,
        })
    }
}

/// A client's last message.
struct Last<'a> {
    channel: &'a str,
    nonce: &'a str,
    without_proof: &'a str,
    proof: [u8; 32],
}

impl<'a> Last<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, PgError> {
        let text = text(message)?;
        let (without_proof, proof) = text.rsplit_once(',').ok_or_else(|| expected("p"))?;
        let mut attributes = without_proof.split(',');
        let channel = attribute(attributes.next().unwrap_or_default(), 'c')?;
        let nonce = attribute(attributes.next().unwrap_or_default(), 'r')?;
        let proof = BASE64.decode(attribute(proof, 'p')?).ok();
        let proof = proof.and_then(|proof| proof.try_into().ok());
        Ok(Self {
            channel,
            nonce,
            without_proof,
            proof: proof.ok_or_else(|| malformed("Malformed proof in client-final-message."))?,
        })
    }
}

fn text(message: &[u8]) -> Result<&str, PgError> {
    let text = std::str::from_utf8(message).ok();
    text.filter(|text| !text.contains('\0'))
        .ok_or_else(|| malformed("The message is not text."))
}

/// The value of an attribute that must be this one.
fn attribute(text: &str, name: char) -> Result<&str, PgError> {
    text.strip_prefix(name)
        .and_then(|text| text.strip_prefix('='))
        .ok_or_else(|| expected(&format!("{name}=")))
}

fn expected(what: &str) -> PgError {
    malformed(&format!("Expected \"{what}\"."))
}

fn malformed(detail: &str) -> PgError {
    violation("malformed SCRAM message").detail(detail)
}

fn violation(message: &str) -> PgError {
    PgError::fatal(sqlstate::PROTOCOL_VIOLATION, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SALT: &[u8] = b"sixteen bytes of";

    fn exchange(password: &str, channel: &Channel) -> Exchange {
        Exchange::new(Verifier::of_password(password, SALT, 3), channel.clone())
    }

    fn bound() -> Channel {
        Channel::Tls {
            end_point: Some(vec![7; 32]),
        }
    }

    /// A client's last message, by RFC 5802.
    fn answer(password: &str, channel: &[u8], bare: &str, challenge: &str) -> String {
        let nonce = challenge[2..].split(',').next().unwrap();
        let without = format!("c={},r={nonce}", BASE64.encode(channel));
        let said = format!("{bare},{challenge},{without}");
        let keys = Verifier::of_password(password, SALT, 3);
        // The key that the verifier is the hash of.
        let mut salted = hmac(password.as_bytes(), &[SALT, &1u32.to_be_bytes()]);
        let mut last = salted;
        for _ in 1..3 {
            last = hmac(password.as_bytes(), &[&last]);
            xor(&mut salted, &last);
        }
        let mut proof = hmac(&salted, &[b"Client Key"]);
        xor(&mut proof, &hmac(&*keys.stored_key, &[said.as_bytes()]));
        format!("{without},p={}", BASE64.encode(proof))
    }

    #[test]
    fn the_example_of_rfc_7677() {
        // Its server adds a nonce of its own, which is put in here after the fact.
        let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let bare = "n=user,r=rOprNGfwEbeRWgbNEkqO";
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let challenge = Challenge {
            verifier: Verifier::of_password("pencil", &salt, 4096),
            channel: b"n,,".to_vec(),
            is_bound: false,
            nonce: nonce.to_owned(),
            said: format!("{bare},r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"),
        };
        let last = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let outcome = challenge.judge(last.as_bytes());
        let proof = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(outcome.as_deref(), Ok(proof));
    }

    #[test]
    fn with_a_binding_and_without() {
        let none = Channel::Tls { end_point: None };
        let table = [
            (Channel::Plain, SHA_256, "n,,", vec![]),
            (Channel::Plain, SHA_256, "y,,", vec![]),
            (none, SHA_256, "y,,", vec![]),
            (bound(), SHA_256, "n,,", vec![]),
            (
                bound(),
                SHA_256_PLUS,
                "p=tls-server-end-point,,",
                vec![7; 32],
            ),
        ];
        for (channel, mechanism, header, binding) in table {
            assert!(channel.mechanisms().contains(&mechanism));
            let first = format!("{header}n=,r=abc");
            let (said, challenge) = exchange("secret", &channel)
                .challenge(mechanism, first.as_bytes(), &[1; NONCE_BYTES])
                .unwrap();
            let binding = [header.as_bytes(), &binding].concat();
            let last = answer("secret", &binding, "n=,r=abc", &said);
            assert!(challenge.judge(last.as_bytes()).is_ok(), "{header}");
        }
    }

    #[test]
    fn a_certificate_of_somebody_between_is_noticed() {
        let header = "p=tls-server-end-point,,";
        let first = format!("{header}n=,r=abc");
        let (said, challenge) = exchange("secret", &bound())
            .challenge(SHA_256_PLUS, first.as_bytes(), &[1; NONCE_BYTES])
            .unwrap();
        let other = [header.as_bytes(), &[8; 32]].concat();
        let last = answer("secret", &other, "n=,r=abc", &said);
        let refused = challenge.judge(last.as_bytes());
        assert!(
            matches!(&refused, Err(Refused::Error(error)) if error.code() == "28000"),
            "{refused:?}"
        );
    }

    #[test]
    fn first_messages_that_are_refused() {
        let table = [
            (
                Channel::Plain,
                SHA_256_PLUS,
                "p=tls-server-end-point,,n=,r=a",
                "08P01",
            ),
            (Channel::Plain, "PLAIN", "n,,n=,r=a", "08P01"),
            (bound(), SHA_256, "y,,n=,r=a", "28000"),
            (bound(), SHA_256, "p=tls-server-end-point,,n=,r=a", "08P01"),
            (bound(), SHA_256_PLUS, "n,,n=,r=a", "08P01"),
            (bound(), SHA_256_PLUS, "y,,n=,r=a", "08P01"),
            (bound(), SHA_256_PLUS, "p=tls-unique,,n=,r=a", "08P01"),
            (Channel::Plain, SHA_256, "n,a=ann,n=,r=a", "0A000"),
            (Channel::Plain, SHA_256, "n,,m=x,n=,r=a", "0A000"),
            (Channel::Plain, SHA_256, "n,,n=,r=", "08P01"),
            (Channel::Plain, SHA_256, "n,,n=,r=\u{e9}", "08P01"),
            (Channel::Plain, SHA_256, "n,,r=a", "08P01"),
            (Channel::Plain, SHA_256, "", "08P01"),
        ];
        for (channel, mechanism, first, code) in table {
            let refused =
                exchange("x", &channel).challenge(mechanism, first.as_bytes(), &[0; NONCE_BYTES]);
            assert_eq!(refused.unwrap_err().code(), code, "{mechanism} {first}");
        }
    }

    proptest! {
        #[test]
        fn only_the_password_is_accepted(
            password in "\\PC{1,20}", other in "\\PC{1,20}", nonce in "[!-+--~]{1,40}",
        ) {
            let prepared = |text: &str| match stringprep::saslprep(text) {
                Ok(prepared) => prepared.into_owned(),
                Err(_) => text.to_owned(),
            };
            let bare = format!("n=,r={nonce}");
            let judged = |given: &str| {
                let first = format!("n,,{bare}");
                let (said, challenge) = exchange(&password, &Channel::Plain)
                    .challenge(SHA_256, first.as_bytes(), &[9; NONCE_BYTES])
                    .unwrap();
                challenge.judge(answer(&prepared(given), b"n,,", &bare, &said).as_bytes())
            };
            prop_assert!(judged(&password).is_ok());
            if prepared(&password) != prepared(&other) {
                prop_assert_eq!(judged(&other), Err(Refused::Password));
            }
        }

        #[test]
        fn any_bytes_are_judged(
            first in "(n|y|p=x),(a=b)?,(n=[a-z]*,)?(r=[a-z]*)?(,.*)?",
            bytes in proptest::collection::vec(any::<u8>(), 0..80),
            last in "c=[a-zA-Z=]{0,8},r=.{0,40}(,p=.{0,50})?",
        ) {
            let _ = exchange("x", &Channel::Plain).challenge(SHA_256, first.as_bytes(), &[0; 18]);
            let _ = exchange("x", &Channel::Plain).challenge(SHA_256, &bytes, &[0; 18]);
            for last in [last.as_bytes(), &bytes] {
                let (_, challenge) = exchange("x", &Channel::Plain)
                    .challenge(SHA_256, b"n,,n=,r=abc", &[0; 18])
                    .unwrap();
                prop_assert!(challenge.judge(last).is_err());
            }
        }
    }
}
