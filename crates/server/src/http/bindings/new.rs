//! What is sent to make or change a binding.

use pooler::{
    Binding, BindingTarget, Caching, Host, Identity, Limits, Origin, Secret, Target, Tls, TlsMode,
};
use serde::{Deserialize, Serialize};

use super::document::{AllowedDocument, CachingDocument, LimitsDocument, PerAppDocument};
use super::said;
use crate::http::error::ApiError;

/// The port of a Postgres for which none is named.
const PORT: u16 = 5432;

/// What a binding is to be. Of a new one `name` and where it leads must be told: by one of `connectionString`, `origin`,
/// `database` and `databasePerApp`, where `origin` may add to a connection string what cannot stand in one. Of one that is
/// there, only what changes.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BindingFields {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `postgres://user:password@host:port/database?sslmode=…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_string: Option<String>,
    /// The parts of it, each for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginFields>,
    /// A database of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// A database of ours for each application and environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database_per_app: Option<PerAppDocument>,
    /// Those that are not told have their defaults, or stay.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsDocument>,
    /// As the limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caching: Option<CachingDocument>,
    /// Who may bind it: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<Vec<AllowedDocument>>,
    /// It is saved without being tried.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub skip_check: bool,
}

/// Parts of an origin. A text that is empty takes away what was there.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OriginFields {
    /// A name, an address, or the folder of a socket. With `port`, 5432 if that is not told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// With `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The database there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The role.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// As libpq's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sslmode: Option<String>,
    /// Authorities in PEM that alone are believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sslrootcert: Option<String>,
    /// A certificate to show, in PEM. With `sslkey`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sslcert: Option<String>,
    /// Its key, in PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sslkey: Option<String>,
    /// `any` or `read-write`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_session_attrs: Option<String>,
}

impl BindingFields {
    /// A new binding.
    pub(super) fn into_binding(self) -> Result<Binding, ApiError> {
        let name = self.name.clone();
        let name = name.ok_or_else(|| missing("name", "a binding needs a name"))?;
        let target = self.target(None)?.ok_or_else(|| {
            missing(
                "connectionString",
                "a binding needs one of connectionString, origin, database and databasePerApp",
            )
        })?;
        let mut binding = Binding {
            id: String::new(),
            name,
            target,
            limits: Limits::default(),
            caching: Caching::default(),
            allowed: Vec::new(),
            credentials: Vec::new(),
            created_ms: 0,
            modified_ms: 0,
        };
        self.apply_rest(&mut binding)?;
        Ok(binding)
    }

    /// Changes what is told.
    pub(super) fn apply(self, binding: &mut Binding) -> Result<(), ApiError> {
        if let Some(name) = &self.name {
            binding.name.clone_from(name);
        }
        if let Some(target) = self.target(Some(&binding.target))? {
            binding.target = target;
        }
        self.apply_rest(binding)
    }

    fn apply_rest(self, binding: &mut Binding) -> Result<(), ApiError> {
        if let Some(limits) = self.limits {
            limits.apply(&mut binding.limits);
        }
        if let Some(caching) = self.caching {
            caching.apply(&mut binding.caching)?;
        }
        if let Some(allowed) = self.allowed {
            binding.allowed = allowed.into_iter().map(Into::into).collect();
        }
        Ok(())
    }

