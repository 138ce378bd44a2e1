//! A query whose answer may be one that the client, or this server, has already.

use std::time::Instant;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use database::{Authority, Currency, QueryKey, ResultVersion, Reuse};
use wire::PgError;

use super::caller::Caller;
use super::error::ApiError;
use super::etag::{IfNoneMatch, NOT_KEPT, REVALIDATED, Tag};
use super::query::json;
use super::router::App;
use super::tenant::Tenant;
use super::visit::{Rows, Statement, Visit, Wishes};
use crate::result_cache::Sought;

/// Says where an answer came from: `hit` or `miss`.
const CACHE: &str = "x-dormouse-cache";

/// A query, and what its client has of its answer.
pub(super) struct Conditional {
    key: QueryKey,
    form: &'static str,
    shown: Option<IfNoneMatch>,
    /// Whether it was sought in the cache, which had it not. What becomes of it is counted when it is answered, once.
    is_missed: bool,
}

impl Conditional {
    /// # Errors
    /// As [`Visit::settings`] and [`Params::values`](super::params::Params::values).
    pub(super) fn of(
        headers: &HeaderMap,
        caller: &Caller,
        wishes: &Wishes,
        statement: &Statement,
        rows: Rows,
    ) -> Result<Self, PgError> {
        let settings = Visit::settings(caller, wishes)?;
        let settings = settings.iter().map(|(name, value)| (&**name, &**value));
        let who = who(caller, wishes);
        let params = statement.params.values()?;
        let params = params.iter().map(|param| Some(param.get()));
        let shown = headers.get(header::IF_NONE_MATCH);
        Ok(Self {
            key: QueryKey::new(&who, settings, &statement.sql, params),
            form: match rows {
                Rows::Object => "rows=object",
                Rows::Array => "rows=array",
            },
            shown: shown.and_then(|value| IfNoneMatch::parse(value.as_bytes())),
            is_missed: false,
        })
    }

    /// The answer, if it is known to be still the one that the client or the cache has. Nobody is woken for it.
    ///
    /// # Errors
    /// 3D000 if the database is not there, 54000 if the answer is larger than who asks may have.
    pub(super) fn known(
        &mut self,
        app: &App,
        tenant: &Tenant,
    ) -> Result<Option<Response>, ApiError> {
        let Currency::Version(version) = app.databases.currency(&tenant.name, &self.key)? else {
            return Ok(None);
        };
        if self.has(version) {
            count(app, tenant, Reuse::NotModified);
            return Ok(Some(
                self.tagged(version, StatusCode::NOT_MODIFIED.into_response()),
            ));
        }
        let sought = app
            .results
            .get(version, &self.key, self.form, Instant::now());
        let document = match sought {
            Sought::Off => return Ok(None),
            Sought::Miss => {
                self.is_missed = true;
                return Ok(None);
            }
            Sought::Hit(document) => document,
        };
        // It may have been made for somebody with another limit.
        let max = tenant.sizes.result;
        max.check("the result", document.len(), "Ask for fewer rows")?;
        count(app, tenant, Reuse::Hit);
        let mut response = self.tagged(version, json(document));
        let hit = HeaderValue::from_static("hit");
        response.headers_mut().insert(CACHE, hit);
        Ok(Some(response))
    }

    /// As of which commit the answer will be that is made next.
    pub(super) async fn currency(&self, visit: &mut Visit, sql: &str) -> Result<Currency, PgError> {
        visit.session().currency(&self.key, sql).await
    }

