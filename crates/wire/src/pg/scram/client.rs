//! The client's side of the conversation.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::exchange::END_POINT;
use super::verifier::client_keys;
use super::{Channel, NONCE_BYTES, SHA_256, SHA_256_PLUS, hmac, xor};

/// Rounds that a server may ask for. Without a limit one that is not who it says could keep a thread for hours.
pub const ROUNDS_MAX: u32 = 10_000_000;

/// Why a server is not believed, or not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It offers nothing that is spoken here.
    #[error("the server offers no SASL mechanism that is supported: {0}")]
    Mechanism(String),
    /// It asks for more work than is sensible.
    #[error("the server asks for {0} rounds of hashing, more than {ROUNDS_MAX}")]
    Rounds(u32),
    /// What it said is no message of SCRAM.
    #[error("the server's SCRAM message is malformed: {0}")]
    Malformed(&'static str),
    /// It does not know the password either.
    #[error("the server could not prove that it knows the password's verifier")]
    Signature,
    /// What it says of the exchange's end.
    #[error("the server ended the SCRAM exchange with an error: {0}")]
    Refused(String),
}

/// A conversation in which the client has said its first words.
pub struct Client {
    mechanism: &'static str,
    header: &'static str,
    /// The hash of the server's certificate, if the exchange is bound to it.
    end_point: Vec<u8>,
    nonce: String,
}

/// A conversation that waits for the server's proof.
pub struct Proof {
    server_key: Zeroizing<[u8; 32]>,
    said: String,
}

impl Client {
    /// Chooses among the mechanisms that a server offers, the bound one if there is something to bind to.
    ///
    /// # Errors
    ///
    /// [`Distrust::Mechanism`] if there is none of ours.
    pub fn choose(
        offered: &[&str],
        channel: &Channel,
        nonce: &[u8; NONCE_BYTES],
    ) -> Result<Self, Distrust> {
        let end_point = channel.end_point();
        let (mechanism, header, end_point) = match end_point {
            Some(hash) if offered.contains(&SHA_256_PLUS) => {
                (SHA_256_PLUS, "p=tls-server-end-point,,", hash.to_vec())
            }
            // We could have bound it: a server that could too knows then that somebody stands between.
            Some(_) if offered.contains(&SHA_256) => (SHA_256, "y,,", Vec::new()),
            None if offered.contains(&SHA_256) => (SHA_256, "n,,", Vec::new()),
            _ => return Err(Distrust::Mechanism(offered.join(", "))),
        };
        debug_assert!(header.contains(END_POINT) == (mechanism == SHA_256_PLUS));
        Ok(Self {
            mechanism,
            header,
            end_point,
            nonce: BASE64.encode(nonce),
        })
    }

    /// The mechanism that was chosen.
    pub fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// The client's first message.
    pub fn first(&self) -> String {
        format!("{}{}", self.header, self.bare())
    }

    /// PostgreSQL takes the name from the startup packet, and so do libpq and we leave it out here.
    fn bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// Reads the server's challenge: the client's last message, and what waits for the server's proof. It takes as
    /// long as all the rounds that the server asks for.
    ///
    /// # Errors
    ///
    /// What is wrong with the challenge.
    pub fn prove(self, password: &str, challenge: &[u8]) -> Result<(String, Proof), Distrust> {
        let challenge =
            std::str::from_utf8(challenge).map_err(|_| Distrust::Malformed("it is not text"))?;
        let (nonce, salt, rounds) = parse(challenge)?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err(Distrust::Malformed("its nonce does not go on from ours"));
        }
        if rounds > ROUNDS_MAX {
            return Err(Distrust::Rounds(rounds));
        }
        let mut channel = self.header.as_bytes().to_vec();
        channel.extend_from_slice(&self.end_point);
        let without_proof = format!("c={},r={nonce}", BASE64.encode(channel));
        let said = format!("{},{challenge},{without_proof}", self.bare());
        let (client_key, server_key) = client_keys(password, &salt, rounds);
        let stored_key: Zeroizing<[u8; 32]> = Zeroizing::new(Sha256::digest(*client_key).into());
        let mut proof = client_key;
        xor(&mut proof, &hmac(&*stored_key, &[said.as_bytes()]));
        let last = format!("{without_proof},p={}", BASE64.encode(*proof));
        Ok((last, Proof { server_key, said }))
    }
}

impl Proof {
    /// Judges the server's last message.
    ///
    /// # Errors
    ///
    /// [`Distrust::Signature`] if it does not know the password's verifier; what it says if it ends with an error.
    pub fn judge(self, message: &[u8]) -> Result<(), Distrust> {
        let message =
            std::str::from_utf8(message).map_err(|_| Distrust::Malformed("it is not text"))?;
        if let Some(error) = message.strip_prefix("e=") {
            return Err(Distrust::Refused(error.to_owned()));
        }
        let signature = message.strip_prefix("v=").and_then(|rest| {
            let signature = rest.split(',').next()?;
            BASE64.decode(signature).ok()
        });
        let signature = signature.ok_or(Distrust::Malformed("it has no signature"))?;
        let expected = hmac(&*self.server_key, &[self.said.as_bytes()]);
        match bool::from(signature.ct_eq(&expected)) {
            true => Ok(()),
            false => Err(Distrust::Signature),
        }
    }
}

