//! What a request shows to say who makes it.

use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use zeroize::Zeroizing;

/// Before the token in a name of a subprotocol: browsers let a page choose that of a WebSocket, and no header.
const SUBPROTOCOL_PREFIX: &str = "dormouse.bearer.";

/// The user of a password that is a token, for clients that know only users and passwords.
const TOKEN_USER: &str = "token";

/// What a request shows to say who makes it.
#[derive(Clone)]
pub(super) enum Presented {
    Nothing,
    /// A token of some kind.
    Bearer(Zeroizing<String>),
    Password(Password),
}

/// A role and its password.
#[derive(Clone)]
pub(crate) struct Password {
    pub(crate) user: String,
    pub(crate) password: Zeroizing<String>,
}

/// What it shows cannot be read: why, without what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable(pub(super) &'static str);

/// Reads the headers; the longest token has `bytes_max` bytes.
pub(super) fn read(headers: &HeaderMap, bytes_max: usize) -> Result<Presented, Unreadable> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let presented = match (values.next(), values.next()) {
        (None, _) => subprotocol(headers)?,
        (Some(_), Some(_)) => {
            return Err(Unreadable("there is more than one header Authorization"));
        }
        (Some(value), None) => {
            let unreadable = Unreadable("the header Authorization is not text in ASCII");
            authorization(value.to_str().map_err(|_| unreadable)?)?
        }
    };
    checked(presented, bytes_max)
}

/// A token as short as it may be, and of what tokens consist of.
pub(super) fn checked(presented: Presented, bytes_max: usize) -> Result<Presented, Unreadable> {
    match &presented {
        Presented::Bearer(token) if token.len() > bytes_max => Err(Unreadable(
            "the token is longer than auth.token_bytes_max allows",
        )),
        Presented::Bearer(token) if !token.bytes().all(is_of_token) => {
            Err(Unreadable("the token has characters that no token has"))
        }
        _ => Ok(presented),
    }
}

fn authorization(value: &str) -> Result<Presented, Unreadable> {
    let (scheme, rest) = value
        .trim()
        .split_once(' ')
        .unwrap_or_else(|| (value.trim(), ""));
    let rest = rest.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        if rest.is_empty() {
            return Err(Unreadable("the header Authorization has no token"));
        }
        return Ok(Presented::Bearer(Zeroizing::new(rest.to_owned())));
    }
    if scheme.eq_ignore_ascii_case("basic") {
        return basic(rest);
    }
    Err(Unreadable(
        "the header Authorization is neither Bearer nor Basic",
    ))
}

/// `user:password` in base64 (RFC 7617), in UTF-8.
fn basic(encoded: &str) -> Result<Presented, Unreadable> {
    let unreadable = Unreadable("the header Authorization has no user and password after Basic");
    let bytes = Zeroizing::new(BASE64.decode(encoded).map_err(|_| unreadable)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| unreadable)?;
    let (user, password) = text.split_once(':').ok_or(unreadable)?;
    Ok(of_password(user, password))
}

/// A user and a password, which may be a token.
pub(super) fn of_password(user: &str, password: &str) -> Presented {
    let password = Zeroizing::new(password.to_owned());
    if user == TOKEN_USER {
        return Presented::Bearer(password);
    }
    Presented::Password(Password {
        user: user.to_owned(),
        password,
    })
}

fn subprotocol(headers: &HeaderMap) -> Result<Presented, Unreadable> {
    let names = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let names = names.filter_map(|value| value.to_str().ok());
    let mut tokens = names
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().strip_prefix(SUBPROTOCOL_PREFIX));
    match (tokens.next(), tokens.next()) {
        (None, _) => Ok(Presented::Nothing),
        (Some(token), None) => Ok(Presented::Bearer(Zeroizing::new(token.to_owned()))),
        _ => Err(Unreadable("there is more than one token")),
    }
}

/// `b64token` of RFC 6750.
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn shown(headers: &[(HeaderName, &str)]) -> Result<String, &'static str> {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        match read(&headers.collect(), 20) {
            Ok(Presented::Nothing) => Ok("nothing".to_owned()),
            Ok(Presented::Bearer(token)) => Ok(format!("token {}", *token)),
            Ok(Presented::Password(Password { user, password })) => {
                Ok(format!("{user} with {}", *password))
            }
            Err(Unreadable(why)) => Err(why),
        }
    }

    #[test]
    fn headers_are_read() {
        let cases = [
            ("Bearer abc", Ok("token abc")),
            ("bearer  a.b-c_d~e+f/g== ", Ok("token a.b-c_d~e+f/g==")),
            ("Basic YTpiOmM=", Ok("a with b:c")),
            ("Basic dG9rZW46ZG1feA==", Ok("token dm_x")),
            ("Basic YQ==", Err("Basic")),
            ("Basic !", Err("Basic")),
            ("Bearer", Err("no token")),
            ("Bearer a b", Err("characters")),
            ("Digest a", Err("neither")),
            ("", Err("neither")),
            ("Bearer 123456789012345678901", Err("token_bytes_max")),
        ];
        for (value, expected) in cases {
            match (shown(&[(AUTHORIZATION, value)]), expected) {
                (Ok(shown), Ok(expected)) => assert_eq!(shown, expected),
                (Err(why), Err(word)) => assert!(why.contains(word), "{value}: {why}"),
                other => panic!("{value}: {other:?}"),
            }
        }
        assert_eq!(shown(&[]).unwrap(), "nothing");
        let two = [(AUTHORIZATION, "Bearer a"), (AUTHORIZATION, "Bearer b")];
        assert!(shown(&two).is_err());
    }

    #[test]
    fn a_websocket_names_its_token_as_a_subprotocol() {
        let names = "dormouse.v1, dormouse.bearer.dm_abc";
        assert_eq!(
            shown(&[(SEC_WEBSOCKET_PROTOCOL, names)]).unwrap(),
            "token dm_abc"
        );
        let both = [
            (SEC_WEBSOCKET_PROTOCOL, names),
            (AUTHORIZATION, "Bearer own"),
        ];
        assert_eq!(shown(&both).unwrap(), "token own");
        let two = "dormouse.bearer.a, dormouse.bearer.b";
        assert!(shown(&[(SEC_WEBSOCKET_PROTOCOL, two)]).is_err());
    }
}