    /// The answer that was made.
    pub(super) fn respond(
        &self,
        app: &App,
        tenant: &Tenant,
        currency: &Currency,
        document: Vec<u8>,
    ) -> Response {
        let version = match *currency {
            Currency::Version(version) => Some(version),
            _ => None,
        };
        let is_had = version.is_some_and(|version| self.has(version));
        if let Some(reuse) = self.reuse(is_had) {
            count(app, tenant, reuse);
        }
        let Some(version) = version else {
            let mut response = json(document);
            let not_kept = HeaderValue::from_static(NOT_KEPT);
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, not_kept);
            return response;
        };
        if is_had {
            return self.tagged(version, StatusCode::NOT_MODIFIED.into_response());
        }
        let document = exactly(document);
        let kept = document.clone();
        app.results
            .insert(version, &self.key, self.form, kept, Instant::now());
        let mut response = self.tagged(version, json(document));
        let miss = HeaderValue::from_static("miss");
        response.headers_mut().insert(CACHE, miss);
        response
    }

    /// What an answer that was made counts as: one thing.
    fn reuse(&self, is_had: bool) -> Option<Reuse> {
        match is_had {
            true => Some(Reuse::NotModified),
            false => self.is_missed.then_some(Reuse::Miss),
        }
    }

    fn has(&self, version: ResultVersion) -> bool {
        let tag = Tag::new(version, &self.key, self.form);
        self.shown.as_ref().is_some_and(|shown| shown.has(&tag))
    }

    fn tagged(&self, version: ResultVersion, mut response: Response) -> Response {
        let tag = Tag::new(version, &self.key, self.form).header();
        let headers = response.headers_mut();
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(header::ETAG, tag);
        }
        let revalidated = HeaderValue::from_static(REVALIDATED);
        headers.insert(header::CACHE_CONTROL, revalidated);
        response
    }
}

/// Counts what became of a question for an answer that is there.
fn count(app: &App, tenant: &Tenant, reuse: Reuse) {
    // Of a database that was deleted meanwhile nothing is counted any more.
    app.databases.reused(&tenant.name, reuse);
}

/// A document that takes no more than its length, which it is counted as while it is kept.
fn exactly(document: Vec<u8>) -> Bytes {
    Bytes::from(document.into_boxed_slice())
}

/// What decides what a caller sees, beside the settings of its session: nobody has an answer that was made for who may do
/// something else. No name of a role has a zero byte.
fn who(caller: &Caller, wishes: &Wishes) -> String {
    let wished = wishes.role.as_deref().unwrap_or_default();
    let authority = match caller.authority() {
        Authority::Node => "node",
        Authority::Role | Authority::Database | Authority::Host => "role",
    };
    let scope = caller.scope.as_str();
    format!("{scope}\0{authority}\0{}\0{wished}", caller.role())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::caller::{Reach, Scope};
    use database::DatabaseName;

    #[test]
    fn an_answer_counts_once() {
        let mut asked = Conditional {
            key: QueryKey::new("", std::iter::empty(), "select 1", std::iter::empty()),
            form: "rows=object",
            shown: None,
            is_missed: false,
        };
        assert_eq!(asked.reuse(false), None);
        assert_eq!(asked.reuse(true), Some(Reuse::NotModified));
        asked.is_missed = true;
        assert_eq!(asked.reuse(false), Some(Reuse::Miss));
        // It was sought in vain, and then its client was found to have what was made.
        assert_eq!(asked.reuse(true), Some(Reuse::NotModified));
    }

    #[test]
    fn what_is_kept_is_as_large_as_it_says() {
        let mut document = Vec::with_capacity(1 << 20);
        document.extend_from_slice(b"{}");
        let document = exactly(document).try_into_mut().unwrap();
        assert_eq!(document.capacity(), 2);
    }

    #[test]
    fn who_may_do_something_else_is_somebody_else() {
        let admin = Caller::anyone();
        let role = Some("postgres".into());
        let one = Reach::One(DatabaseName::parse("shop").unwrap());
        let callers = [
            admin.clone(),
            Caller {
                role: role.clone(),
                ..admin.clone()
            },
            Caller {
                scope: Scope::Write,
                role: role.clone(),
                ..admin.clone()
            },
            Caller {
                scope: Scope::Read,
                role,
                ..admin.clone()
            },
            Caller {
                scope: Scope::Write,
                ..admin.clone()
            },
        ];
        let mut known: Vec<String> = Vec::new();
        for caller in &callers {
            for wished in [None, Some("ann".to_owned())] {
                let wishes = Wishes {
                    role: wished,
                    ..Wishes::default()
                };
                let who = who(caller, &wishes);
                assert!(!known.contains(&who), "{who:?}");
                known.push(who);
            }
        }
        let of_one = Caller {
            reach: one,
            ..admin
        };
        assert_ne!(who(&of_one, &Wishes::default()), known[0]);
    }
}
