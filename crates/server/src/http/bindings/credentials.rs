//! Credentials of bindings, for whoever is not deployed here.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::header::{CACHE_CONTROL, HOST, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use pooler::{Binding, BindingTarget, Credential};
use serde::{Deserialize, Serialize};

use super::document::CredentialDocument;
use super::{managed, on_disk, said};
use crate::http::actor::Actor;
use crate::http::body;
use crate::http::caller::Scope;
use crate::http::error::ApiError;
use crate::http::router::App;
use crate::http::tenant::By;

/// The longest name of one, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// The body of `POST /v1/bindings/ID/credentials`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewCredential {
    /// For people.
    pub name: String,
}

/// A credential, the only time that its password is seen.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreatedCredential {
    /// What is shown of it later.
    #[serde(flatten)]
    pub document: CredentialDocument,
    /// The password.
    pub password: String,
    /// For a driver, by the host that this was asked of.
    pub connection_string: String,
}

pub(in crate::http) async fn create(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let managed = managed(&app)?;
    let host = host_of(request.headers());
    let new: NewCredential = body::read(request, app.options.body_bytes_max).await?;
    if new.name.is_empty() || new.name.len() > NAME_BYTES_MAX || new.name.contains(char::is_control)
    {
        return Err(said::invalid(format!(
            "name must be of 1 to {NAME_BYTES_MAX} bytes, without control characters"
        )));
    }
    let binding = managed
        .bindings
        .get(&id)
        .map_err(|error| said::binding(&error))?;
    if let BindingTarget::DatabasePerApp { .. } = binding.target {
        return Err(said::invalid(
            "this binding has a database for each application, and only these reach theirs by it",
        )
        .hint("Connect to the database itself, by its name."));
    }
    if binding.credentials.iter().any(|one| one.name == new.name) {
        return Err(said::taken(&new.name));
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_ms = now.map_or(0, |now| now.as_millis() as u64);
    let database = database_of(&binding);
    let object = format!("{}/{}", binding.name, new.name);
    let changing = managed.clone();
    let making = async move {
        let drawn = tokio::task::spawn_blocking(move || {
            Credential::draw(&binding.id, &new.name, now_ms).map(|drawn| (drawn, binding))
        });
        let ((credential, password), binding) = drawn
            .await
            .map_err(|error| said::internal(&error))?
            .map_err(|error| said::internal(&error))?;
        let added = credential.clone();
        on_disk(move || {
            changing.bindings.change(&binding.id, None, |binding| {
                binding.credentials.push(added);
                Ok(())
            })
        })
        .await?;
        Ok::<_, ApiError>((credential, password))
    };
    let audit = &app.security.audit;
    let (credential, password) = actor
        .does(audit, "binding.credential.create", object, None, making)
        .await?;
    let address = match managed.port() {
        Some(port) => format!("{host}:{port}"),
        None => host,
    };
    let created = CreatedCredential {
        connection_string: format!(
            "postgresql://{}:{}@{address}/{database}",
            credential.user,
            password.reveal()
        ),
        password: password.reveal().to_owned(),
        document: CredentialDocument::from(&credential),
    };
    let mut response = (StatusCode::CREATED, Json(created)).into_response();
    // A secret is in it.
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

pub(in crate::http) async fn revoke(
    State(app): State<App>,
    By(caller): By,
    actor: Actor,
    Path((id, user)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    caller.expect_node(Scope::Admin)?;
    let managed = managed(&app)?;
    let binding = managed
        .bindings
        .get(&id)
        .map_err(|error| said::binding(&error))?;
    let has = |credential: &&Credential| credential.user == user || credential.name == user;
    let user = binding
        .credentials
        .iter()
        .find(has)
        .map(|one| one.user.clone());
    let user = user.ok_or_else(said::no_credential)?;
    let object = format!("{}/{user}", binding.name);
    let revoking = on_disk(move || {
        managed.bindings.change(&binding.id, None, |binding| {
            binding
                .credentials
                .retain(|credential| credential.user != user);
            Ok(())
        })
    });
    let audit = &app.security.audit;
    actor
        .does(audit, "binding.credential.revoke", object, None, revoking)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The database of a connection string: only a name for drivers to show.
fn database_of(binding: &Binding) -> String {
    let name = match &binding.target {
        BindingTarget::Origin(origin) => &origin.database,
        BindingTarget::Database(name) => name,
        BindingTarget::DatabasePerApp { .. } => "",
    };
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    match !name.is_empty() && name.bytes().all(is_safe) {
        true => name.to_owned(),
        false => "binding".to_owned(),
    }
}

/// The host that a request names, without its port.
fn host_of(headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.unwrap_or("localhost");
    let without_port = host.rsplit_once(':').filter(|(name, port)| {
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        is_port && (!name.contains(':') || name.ends_with(']'))
    });
    without_port.map_or(host, |(name, _)| name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_their_ports() {
        for (host, name) in [
            ("db.example.com:7433", "db.example.com"),
            ("db.example.com", "db.example.com"),
            ("127.0.0.1:80", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static(host));
            assert_eq!(host_of(&headers), name);
        }
    }
}
