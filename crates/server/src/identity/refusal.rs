//! What is said to those who are not let in (RFC 6750).

use axum::http::StatusCode;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use wire::{PgError, sqlstate};

use super::claims::Refused;
use super::jwt::NotLet;
use crate::http::error::ApiError;

/// Seconds after which one may come again when a provider is away.
const AGAIN: &str = "5";

/// 401: nobody said who they are.
pub(super) fn nothing_shown(with_password: bool) -> ApiError {
    let error = PgError::error(
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
        "this server asks who makes a request, and the request does not say",
    )
    .hint("Send the header Authorization: Bearer TOKEN (docs/auth.md).");
    let error = ApiError::new(StatusCode::UNAUTHORIZED, error)
        .header(WWW_AUTHENTICATE, "Bearer realm=\"dormouse\"");
    if with_password {
        error.header(
            WWW_AUTHENTICATE,
            "Basic realm=\"dormouse\", charset=\"UTF-8\"",
        )
    } else {
        error
    }
}

/// 401: what was shown is wrong. `why` is in ASCII and has no quotes.
pub(super) fn invalid(why: &str) -> ApiError {
    let error = PgError::error(
        sqlstate::INVALID_AUTHORIZATION_SPECIFICATION,
        format!("the request's credentials are not accepted: {why}"),
    );
    ApiError::new(StatusCode::UNAUTHORIZED, error).header(
        WWW_AUTHENTICATE,
        &format!("Bearer realm=\"dormouse\", error=\"invalid_token\", error_description=\"{why}\""),
    )
}

/// 401: the same for every password that does not let in.
pub(super) fn wrong_password(user: &str) -> ApiError {
    let error = PgError::error(
        sqlstate::INVALID_PASSWORD,
        format!("password authentication failed for user \"{user}\""),
    );
    ApiError::new(StatusCode::UNAUTHORIZED, error).header(
        WWW_AUTHENTICATE,
        "Basic realm=\"dormouse\", charset=\"UTF-8\"",
    )
}

/// 403: who it is is known, and that is not enough.
fn insufficient(why: &str) -> ApiError {
    let error = PgError::error(sqlstate::INSUFFICIENT_PRIVILEGE, why);
    ApiError::new(StatusCode::FORBIDDEN, error).header(
        WWW_AUTHENTICATE,
        &format!(
            "Bearer realm=\"dormouse\", error=\"insufficient_scope\", error_description=\"{why}\""
        ),
    )
}

/// 503: nobody can say now who it is, and so nobody comes in.
fn unavailable(why: &str) -> ApiError {
    let error = PgError::error(sqlstate::CANNOT_CONNECT_NOW, why)
        .hint("Try again later; the server's log says what is wrong.");
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error).header(RETRY_AFTER, AGAIN)
}

impl From<NotLet> for ApiError {
    fn from(not_let: NotLet) -> Self {
        match not_let {
            NotLet::Refused(Refused::Invalid(why)) => invalid(why),
            NotLet::Refused(Refused::Insufficient(why)) => insufficient(why),
            NotLet::Unavailable(why) => unavailable(why),
        }
    }
}
