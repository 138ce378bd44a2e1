//! What is said where a binding cannot be had, made or reached.

use axum::http::StatusCode;
use database::DatabaseName;
use pooler::{BindingsError, Failure, InvalidField, UrlError, VaultError};
use wire::{PgError, sqlstate};

use crate::http::error::ApiError;

/// Of the directory of bindings.
pub(super) fn binding(error: &BindingsError) -> ApiError {
    let (status, code) = match error {
        BindingsError::Unknown(_) => (StatusCode::NOT_FOUND, sqlstate::UNDEFINED_OBJECT),
        BindingsError::NameTaken(_) => (StatusCode::CONFLICT, sqlstate::DUPLICATE_OBJECT),
        BindingsError::Invalid(error) => return field(error),
        BindingsError::Changed(_) => (StatusCode::CONFLICT, sqlstate::SERIALIZATION_FAILURE),
        BindingsError::InUse { .. } => (StatusCode::CONFLICT, sqlstate::OBJECT_IN_USE),
        BindingsError::TooMany(_) => (
            StatusCode::INSUFFICIENT_STORAGE,
            sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
        ),
        BindingsError::Vault(VaultError::TooLong { .. }) => (
            StatusCode::INSUFFICIENT_STORAGE,
            sqlstate::CONFIGURATION_LIMIT_EXCEEDED,
        ),
        BindingsError::Vault(_) => (StatusCode::INTERNAL_SERVER_ERROR, sqlstate::IO_ERROR),
    };
    ApiError::new(status, PgError::error(code, error.to_string()))
}

/// A field that cannot be as it is wanted.
pub(super) fn field(error: &InvalidField) -> ApiError {
    invalid(error.to_string()).member("field", error.field.into())
}

/// A connection string that is none.
pub(super) fn url(error: &UrlError) -> ApiError {
    invalid(error.to_string()).member("field", error.part.into())
}

/// Anything else that is wrong with a request.
pub(super) fn invalid(message: impl Into<String>) -> ApiError {
    let error = PgError::error(sqlstate::INVALID_PARAMETER_VALUE, message);
    ApiError::new(StatusCode::BAD_REQUEST, error)
}

/// An origin that does not let us in where a binding was to be made or changed.
pub(super) fn not_saved(failure: &Failure) -> ApiError {
    let skip = "Mend the binding, or send \"skipCheck\": true (dormouse binding … --skip-check) to save it as it is.";
    failed(failure, format!("nothing was saved: {failure}")).hint(skip)
}

/// The same where it was only looked at.
pub(super) fn does_not_work(failure: &Failure) -> ApiError {
    let mend =
        "Mend its Postgres, or change the binding: PATCH /v1/bindings/ID, dormouse binding change.";
    failed(failure, format!("the binding does not work: {failure}")).hint(mend)
}

/// By a name and by Hyperdrive's number, for programs.
fn failed(failure: &Failure, message: String) -> ApiError {
    let told = PgError::error(
        sqlstate::SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION,
        message,
    );
    let detail = serde_json::json!({ "kind": failure.kind.name(), "code": failure.kind.code() });
    ApiError::new(StatusCode::BAD_REQUEST, told).member("failure", detail)
}

pub(super) fn no_database(field: &'static str, name: &DatabaseName) -> ApiError {
    let error = PgError::error(
        sqlstate::INVALID_CATALOG_NAME,
        format!("{field}: the database \"{name}\" does not exist"),
    );
    ApiError::new(StatusCode::BAD_REQUEST, error).member("field", field.into())
}

pub(super) fn internal(error: &dyn std::fmt::Display) -> ApiError {
    PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()).into()
}

/// A name that another credential has.
pub(super) fn taken(name: &str) -> ApiError {
    let error = PgError::error(
        sqlstate::DUPLICATE_OBJECT,
        format!(
            "another credential of this binding is called {name:?}: revoke it, or choose another name"
        ),
    );
    ApiError::new(StatusCode::CONFLICT, error)
}

/// A credential that is not there.
pub(super) fn no_credential() -> ApiError {
    let error = PgError::error(
        sqlstate::UNDEFINED_OBJECT,
        "this binding has no such credential",
    );
    ApiError::new(StatusCode::NOT_FOUND, error)
}

/// Of a server that has none.
pub(super) fn none_here() -> ApiError {
    let error = PgError::error(
        sqlstate::FEATURE_NOT_SUPPORTED,
        "this server has no managed bindings",
    );
    ApiError::new(StatusCode::NOT_IMPLEMENTED, error)
}
