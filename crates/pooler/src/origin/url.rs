//! `postgresql://user:password@host:5432/database?sslmode=verify-full`, with several hosts and sockets as libpq has
//! them.

use percent_encoding::percent_decode_str;

use super::{ChannelBinding, Host, NAME_BYTES_MAX, Origin, PORT, Secret, Target, Tls, TlsMode};

/// Which part of a connection string is wrong. What is in it is not told: it may be a password in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the connection string's {part} {reason}")]
pub struct UrlError {
    /// `scheme`, `user`, `password`, `host`, `port`, `database`, `parameter`.
    pub part: &'static str,
    /// What is wrong with it, and what to do.
    pub reason: String,
}

fn wrong(part: &'static str, reason: impl Into<String>) -> UrlError {
    let reason = reason.into();
    UrlError { part, reason }
}

impl Origin {
    /// Reads a connection string. TLS with a checked certificate is the default; only on this machine
    /// (`localhost`, a loopback address, a socket) it is none.
    ///
    /// # Errors
    ///
    /// Which part is missing or wrong.
    pub fn of_url(url: &str) -> Result<Self, UrlError> {
        let rest = ["postgresql://", "postgres://"]
            .into_iter()
            .find_map(|scheme| url.strip_prefix(scheme))
            .ok_or_else(|| wrong("scheme", "must be postgres:// or postgresql://"))?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (identity, hosts) = authority.rsplit_once('@').ok_or_else(|| {
            wrong(
                "user",
                "is missing: it stands before the host, as user@host",
            )
        })?;
        let (user, password) = identity.split_once(':').unwrap_or((identity, ""));
        let mut origin = Self {
            hosts: hosts.split(',').map(host).collect::<Result<_, _>>()?,
            database: decode("database", path)?,
            user: decode("user", user)?,
            password: Secret::new(decode("password", password)?),
            tls: Tls::default(),
            target: Target::default(),
        };
        if origin.is_local() {
            origin.tls.mode = TlsMode::Disable;
        }
        parameters(&mut origin, query)?;
        origin.check()?;
        Ok(origin)
    }

    /// Whether all hosts are this machine.
    pub fn is_local(&self) -> bool {
        self.hosts.iter().all(|host| match host {
            Host::Unix(..) => true,
            Host::Tcp(name, _) => {
                let address = name.parse::<std::net::IpAddr>();
                name == "localhost" || address.is_ok_and(|address| address.is_loopback())
            }
        })
    }

    /// Whether a connection could be tried.
    ///
    /// # Errors
    ///
    /// Which part is missing or wrong.
    pub fn check(&self) -> Result<(), UrlError> {
        for (part, name) in [("user", &self.user), ("database", &self.database)] {
            if name.is_empty() {
                return Err(wrong(part, "is missing"));
            }
            if name.len() > NAME_BYTES_MAX {
                let reason = format!("is longer than {NAME_BYTES_MAX} bytes, PostgreSQL's limit");
                return Err(wrong(part, reason));
            }
            if name.contains('\0') {
                return Err(wrong(part, "has a zero byte in it"));
            }
        }
        if self.password.reveal().contains('\0') {
            return Err(wrong("password", "has a zero byte in it"));
        }
        if self.hosts.is_empty() {
            return Err(wrong("host", "is missing"));
        }
        if self.tls.channel_binding == ChannelBinding::Require && self.tls.mode == TlsMode::Disable
        {
            return Err(wrong(
                "parameter",
                "channel_binding=require needs TLS: set sslmode to require, verify-ca or verify-full",
            ));
        }
        Ok(())
    }
}

fn host(text: &str) -> Result<Host, UrlError> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (name, rest) = rest
                .split_once(']')
                .ok_or_else(|| wrong("host", "has a [ without a ]"))?;
            (name, rest.strip_prefix(':'))
        }
        None => match text.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        None | Some("") => PORT,
        Some(port) => port
            .parse()
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| wrong("port", "must be a number from 1 to 65535"))?,
    };
    let name = decode("host", name)?;
    if name.is_empty() {
        return Err(wrong("host", "is missing"));
    }
    if name.starts_with('/') {
        return Ok(Host::Unix(name.into(), port));
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:%".contains(&byte);
    if !name.bytes().all(is_name) {
        return Err(wrong(
            "host",
            "is no host name: if the password has an @, / or : in it, write it percent-encoded",
        ));
    }
    Ok(Host::Tcp(name, port))
}

