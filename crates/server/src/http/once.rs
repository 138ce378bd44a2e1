//! Requests that are done once, however often they come: `Idempotency-Key`.
//!
//! The key is written in the transaction of the request's own writes, in the request's database, with the answer. So
//! either both are there after a crash or none, and a request that comes again is answered as before. One that failed
//! has left nothing, and is done when it comes again.

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use database::Databases;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use wire::{DatabaseName, PgError, sqlstate};

use super::Configured;
use super::caller::{Caller, Scope};
use super::error::ApiError;
use super::query::json;
use super::tenant::Tenant;
use super::visit::Visit;

/// The header that names a request.
const HEADER: &str = "idempotency-key";

/// The header of an answer that was given before.
const REPLAYED: &str = "idempotency-replayed";

/// The longest key.
const KEY_BYTES_MAX: usize = 255;

/// Where answers are kept. Rows are found by a keyed hash: no tenant's SQL makes another's up.
const SCHEMA: &str = "DO $do$ BEGIN \
    PERFORM pg_catalog.pg_advisory_xact_lock(1684238195, 1634624871); \
    CREATE SCHEMA IF NOT EXISTS dormouse; \
    GRANT USAGE ON SCHEMA dormouse TO PUBLIC; \
    CREATE TABLE IF NOT EXISTS dormouse.answers ( \
        key bytea PRIMARY KEY, request bytea NOT NULL, \
        answered_at timestamptz NOT NULL DEFAULT pg_catalog.now(), answer text); \
    REVOKE ALL ON dormouse.answers FROM PUBLIC; \
    CREATE INDEX IF NOT EXISTS answers_answered_at ON dormouse.answers (answered_at); \
    CREATE OR REPLACE FUNCTION dormouse.claim_request(new_key bytea, new_request bytea, kept interval) \
        RETURNS TABLE (request bytea, answer text) \
        LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fn$ \
        #variable_conflict use_column\n\
        BEGIN \
            DELETE FROM dormouse.answers WHERE key IN (SELECT key FROM dormouse.answers \
                WHERE answered_at < now() - kept ORDER BY answered_at LIMIT 100 FOR UPDATE SKIP LOCKED); \
            DELETE FROM dormouse.answers WHERE key = new_key AND answered_at < now() - kept; \
            INSERT INTO dormouse.answers (key, request) VALUES (new_key, new_request) ON CONFLICT DO NOTHING; \
            IF NOT FOUND THEN \
                RETURN QUERY SELECT a.request, a.answer FROM dormouse.answers a WHERE a.key = new_key; \
            END IF; \
        END $fn$; \
    CREATE OR REPLACE FUNCTION dormouse.answer_request(new_key bytea, new_answer text) RETURNS void \
        LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS \
        'UPDATE dormouse.answers SET answer = new_answer WHERE key = new_key'; \
END $do$";

const CLAIM: &str =
    "SELECT request, answer FROM dormouse.claim_request($1::bytea, $2::bytea, $3::interval)";
const ANSWER: &str = "SELECT dormouse.answer_request($1::bytea, $2::text)";

/// A request that has a key.
pub(super) struct Once {
    /// In hexadecimal digits, as `bytea` is written.
    key: String,
    request: String,
    kept: String,
}

/// What became of a request.
pub(super) enum Done {
    Now(Vec<u8>),
    Before(Vec<u8>),
}

impl Configured {
    /// The key of a request that is to be done once, if it has one.
    pub(super) async fn once(
        &self,
        headers: &HeaderMap,
        tenant: &Tenant,
        kind: &[u8],
        body: &[u8],
    ) -> Result<Option<Once>, ApiError> {
        let hours = self.options.idempotency_hours;
        let (name, caller) = (&tenant.name, &tenant.caller);
        Once::of(
            headers,
            self.databases(),
            name,
            caller,
            &[kind, body],
            hours,
        )
        .await
    }
}

