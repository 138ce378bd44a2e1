//! What stands in the address of a request; what is wrong with it is said in the platform's form.

use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use workers::Refusal;

use super::Refused;

/// The query of a request.
pub(in crate::http) struct Asked<T>(pub(super) T);

/// Owner and name of a repository, in the path of a request.
pub(in crate::http) struct Named(pub(super) (String, String));

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Query::from_request_parts(parts, state).await {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(rejection) => Err(Refusal::bad(rejection.body_text()).into()),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(named)) => Ok(Self(named)),
            Err(rejection) => Err(Refusal::bad(rejection.body_text()).into()),
        }
    }
}
