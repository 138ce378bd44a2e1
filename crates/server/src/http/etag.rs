//! Entity tags of results (RFC 9110, 8.8.3 and 13.1.2), and what a cache may do with them.
//!
//! All of them are weak: the rows are the same, their bytes need not be (they may be compressed, and come in another
//! order where the query names none).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use database::{QueryKey, ResultVersion};
use sha2::{Digest, Sha256};

/// `Cache-Control` of a result that has a tag: kept by who asked alone, and asked for again before each use.
pub(crate) const REVALIDATED: &str = "private, no-cache";
/// `Cache-Control` of a result that may be another one each time, and of errors.
pub(crate) const NOT_KEPT: &str = "no-store";

/// Longest `If-None-Match` that is looked at, in bytes; a longer one is as none.
const HEADER_BYTES_MAX: usize = 8192;
/// Bytes of the hash in a tag.
const HASH_BYTES: usize = 16;

/// The tag of a result, without the mark of a weak one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag(String);

impl Tag {
    /// Of the answer to a query as of a commit, in a form that has a name of its own, as `rows=arrays`.
    pub(crate) fn new(version: ResultVersion, query: &QueryKey, form: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(version.to_bytes());
        hash.update(query.to_bytes());
        hash.update(form);
        let hash = hash.finalize();
        Self(URL_SAFE_NO_PAD.encode(&hash[..HASH_BYTES]))
    }

    /// As the header `ETag` has it.
    pub(crate) fn header(&self) -> String {
        format!("W/\"{}\"", self.0)
    }
}

/// What the client has of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum IfNoneMatch {
    /// Any, which is enough.
    Any,
    /// Those with these tags.
    Tags(Vec<String>),
}

impl IfNoneMatch {
    /// Of a header's value; `None` if it is none, which then counts as if it were not there.
    pub(crate) fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > HEADER_BYTES_MAX {
            return None;
        }
        let mut rest = std::str::from_utf8(value).ok()?.trim_ascii();
        if rest == "*" {
            return Some(Self::Any);
        }
        let mut tags = Vec::new();
        while !rest.is_empty() {
            // Nothing between two commas is allowed.
            if let Some(next) = rest.strip_prefix(',') {
                rest = next.trim_ascii_start();
                continue;
            }
            let opaque = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
            let (tag, after) = opaque.split_once('"')?;
            if tag.bytes().any(|byte| byte <= b' ' || byte == 0x7F) {
                return None;
            }
            tags.push(tag.to_owned());
            rest = after.trim_ascii_start();
            if !rest.is_empty() && !rest.starts_with(',') {
                return None;
            }
        }
        (!tags.is_empty()).then_some(Self::Tags(tags))
    }

    /// Whether the client has the result with this tag, by the weak comparison.
    pub(crate) fn has(&self, tag: &Tag) -> bool {
        match self {
            Self::Any => true,
            Self::Tags(tags) => tags.contains(&tag.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(tags: &[&str]) -> Option<IfNoneMatch> {
        let tags = tags.iter().map(|tag| (*tag).to_owned());
        Some(IfNoneMatch::Tags(tags.collect()))
    }

    #[test]
    fn lists_are_read() {
        for (value, expected) in [
            ("*", Some(IfNoneMatch::Any)),
            (" * ", Some(IfNoneMatch::Any)),
            ("\"a\"", tags(&["a"])),
            ("W/\"a\" , \"b,c\",W/\"\"", tags(&["a", "b,c", ""])),
            (",, \"a\",,", tags(&["a"])),
            ("", None),
            (",", None),
            ("a", None),
            ("\"a", None),
            ("w/\"a\"", None),
            ("\"a\" \"b\"", None),
            ("\"a b\"", None),
            ("*, \"a\"", None),
        ] {
            assert_eq!(IfNoneMatch::parse(value.as_bytes()), expected, "{value}");
        }
        let long = format!("\"{}\"", "a".repeat(HEADER_BYTES_MAX));
        assert_eq!(IfNoneMatch::parse(long.as_bytes()), None);
        assert_eq!(IfNoneMatch::parse(b"\"\xFF\""), None);
    }

    #[test]
    fn tags_are_compared_without_their_weakness() {
        let tag = Tag("x_-1".into());
        assert_eq!(tag.header(), "W/\"x_-1\"");
        let has = |value: &str| IfNoneMatch::parse(value.as_bytes()).is_some_and(|it| it.has(&tag));
        assert!(has("\"x_-1\"") && has("\"y\", W/\"x_-1\"") && has("*"));
        assert!(!has("\"X_-1\"") && !has("x_-1"));
    }
}