impl Once {
    /// The key of a request, if it has one. Who may only read has nothing to do twice.
    ///
    /// # Errors
    /// 400 for a header that is no key.
    async fn of(
        headers: &HeaderMap,
        databases: &Databases,
        database: &DatabaseName,
        caller: &Caller,
        body: &[&[u8]],
        hours: u32,
    ) -> Result<Option<Self>, ApiError> {
        let mut values = headers.get_all(HEADER).iter();
        let Some(value) = values.next() else {
            return Ok(None);
        };
        let bytes = value.as_bytes();
        if bytes.is_empty() || bytes.len() > KEY_BYTES_MAX || values.next().is_some() {
            let message =
                format!("the header Idempotency-Key must be one, of 1 to {KEY_BYTES_MAX} bytes");
            return Err(ApiError::request(StatusCode::BAD_REQUEST, message));
        }
        if caller.scope == Scope::Read {
            return Ok(None);
        }
        let id = databases.ensure(database).await?.to_string();
        let mut mac = Hmac::<Sha256>::new_from_slice(databases.mock_secret())
            .map_err(|error| PgError::error(sqlstate::INTERNAL_ERROR, error.to_string()))?;
        for part in [
            b"idempotency",
            id.as_bytes(),
            caller.identity.as_bytes(),
            caller.role().as_bytes(),
            bytes,
        ] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        let mut request = Sha256::new();
        for part in body {
            request.update((part.len() as u64).to_be_bytes());
            request.update(part);
        }
        Ok(Some(Self {
            key: bytea(&mac.finalize().into_bytes()),
            request: bytea(&request.finalize()),
            kept: format!("{hours} hours"),
        }))
    }

    /// Takes the key, in the open transaction. The answer from before, if there is one.
    async fn claim(&self, visit: &mut Visit) -> Result<Option<Vec<u8>>, ApiError> {
        let params = [&self.key, &self.request, &self.kept].map(|text| Some(text.clone()));
        let found = visit.session().query(CLAIM, &params).await?;
        let Some(row) = found.rows.into_iter().next() else {
            return Ok(None);
        };
        let mut values = row.into_iter();
        let (request, answer) = (values.next().flatten(), values.next().flatten());
        if request.as_ref() != Some(&self.request) {
            let error = PgError::error(
                sqlstate::INVALID_PARAMETER_VALUE,
                "the Idempotency-Key was used with another request",
            )
            .hint("Use a new key for each new request.");
            return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, error));
        }
        let answer = answer.ok_or_else(|| {
            PgError::error(
                sqlstate::OBJECT_IN_USE,
                "the request with this Idempotency-Key has no answer yet",
            )
        })?;
        Ok(Some(answer.into_bytes()))
    }

    async fn answer(&self, visit: &mut Visit, document: &[u8]) -> Result<(), PgError> {
        let text = String::from_utf8_lossy(document).into_owned();
        let params = [Some(self.key.clone()), Some(text)];
        visit.session().query(ANSWER, &params).await.map(drop)
    }
}

/// Runs work in a transaction that `begin` begins; with a key, once.
pub(super) async fn run_once(
    databases: &Databases,
    database: &DatabaseName,
    once: Option<&Once>,
    visit: &mut Visit,
    begin: &str,
    work: impl AsyncFnOnce(&mut Visit) -> Result<Vec<u8>, PgError>,
) -> Result<Done, ApiError> {
    visit.begin(begin).await?;
    let Some(once) = once else {
        let document = work(visit).await?;
        visit.order("COMMIT").await?;
        return Ok(Done::Now(document));
    };
    let mut claimed = once.claim(visit).await;
    if claimed
        .as_ref()
        .is_err_and(|error| is_missing(error.code()))
    {
        visit.order("ROLLBACK").await?;
        databases.order_as_host(database, SCHEMA).await?;
        visit.begin(begin).await?;
        claimed = once.claim(visit).await;
    }
    if let Some(answer) = claimed? {
        return Ok(Done::Before(answer));
    }
    let document = work(visit).await?;
    once.answer(visit, &document).await?;
    visit.order("COMMIT").await?;
    Ok(Done::Now(document))
}

/// Whether something of ours is not in the database yet.
fn is_missing(code: &str) -> bool {
    matches!(code, "3F000" | "42883" | "42P01")
}

fn bytea(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\\x{digits}")
}

impl Done {
    /// The answer, which says whether it was given before.
    pub(super) fn response(self) -> Response {
        match self {
            Self::Now(document) => json(document),
            Self::Before(document) => {
                let mut response = json(document);
                let value = HeaderValue::from_static("true");
                response.headers_mut().insert(REPLAYED, value);
                response
            }
        }
    }
}