    /// Where it is to lead, if that is told. `now`: where it leads.
    fn target(&self, now: Option<&BindingTarget>) -> Result<Option<BindingTarget>, ApiError> {
        let to_origin = self.connection_string.is_some() || self.origin.is_some();
        let told = [
            to_origin,
            self.database.is_some(),
            self.database_per_app.is_some(),
        ];
        if told.iter().filter(|&&told| told).count() > 1 {
            return Err(said::invalid(
                "a binding leads to one place: leave out all but one of connectionString (with origin), database and \
                 databasePerApp",
            ));
        }
        if let Some(name) = &self.database {
            return Ok(Some(BindingTarget::Database(name.clone())));
        }
        if let Some(per_app) = &self.database_per_app {
            let template = per_app.template.clone();
            return Ok(Some(BindingTarget::DatabasePerApp { template }));
        }
        if !to_origin {
            return Ok(None);
        }
        let url = self.connection_string.as_deref().map(Origin::of_url);
        let mut origin = match (url.transpose().map_err(|error| said::url(&error))?, now) {
            (Some(origin), _) => origin,
            (None, Some(BindingTarget::Origin(origin))) => origin.clone(),
            (None, _) => nowhere(),
        };
        let is_new = origin.hosts.is_empty();
        if let Some(fields) = &self.origin {
            fields.apply(&mut origin)?;
            if is_new && fields.sslmode.is_none() && origin.is_local() {
                origin.tls.mode = TlsMode::Disable;
            }
        }
        if let (None, Some(BindingTarget::Origin(old))) = (&self.connection_string, now)
            && self
                .origin
                .as_ref()
                .is_some_and(|fields| fields.password.is_none())
            && !origin.password.is_empty()
            && goes_elsewhere(old, &origin)
        {
            return Err(missing(
                "password",
                "the password must be told again with another host, port or user, or less TLS: it is sent to nobody whom it was not meant for",
            ));
        }
        origin.check().map_err(|error| said::url(&error))?;
        Ok(Some(BindingTarget::Origin(origin)))
    }
}

impl OriginFields {
    fn apply(&self, origin: &mut Origin) -> Result<(), ApiError> {
        match (&self.host, self.port) {
            (Some(host), port) => origin.hosts = vec![host_of(host, port.unwrap_or(PORT))?],
            (None, Some(_)) => {
                return Err(missing("host", "port needs host: they change together"));
            }
            (None, None) => {}
        }
        let set = |text: &mut String, told: &Option<String>| {
            if let Some(told) = told {
                text.clone_from(told);
            }
        };
        set(&mut origin.database, &self.database);
        set(&mut origin.user, &self.user);
        if let Some(password) = &self.password {
            origin.password = Secret::new(password.clone());
        }
        if let Some(mode) = &self.sslmode {
            origin.tls.mode = TlsMode::of_name(mode).ok_or_else(|| {
                let names = TlsMode::ALL.map(TlsMode::name).join(", ");
                missing("sslmode", &format!("sslmode must be one of {names}"))
            })?;
        }
        if let Some(authorities) = &self.sslrootcert {
            origin.tls.authorities = Some(authorities.clone()).filter(|pem| !pem.is_empty());
        }
        origin.tls.identity = match (&self.sslcert, &self.sslkey) {
            (None, None) => origin.tls.identity.take(),
            (Some(chain), key) if chain.is_empty() && key.as_deref().unwrap_or("").is_empty() => {
                None
            }
            (Some(chain), Some(key)) => Some(Identity {
                chain: chain.clone(),
                key: Secret::new(key.clone()),
            }),
            (Some(_), None) => return Err(missing("sslkey", "sslcert needs sslkey")),
            (None, Some(_)) => return Err(missing("sslcert", "sslkey needs sslcert")),
        };
        if let Some(target) = &self.target_session_attrs {
            origin.target = match &**target {
                "any" => Target::Any,
                "read-write" | "primary" => Target::ReadWrite,
                _ => {
                    return Err(missing(
                        "targetSessionAttrs",
                        "targetSessionAttrs must be any, read-write or primary",
                    ));
                }
            };
        }
        Ok(())
    }
}

fn missing(field: &str, message: &str) -> ApiError {
    said::invalid(message).member("field", field.into())
}

/// Whether a password that was told for one origin would be seen by others on the way to another.
fn goes_elsewhere(old: &Origin, new: &Origin) -> bool {
    let strength = |mode: TlsMode| TlsMode::ALL.iter().position(|one| *one == mode);
    old.hosts != new.hosts
        || old.user != new.user
        || strength(new.tls.mode) < strength(old.tls.mode)
        || old.tls.authorities != new.tls.authorities
}

fn nowhere() -> Origin {
    Origin {
        hosts: Vec::new(),
        database: String::new(),
        user: String::new(),
        password: Secret::default(),
        tls: Tls::default(),
        target: Target::default(),
    }
}