/// The nonce, the salt and the rounds of a challenge.
fn parse(challenge: &str) -> Result<(&str, Vec<u8>, u32), Distrust> {
    let mut parts = challenge.split(',');
    let mut part = |name: &str, missing| {
        let value = parts.next().and_then(|part| part.strip_prefix(name));
        value.ok_or(Distrust::Malformed(missing))
    };
    let nonce = part("r=", "it has no nonce")?;
    let salt = part("s=", "it has no salt")?;
    let rounds = part("i=", "it has no number of rounds")?;
    let salt = BASE64
        .decode(salt)
        .map_err(|_| Distrust::Malformed("its salt is not in base 64"))?;
    let rounds = rounds.parse().ok().filter(|rounds| *rounds > 0);
    let rounds = rounds.ok_or(Distrust::Malformed("its number of rounds is none"))?;
    Ok((nonce, salt, rounds))
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("mechanism", &self.mechanism)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Proof").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Exchange, Refused, Verifier};
    use super::*;
    use proptest::prelude::*;

    const NONCE: [u8; NONCE_BYTES] = [7; NONCE_BYTES];

    fn bound() -> Channel {
        Channel::Tls {
            end_point: Some(b"hash".to_vec()),
        }
    }

    /// Both sides of a conversation, over what each sees of the channel.
    fn talk(
        password: &str,
        (ours, theirs): (&Channel, Channel),
        salt: &[u8],
    ) -> Result<Result<(), Distrust>, Refused> {
        let verifier = Verifier::of_password("pencil", salt, 10);
        let client = Client::choose(theirs.mechanisms(), ours, &NONCE).unwrap();
        let server = Exchange::new(verifier, theirs);
        let (challenge, server) =
            server.challenge(client.mechanism(), client.first().as_bytes(), &[9; 18])?;
        let (last, proof) = client.prove(password, challenge.as_bytes()).unwrap();
        let outcome = server.judge(last.as_bytes())?;
        Ok(proof.judge(outcome.as_bytes()))
    }

    #[test]
    fn both_sides_agree() {
        let plain = Channel::Plain;
        assert_eq!(talk("pencil", (&plain, Channel::Plain), b"s"), Ok(Ok(())));
        assert_eq!(talk("pencil", (&bound(), bound()), b"s"), Ok(Ok(())));
        assert_eq!(talk("pencil", (&bound(), Channel::Plain), b"s"), Ok(Ok(())));
        let wrong = talk("pen", (&plain, Channel::Plain), b"s");
        assert_eq!(wrong, Err(Refused::Password));
    }

    #[test]
    fn who_stands_between_is_noticed() {
        let other = Channel::Tls {
            end_point: Some(b"another".to_vec()),
        };
        let got = talk("pencil", (&bound(), other), b"s");
        assert!(matches!(got, Err(Refused::Error(_))), "{got:?}");
    }

    /// The example of RFC 7677, but for the name, which PostgreSQL takes from elsewhere.
    #[test]
    fn a_server_must_prove_itself() {
        let client = Client::choose(&[SHA_256], &Channel::Plain, &NONCE).unwrap();
        let challenge = format!("r={}srv,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", client.nonce);
        let (_, proof) = client.prove("pencil", challenge.as_bytes()).unwrap();
        let forged = format!("v={}", BASE64.encode([0; 32]));
        assert_eq!(proof.judge(forged.as_bytes()), Err(Distrust::Signature));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let none = Client::choose(&["OAUTHBEARER"], &Channel::Plain, &NONCE);
        assert_eq!(
            none.err(),
            Some(Distrust::Mechanism("OAUTHBEARER".to_owned()))
        );
        let prove = |challenge: &str| {
            let client = Client::choose(&[SHA_256], &Channel::Plain, &NONCE).unwrap();
            let challenge = challenge.replace("OURS", &client.nonce);
            client.prove("x", challenge.as_bytes()).err()
        };
        assert_eq!(prove("r=OURSx,s=AAAA,i=1"), None);
        assert_eq!(
            prove("r=OURSx,s=AAAA,i=4000000000"),
            Some(Distrust::Rounds(4_000_000_000))
        );
        for challenge in [
            "",
            "r=OURS,s=AAAA,i=1",
            "r=other,s=AAAA,i=1",
            "r=OURSx,s=?,i=1",
            "r=OURSx,s=AAAA,i=0",
            "r=OURSx,s=AAAA",
        ] {
            let got = prove(challenge);
            assert!(matches!(got, Some(Distrust::Malformed(_))), "{challenge}");
        }
    }

    #[test]
    fn errors_of_the_server_are_told() {
        let client = Client::choose(&[SHA_256], &Channel::Plain, &NONCE).unwrap();
        let challenge = format!("r={}x,s=AAAA,i=1", client.nonce);
        let (_, proof) = client.prove("x", challenge.as_bytes()).unwrap();
        let told = Distrust::Refused("other-error".to_owned());
        assert_eq!(proof.judge(b"e=other-error"), Err(told));
    }

    proptest! {
        /// Odyssey and others took only salts of 16 bytes, and failed with all servers of one provider.
        #[test]
        fn salts_of_any_length(salt in proptest::collection::vec(any::<u8>(), 1..80)) {
            prop_assert_eq!(talk("pencil", (&Channel::Plain, Channel::Plain), &salt), Ok(Ok(())));
        }
    }
}
