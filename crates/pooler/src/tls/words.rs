//! Why there is no TLS with an origin, for people: what is wrong, and what to do.

use rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::is_of_an_authority;

/// What to do about an authority.
const NAME_IT: &str = "Name that authority with sslrootcert (--sslrootcert FILE), or set sslmode to require and name none, which \
    looks at no certificate";

/// In words, for the host by whose name the server was asked.
pub(crate) fn in_words(error: &Error, host: &str) -> String {
    match error {
        Error::InvalidCertificate(certificate) => of_certificate(certificate, host),
        Error::NoCertificatesPresented => "the server shows no certificate".to_owned(),
        Error::AlertReceived(alert) => of_alert(*alert),
        Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13) => {
            "the server has neither TLS 1.2 nor TLS 1.3".to_owned()
        }
        Error::PeerIncompatible(_) => {
            "the server has no TLS 1.2 or 1.3 with ciphers that are still taken for safe".to_owned()
        }
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => {
            "what the server says is no TLS".to_owned()
        }
        other => other.to_string(),
    }
}

fn of_certificate(error: &CertificateError, host: &str) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the server's certificate is of an authority that is not believed here. {NAME_IT}"
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            let names = match error {
                CertificateError::NotValidForNameContext { presented, .. }
                    if !presented.is_empty() =>
                {
                    let names = presented.iter().map(|name| plain(name));
                    format!(", but for {}", names.collect::<Vec<_>>().join(", "))
                }
                _ => String::new(),
            };
            format!(
                "the server's certificate is not for {host}{names}. Name a host that it is for, or set sslmode to verify-ca, \
                 in which the name is not looked at"
            )
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the server's certificate has expired. It needs a new one, or this machine's clock is wrong"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the server's certificate is not valid yet. It needs another one, or this machine's clock is wrong"
                .to_owned()
        }
        CertificateError::Revoked => {
            "the server's certificate has been revoked. It needs another one".to_owned()
        }
        CertificateError::BadEncoding => {
            "the server's certificate cannot be read. It needs another one".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the server's certificate is not for servers. It needs another one".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the server's certificate is signed in a way that is not taken for safe. It needs another one"
                .to_owned()
        }
        _ if is_of_an_authority(error) => format!(
            "the server's certificate is that of an authority, and not named as believed. {NAME_IT}"
        ),
        other => format!("the server's certificate is not taken: {other}"),
    }
}

/// `DnsName("localhost")` and `IpAddress(127.0.0.1)`, as they are told, without what is around the name.
fn plain(name: &str) -> &str {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

fn of_alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => {
            "the server does not take the client's certificate, or wants one. Name one that it takes with sslcert and sslkey \
             (--sslcert FILE --sslkey FILE)"
                .to_owned()
        }
        AlertDescription::ProtocolVersion
        | AlertDescription::InsufficientSecurity
        | AlertDescription::HandshakeFailure => {
            "the server has no TLS 1.2 or 1.3 with ciphers that are still taken for safe, or wants a client's certificate \
             (sslcert and sslkey)"
                .to_owned()
        }
        AlertDescription::UnrecognisedName => {
            "the server does not know the host by this name".to_owned()
        }
        other => format!("the server has ended the handshake, with TLS alert {}", u8::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_plain() {
        assert_eq!(plain("DnsName(\"localhost\")"), "localhost");
        assert_eq!(plain("IpAddress(127.0.0.1)"), "127.0.0.1");
        assert_eq!(plain("localhost"), "localhost");
    }

    #[test]
    fn nobody_is_told_names_of_a_program() {
        for error in [
            Error::InvalidCertificate(CertificateError::UnknownIssuer),
            Error::InvalidCertificate(CertificateError::Expired),
            Error::InvalidCertificate(CertificateError::NotValidForName),
            Error::AlertReceived(AlertDescription::UnknownCA),
            Error::AlertReceived(AlertDescription::HandshakeFailure),
            Error::PeerIncompatible(PeerIncompatible::NoCipherSuitesInCommon),
        ] {
            let words = in_words(&error, "db.example.com");
            let is_of_a_program = |word: &str| word.chars().skip(1).any(char::is_uppercase);
            let mut odd = words
                .split([' ', ',', '.'])
                .filter(|word| is_of_a_program(word));
            // These are capitals all.
            assert!(
                odd.all(|word| ["TLS", "FILE", "FILE)"].contains(&word)),
                "{words}"
            );
        }
    }
}