/// One host as libpq takes it.
pub(super) fn host_of(host: &str, port: u16) -> Result<Host, ApiError> {
    if port == 0 {
        return Err(missing("port", "port must be a number from 1 to 65535"));
    }
    if host.starts_with('/') {
        return Ok(Host::Unix(host.into(), port));
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    match !host.is_empty() && host.bytes().all(is_name) {
        true => Ok(Host::Tcp(host.to_owned(), port)),
        false => Err(missing("host", "host is no name or address of a host")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(json: serde_json::Value) -> BindingFields {
        serde_json::from_value(json).unwrap()
    }

    fn made(json: serde_json::Value) -> Binding {
        fields(json).into_binding().unwrap()
    }

    fn refused(json: serde_json::Value) -> String {
        let refused = fields(json).into_binding().unwrap_err();
        refused.into_error().message().to_owned()
    }

    #[test]
    fn a_string_and_fields_say_the_same() {
        let by_string = made(serde_json::json!({
            "name": "shop", "connectionString": "postgres://ann:pw@db.example.com:6000/shop?sslmode=require",
        }));
        let by_fields = made(serde_json::json!({
            "name": "shop",
            "origin": {
                "host": "db.example.com", "port": 6000, "database": "shop", "user": "ann", "password": "pw",
                "sslmode": "require",
            },
        }));
        assert_eq!(by_string, by_fields);
        let local = made(serde_json::json!({
            "name": "shop", "origin": { "host": "127.0.0.1", "database": "d", "user": "u" },
        }));
        let BindingTarget::Origin(origin) = local.target else {
            panic!("no origin");
        };
        assert_eq!(origin.tls.mode, TlsMode::Disable);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (json, part) in [
            (serde_json::json!({ "name": "a" }), "needs one of"),
            (serde_json::json!({ "database": "a" }), "needs a name"),
            (
                serde_json::json!({ "name": "a", "database": "b", "origin": {} }),
                "leads to one place",
            ),
            (
                serde_json::json!({ "name": "a", "origin": { "user": "b", "database": "c" } }),
                "host is missing",
            ),
            (
                serde_json::json!({ "name": "a", "origin": { "port": 5 } }),
                "port needs host",
            ),
            (
                serde_json::json!({ "name": "a", "connectionString": "mysql://a@b/c" }),
                "scheme",
            ),
            (
                serde_json::json!({ "name": "a", "origin": { "host": "a/b" } }),
                "no name or address",
            ),
        ] {
            let message = refused(json);
            assert!(message.contains(part), "{message}: {part}");
        }
    }

    #[test]
    fn what_is_not_told_stays() {
        let mut binding = made(serde_json::json!({
            "name": "shop", "connectionString": "postgres://ann:pw@db.example.com/shop",
            "limits": { "connectionsMax": 7 },
        }));
        let before = binding.clone();
        let change = fields(
            serde_json::json!({ "origin": { "password": "other" }, "limits": { "idleMs": 5000 } }),
        );
        change.apply(&mut binding).unwrap();
        let (BindingTarget::Origin(old), BindingTarget::Origin(new)) =
            (&before.target, &binding.target)
        else {
            panic!("no origins");
        };
        assert_eq!((new.password.reveal(), &new.hosts), ("other", &old.hosts));
        assert_eq!(
            (binding.limits.connections_max, binding.limits.idle_ms),
            (7, 5000)
        );
        assert!(!binding.caching.replication);
        for caching in [
            serde_json::json!({ "replication": true }),
            serde_json::json!({ "maxAge": 5 }),
        ] {
            let change = fields(serde_json::json!({ "caching": caching }));
            change.apply(&mut binding).unwrap();
        }
        assert!(binding.caching.replication && binding.caching.max_age == 5);
        fields(serde_json::json!({ "database": "own" }))
            .apply(&mut binding)
            .unwrap();
        assert_eq!(binding.target, BindingTarget::Database("own".to_owned()));
    }
}
