//! The channel binding `tls-server-end-point` of RFC 5929: the hash of a server's certificate.

use sha2::{Digest as _, Sha224, Sha256, Sha384, Sha512};

/// Object identifiers as DER has them, and what they hash with.
const SIGNATURES: [(&[u8], Hash); 11] = [
    // RSA with PKCS #1: MD5, SHA-1, SHA-224, SHA-256, SHA-384, SHA-512.
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0e", Hash::Sha224),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", Hash::Sha256),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", Hash::Sha384),
    (b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", Hash::Sha512),
    // ECDSA: SHA-1, SHA-224, SHA-256, SHA-384, SHA-512.
    (b"\x2a\x86\x48\xce\x3d\x04\x01", Hash::Sha256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x01", Hash::Sha224),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x02", Hash::Sha256),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x03", Hash::Sha384),
    (b"\x2a\x86\x48\xce\x3d\x04\x03\x04", Hash::Sha512),
];

/// RSASSA-PSS, whose parameters name the hash.
const PSS: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a";

/// The hashes in such parameters: SHA-256, SHA-384, SHA-512, SHA-224.
const HASHES: [(&[u8], Hash); 4] = [
    (b"\x60\x86\x48\x01\x65\x03\x04\x02\x01", Hash::Sha256),
    (b"\x60\x86\x48\x01\x65\x03\x04\x02\x02", Hash::Sha384),
    (b"\x60\x86\x48\x01\x65\x03\x04\x02\x03", Hash::Sha512),
    (b"\x60\x86\x48\x01\x65\x03\x04\x02\x04", Hash::Sha224),
];

const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;
/// The field `hashAlgorithm`.
const CONTEXT_0: u8 = 0xa0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hash {
    Sha224,
    /// Also in place of MD5 and SHA-1, says the RFC.
    Sha256,
    Sha384,
    Sha512,
}

/// The hash of a certificate with the function of its signature. None where that has no such function,
/// as Ed25519: then there is no channel binding, in PostgreSQL too.
pub fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    Some(match of_signature(certificate)? {
        Hash::Sha224 => Sha224::digest(certificate).to_vec(),
        Hash::Sha256 => Sha256::digest(certificate).to_vec(),
        Hash::Sha384 => Sha384::digest(certificate).to_vec(),
        Hash::Sha512 => Sha512::digest(certificate).to_vec(),
    })
}

/// `Certificate ::= SEQUENCE { tbsCertificate, signatureAlgorithm SEQUENCE { OID, parameters }, … }`
fn of_signature(certificate: &[u8]) -> Option<Hash> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (_, rest) = element(certificate, SEQUENCE)?;
    let (algorithm, _) = element(rest, SEQUENCE)?;
    let (name, parameters) = element(algorithm, OBJECT_IDENTIFIER)?;
    if name == PSS {
        let (parameters, _) = element(parameters, SEQUENCE)?;
        // Its default is SHA-1.
        let Some((named, _)) = element(parameters, CONTEXT_0) else {
            return Some(Hash::Sha256);
        };
        let (named, _) = element(named, SEQUENCE)?;
        let (name, _) = element(named, OBJECT_IDENTIFIER)?;
        return find(&HASHES, name);
    }
    find(&SIGNATURES, name)
}

fn find(table: &[(&[u8], Hash)], name: &[u8]) -> Option<Hash> {
    let found = table.iter().find(|(known, _)| *known == name);
    found.map(|(_, hash)| *hash)
}

/// The content of the first element of DER, if it has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=0x7f => (usize::from(short), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(short & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    (found == tag).then_some(())?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let mut out = vec![tag];
        match u8::try_from(content.len()) {
            Ok(length @ 0..0x80) => out.push(length),
            _ => {
                out.push(0x82);
                out.extend((content.len() as u16).to_be_bytes());
            }
        }
        out.extend(content);
        out
    }

    fn certificate(algorithm: &[&[u8]]) -> Vec<u8> {
        let long = vec![7; 300];
        let signed = der(SEQUENCE, &[&long]);
        der(SEQUENCE, &[&signed, &der(SEQUENCE, algorithm), b"\x03\0"])
    }

    #[test]
    fn the_signature_says_the_hash() {
        for (name, expected) in SIGNATURES {
            let certificate = certificate(&[&der(OBJECT_IDENTIFIER, &[name])]);
            assert_eq!(of_signature(&certificate), Some(expected));
        }
        let ed25519 = certificate(&[&der(OBJECT_IDENTIFIER, &[b"\x2b\x65\x70"])]);
        assert_eq!(end_point(&ed25519), None);
    }

    #[test]
    fn the_parameters_of_pss_say_it() {
        let pss = der(OBJECT_IDENTIFIER, &[PSS]);
        for (name, expected) in HASHES {
            let named = der(SEQUENCE, &[&der(OBJECT_IDENTIFIER, &[name])]);
            let parameters = der(SEQUENCE, &[&der(CONTEXT_0, &[&named])]);
            let certificate = certificate(&[&pss, &parameters]);
            assert_eq!(of_signature(&certificate), Some(expected));
        }
        let default = certificate(&[&pss, &der(SEQUENCE, &[])]);
        assert_eq!(of_signature(&default), Some(Hash::Sha256));
    }

    #[test]
    fn what_is_cut_short_has_none() {
        let whole = certificate(&[&der(OBJECT_IDENTIFIER, &[SIGNATURES[3].0])]);
        assert!(end_point(&whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(end_point(&whole[..end]), None);
        }
    }
}