fn parameters(origin: &mut Origin, query: &str) -> Result<(), UrlError> {
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = decode("parameter", value)?;
        match name {
            "sslmode" => {
                origin.tls.mode = TlsMode::of_name(&value).ok_or_else(|| {
                    let names = TlsMode::ALL.map(TlsMode::name).join(", ");
                    wrong("parameter", format!("sslmode must be one of {names}"))
                })?;
            }
            "channel_binding" => {
                origin.tls.channel_binding = ChannelBinding::of_name(&value).ok_or_else(|| {
                    let names = ChannelBinding::ALL.map(ChannelBinding::name).join(", ");
                    wrong(
                        "parameter",
                        format!("channel_binding must be one of {names}"),
                    )
                })?;
            }
            "target_session_attrs" => {
                origin.target = match &*value {
                    "any" => Target::Any,
                    "read-write" | "primary" => Target::ReadWrite,
                    _ => {
                        let reason = "target_session_attrs must be any, read-write or primary";
                        return Err(wrong("parameter", reason));
                    }
                };
            }
            "user" if origin.user.is_empty() => origin.user = value,
            "password" if origin.password.is_empty() => origin.password = Secret::new(value),
            "dbname" if origin.database.is_empty() => origin.database = value,
            // What a client of its own would need; the pool has its own.
            "application_name" | "connect_timeout" | "pgbouncer" | "connection_limit"
            | "pool_timeout" | "schema" | "uselibpqcompat" => {}
            _ => {
                let name: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
                return Err(wrong(
                    "parameter",
                    format!(
                        "{name} is not known here: leave it out (sslmode, channel_binding and target_session_attrs are)"
                    ),
                ));
            }
        }
    }
    Ok(())
}

fn decode(part: &'static str, text: &str) -> Result<String, UrlError> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| wrong(part, "is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tcp(name: &str, port: u16) -> Host {
        Host::Tcp(name.to_owned(), port)
    }

    #[test]
    fn all_parts() {
        let url = "postgres://ann:p%40ss%3Aw%2Frd@db.example.com:6543/shop?sslmode=require";
        let origin = Origin::of_url(url).unwrap();
        assert_eq!(origin.hosts, [tcp("db.example.com", 6543)]);
        assert_eq!((&*origin.user, &*origin.database), ("ann", "shop"));
        assert_eq!(origin.password.reveal(), "p@ss:w/rd");
        assert_eq!(origin.tls.mode, TlsMode::Require);
        assert!(!format!("{origin:?}").contains("p@ss"));
    }

    #[test]
    fn hosts() {
        let hosts = |url| Origin::of_url(url).unwrap().hosts;
        assert_eq!(
            hosts("postgresql://a@h1,h2:7/b"),
            [tcp("h1", 5432), tcp("h2", 7)]
        );
        assert_eq!(hosts("postgresql://a@[::1]:7/b"), [tcp("::1", 7)]);
        let socket = Host::Unix("/var/run".into(), 5432);
        assert_eq!(hosts("postgresql://a@%2Fvar%2Frun/b"), [socket]);
        assert_eq!(tcp("::1", 7).to_string(), "[::1]:7");
    }

    #[test]
    fn who_is_near_needs_no_tls() {
        let mode = |url| Origin::of_url(url).unwrap().tls.mode;
        assert_eq!(mode("postgres://a@localhost/b"), TlsMode::Disable);
        assert_eq!(mode("postgres://a@127.0.0.1/b"), TlsMode::Disable);
        assert_eq!(
            mode("postgres://a@127.0.0.1,far.example/b"),
            TlsMode::VerifyFull
        );
        assert_eq!(mode("postgres://a@10.0.0.1/b"), TlsMode::VerifyFull);
    }

    #[test]
    fn what_a_login_is_bound_to() {
        let binding = |rest: &str| {
            let url = format!("postgres://a@far.example/b{rest}");
            Origin::of_url(&url).map(|origin| origin.tls.channel_binding)
        };
        assert_eq!(binding("").unwrap(), ChannelBinding::Prefer);
        for expected in ChannelBinding::ALL {
            let rest = format!("?channel_binding={}", expected.name());
            assert_eq!(binding(&rest).unwrap(), expected);
        }
        let error = binding("?channel_binding=require&sslmode=disable").unwrap_err();
        assert!(error.reason.contains("needs TLS"), "{error}");
        assert!(Origin::of_url("postgres://a@localhost/b?channel_binding=require").is_err());
    }

    #[test]
    fn the_wrong_part_is_named() {
        let long = format!("postgres://a@h/{}", "x".repeat(64));
        for (url, part) in [
            ("mysql://a@h/b", "scheme"),
            ("h", "scheme"),
            ("postgres://h/b", "user"),
            ("postgres://@h/b", "user"),
            ("postgres://a@h", "database"),
            ("postgres://a@/b", "host"),
            ("postgres://a@h:0/b", "port"),
            ("postgres://a@h:70000/b", "port"),
            ("postgres://a:p#q@h x/b", "host"),
            ("postgres://a@h/b?sslmode=yes", "parameter"),
            ("postgres://a@h/b?color=red", "parameter"),
            ("postgres://a@h/b?channel_binding=yes", "parameter"),
            ("postgres://a%ff@h/b", "user"),
            (&long, "database"),
        ] {
            assert_eq!(Origin::of_url(url).unwrap_err().part, part, "{url}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,80}") {
            let _ = Origin::of_url(&format!("postgres://{text}"));
        }

        #[test]
        fn no_error_tells_a_password(password in "[a-z]{20}") {
            for url in [format!("postgres://a:{password}@h:x/b"), format!("postgres://a:{password}")] {
                let error = Origin::of_url(&url).unwrap_err();
                prop_assert!(!error.to_string().contains(&password));
            }
        }
    }
}
