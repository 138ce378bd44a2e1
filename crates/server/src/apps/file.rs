//! A file of a site as an answer: its type, its entity tag, parts of it.

use std::ops::Range;

use axum::body::Body;
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_NONE_MATCH,
    IF_RANGE, RANGE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::media::media_type;

/// A browser asks each time whether the file is still the same: a deployment is seen at once.
const ALWAYS_ASK: HeaderValue = HeaderValue::from_static("public, max-age=0, must-revalidate");

/// What a request says about the file that it wants.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// `HEAD`: no body.
    pub(super) head_only: bool,
    if_none_match: Option<HeaderValue>,
    range: Option<HeaderValue>,
    if_range: Option<HeaderValue>,
}

impl Wanted {
    pub(super) fn of(headers: &HeaderMap, head_only: bool) -> Self {
        let one = |name| headers.get(name).cloned();
        Self {
            head_only,
            if_none_match: one(IF_NONE_MATCH),
            range: one(RANGE),
            if_range: one(IF_RANGE),
        }
    }

    /// The answer with a file of this path, hash and length, and which of its bytes are the body.
    pub(super) fn answer(
        &self,
        path: &str,
        hash: &str,
        all: u64,
    ) -> (Response<Body>, Option<Range<u64>>) {
        let tag = format!("\"{hash}\"");
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type(path)));
        headers.insert(CACHE_CONTROL, ALWAYS_ASK);
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(ETAG, tag);
        }
        if self.knows(&tag) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return (response, None);
        }
        let body = match self.part(&tag, all) {
            Part::Whole => 0..all,
            Part::Some { first, last } => {
                *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                let range = format!("bytes {first}-{last}/{all}");
                insert(response.headers_mut(), CONTENT_RANGE, &range);
                first..last + 1
            }
            Part::None => {
                *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                insert(
                    response.headers_mut(),
                    CONTENT_RANGE,
                    &format!("bytes */{all}"),
                );
                0..0
            }
        };
        let length = body.end - body.start;
        insert(response.headers_mut(), CONTENT_LENGTH, &length.to_string());
        let body = Some(body).filter(|_| length > 0 && !self.head_only);
        (response, body)
    }

    /// Whether the client has it already.
    fn knows(&self, tag: &str) -> bool {
        let Some(known) = self
            .if_none_match
            .as_ref()
            .and_then(|value| value.to_str().ok())
        else {
            return false;
        };
        let is_it = |one: &str| {
            let one = one.trim();
            one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag
        };
        known.split(',').any(is_it)
    }

    /// The part that is wanted of so many bytes.
    fn part(&self, tag: &str, all: u64) -> Part {
        let is_other = self.if_range.as_ref().is_some_and(|value| value != tag);
        match self.range.as_ref().and_then(|value| value.to_str().ok()) {
            Some(range) if !is_other => part(range, all),
            _ => Part::Whole,
        }
    }
}

/// Which bytes.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Whole,
    Some {
        first: u64,
        last: u64,
    },
    /// There are no such bytes.
    None,
}

/// One range of bytes. Several, and what is not understood, are answered with the whole, as one may.
fn part(range: &str, all: u64) -> Part {
    let Some((first, last)) = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
    else {
        return Part::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    match (first.trim(), last.trim()) {
        ("", count) => match number(count) {
            Some(0) => Part::None,
            Some(_) if all == 0 => Part::None,
            Some(count) => Part::Some {
                first: all.saturating_sub(count),
                last: all - 1,
            },
            None => Part::Whole,
        },
        (first, "") => match number(first) {
            Some(first) if first < all => Part::Some {
                first,
                last: all - 1,
            },
            Some(_) => Part::None,
            None => Part::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first > last => Part::Whole,
            (Some(first), Some(last)) if first < all => Part::Some {
                first,
                last: last.min(all - 1),
            },
            (Some(_), Some(_)) => Part::None,
            _ => Part::Whole,
        },
    }
}

fn insert(headers: &mut HeaderMap, name: axum::http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(headers: &[(&'static str, &'static str)]) -> Response<Body> {
        body(headers).0
    }

    fn body(headers: &[(&'static str, &'static str)]) -> (Response<Body>, Option<Range<u64>>) {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let wanted = Wanted::of(&headers.collect(), false);
        wanted.answer("a.txt", "abc", 10)
    }

    #[test]
    fn what_is_known_is_not_sent_again() {
        assert_eq!(wanted(&[]).status(), 200);
        assert_eq!(wanted(&[]).headers()[ETAG], "\"abc\"");
        for known in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert_eq!(wanted(&[("if-none-match", known)]).status(), 304, "{known}");
        }
        assert_eq!(wanted(&[("if-none-match", "\"x\"")]).status(), 200);
    }

    #[test]
    fn parts() {
        let some = |first, last| Part::Some { first, last };
        for (range, expected) in [
            ("bytes=0-3", some(0, 3)),
            ("bytes=8-", some(8, 9)),
            ("bytes=-4", some(6, 9)),
            ("bytes=-40", some(0, 9)),
            ("bytes=5-50", some(5, 9)),
            ("bytes=10-", Part::None),
            ("bytes=-0", Part::None),
            ("bytes=3-1", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=x-", Part::Whole),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
        assert_eq!(part("bytes=-1", 0), Part::None);
        let response = wanted(&[("range", "bytes=2-4")]);
        assert_eq!(response.status(), 206);
        assert_eq!(response.headers()[CONTENT_RANGE], "bytes 2-4/10");
        assert_eq!(response.headers()[CONTENT_LENGTH], "3");
        assert_eq!(body(&[("range", "bytes=2-4")]).1, Some(2..5));
        assert_eq!(body(&[("range", "bytes=-1")]).1, Some(9..10));
        assert_eq!(body(&[]).1, Some(0..10));
        assert_eq!(body(&[("range", "bytes=10-")]).1, None);
        assert_eq!(body(&[("if-none-match", "*")]).1, None);
        let other = [("range", "bytes=2-4"), ("if-range", "\"x\"")];
        assert_eq!(wanted(&other).status(), 200);
        assert_eq!(wanted(&[("range", "bytes=10-")]).status(), 416);
    }
}
