//! Ways to an origin: logins, TLS, and each way to fail.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod harness;

use std::time::Duration;

use dormouse_pooler::{
    ChannelBinding, FailureKind, Host, Identity, Origin, PoolOptions, Secret, Target, Tls, TlsMode,
    check,
};
use harness::{PASSWORD, Pooled, Postgres, limited, one, programs, told, until};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const WITHIN: Duration = Duration::from_secs(10);

async fn failure(origin: &Origin, within: Duration) -> FailureKind {
    check(origin, within).await.unwrap_err().kind
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_name() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let good = postgres.origin();
    let checked = check(&good, WITHIN).await.unwrap();
    assert!(
        checked.server_version.starts_with("18."),
        "{}",
        checked.server_version
    );
    let with = |change: fn(&mut Origin)| {
        let mut origin = good.clone();
        change(&mut origin);
        origin
    };
    let table = [
        (
            with(|o| o.hosts = vec![Host::Tcp("no-such-host.invalid".to_owned(), 5432)]),
            FailureKind::Dns,
        ),
        (
            with(|o| o.hosts = vec![Host::Tcp("127.0.0.1".to_owned(), 1)]),
            FailureKind::Refused,
        ),
        (
            with(|o| o.hosts = vec![Host::Unix("/nowhere".into(), 5432)]),
            FailureKind::Refused,
        ),
        (
            with(|o| o.tls.mode = TlsMode::Require),
            FailureKind::TlsNotOffered,
        ),
        (
            with(|o| o.password = Secret::new("wrong")),
            FailureKind::Credentials,
        ),
        (
            with(|o| o.password = Secret::new("")),
            FailureKind::Credentials,
        ),
        (
            with(|o| o.user = "nobody_here".to_owned()),
            FailureKind::Credentials,
        ),
        (
            with(|o| o.database = "nowhere".to_owned()),
            FailureKind::Database,
        ),
    ];
    for (origin, kind) in table {
        assert_eq!(failure(&origin, WITHIN).await, kind, "{origin:?}");
    }
    // Somebody who accepts, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut origin = good.clone();
    origin.hosts = vec![Host::Tcp(
        "127.0.0.1".to_owned(),
        silent.local_addr().unwrap().port(),
    )];
    let soon = Duration::from_millis(200);
    assert_eq!(failure(&origin, soon).await, FailureKind::Timeout);
    // Of several, the first that serves.
    origin.hosts.insert(0, Host::Tcp("127.0.0.1".to_owned(), 1));
    origin.hosts[1] = good.hosts[0].clone();
    origin.target = Target::ReadWrite;
    check(&origin, WITHIN).await.unwrap();
    let beside = postgres.session().await;
    for sql in [
        "alter system set default_transaction_read_only = on",
        "select pg_reload_conf()",
    ] {
        beside.batch_execute(sql).await.unwrap();
    }
    until("it takes no writes", async || {
        check(&origin, WITHIN)
            .await
            .is_err_and(|failure| failure.kind == FailureKind::ReadOnly)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_in_every_manner() {
    for method in ["scram-sha-256", "md5", "password"] {
        let mut options = native::Options {
            password: Some(PASSWORD.to_owned()),
            method: method.to_owned(),
            ..native::Options::default()
        };
        if method == "md5" {
            options.settings.push("password_encryption=md5".to_owned());
        }
        let Some(postgres) = Postgres::start(&options) else {
            return;
        };
        check(&postgres.origin(), WITHIN).await.unwrap();
        let mut wrong = postgres.origin();
        wrong.password = Secret::new("wrong");
        assert_eq!(failure(&wrong, WITHIN).await, FailureKind::Credentials);
    }
}

/// An authority, a server's certificate for a name, and a client's.
struct Certificates {
    authority: String,
    server: (String, String),
    client: Identity,
}

fn certificates(name: &str) -> Certificates {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |names: Vec<String>, common: &str| {
        let mut params = CertificateParams::new(names).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, common.to_owned());
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (chain, key) = issue(Vec::new(), "postgres");
    Certificates {
        server: issue(vec![name.to_owned()], name),
        client: Identity {
            chain,
            key: Secret::new(key),
        },
        authority: issuer.pem(),
    }
}

fn with_tls(certificates: &Certificates, method: &str) -> native::Options {
    native::Options {
        password: Some(PASSWORD.to_owned()),
        method: method.to_owned(),
        settings: vec!["ssl=on".to_owned(), "ssl_ca_file=ca.crt".to_owned()],
        files: vec![
            ("server.crt".to_owned(), certificates.server.0.clone()),
            ("server.key".to_owned(), certificates.server.1.clone()),
            ("ca.crt".to_owned(), certificates.authority.clone()),
        ],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_as_much_as_wanted() {
    if programs().is_none() {
        return;
    }
    let right = certificates("localhost");
    let postgres = Postgres::start(&with_tls(&right, "scram-sha-256")).unwrap();
    let stranger = certificates("localhost").authority;
    let port = postgres.native.address.port();
    let origin = |host: &str, mode, authorities: Option<&String>| {
        let mut origin = postgres.origin();
        origin.hosts = vec![Host::Tcp(host.to_owned(), port)];
        origin.tls = Tls {
            mode,
            authorities: authorities.cloned(),
            ..Tls::default()
        };
        origin
    };
    let ours = Some(&right.authority);
    for (host, mode, authorities, expected) in [
        ("localhost", TlsMode::Prefer, None, None),
        ("localhost", TlsMode::Require, None, None),
        ("localhost", TlsMode::VerifyCa, ours, None),
        ("localhost", TlsMode::VerifyFull, ours, None),
        ("127.0.0.1", TlsMode::VerifyCa, ours, None),
        (
            "127.0.0.1",
            TlsMode::VerifyFull,
            ours,
            Some(FailureKind::Certificate),
        ),
        (
            "localhost",
            TlsMode::VerifyFull,
            Some(&stranger),
            Some(FailureKind::Certificate),
        ),
        (
            "localhost",
            TlsMode::VerifyCa,
            Some(&stranger),
            Some(FailureKind::Certificate),
        ),
        // As libpq: named authorities count in this mode too.
        (
            "localhost",
            TlsMode::Require,
            Some(&stranger),
            Some(FailureKind::Certificate),
        ),
        (
            "localhost",
            TlsMode::VerifyFull,
            None,
            Some(FailureKind::Certificate),
        ),
    ] {
        let got = check(&origin(host, mode, authorities), WITHIN).await;
        let got = got.err().map(|failure| failure.kind);
        assert_eq!(got, expected, "{host} {mode:?} {authorities:?}");
    }
    // What the pool has is encrypted, and cancelling works.
    let pooled = Pooled::start(origin("localhost", TlsMode::VerifyFull, ours), limited(1)).await;
    let session = pooled.session().await;
    let is_encrypted = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(one(&session, is_encrypted).await, "t");
    let token = session.cancel_token();
    let (slow, ()) = tokio::join!(session.simple_query("select pg_sleep(60)"), async {
        until("it runs", async || pooled.pool.standing().idle == 0).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        token.cancel_query(tokio_postgres::NoTls).await.unwrap();
    });
    assert_eq!(told(&slow.unwrap_err()).0, "57014");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_instead_of_a_password() {
    if programs().is_none() {
        return;
    }
    let right = certificates("localhost");
    let postgres = Postgres::start(&with_tls(&right, "cert")).unwrap();
    let mut origin = postgres.origin();
    origin.hosts = vec![Host::Tcp(
        "localhost".to_owned(),
        postgres.native.address.port(),
    )];
    origin.password = Secret::new("");
    origin.tls = Tls {
        mode: TlsMode::VerifyFull,
        authorities: Some(right.authority.clone()),
        identity: Some(right.client.clone()),
        ..Tls::default()
    };
    check(&origin, WITHIN).await.unwrap();
    origin.tls.identity = None;
    assert_eq!(failure(&origin, WITHIN).await, FailureKind::Credentials);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_origin_goes_and_comes_back() {
    let Some(mut postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(3)).await;
    let (ann, joe) = (pooled.session().await, pooled.session().await);
    ann.batch_execute("set work_mem = '7MB'; begin")
        .await
        .unwrap();
    assert_eq!(one(&joe, "select 1").await, "1");
    postgres.native.kill().unwrap();
    // Who is amid a statement when a process ends is sent away; everybody else hears at once that there is no origin.
    until("it is told that there is no origin", async || {
        let session = pooled.session().await;
        let error = session.simple_query("select 1").await.err();
        let error = error.as_ref().and_then(|error| error.as_db_error());
        error.is_some_and(|error| {
            let is_refused = error.message().contains("connection_refused");
            error.code().code() == "58000" && is_refused || error.code().code() == "57P03"
        })
    })
    .await;
    // Who was amid a transaction has lost it.
    assert!(ann.simple_query("select 1").await.is_err());
    postgres.native.run().unwrap();
    until("the origin is back", async || {
        let session = pooled.session().await;
        session.simple_query("select 1").await.is_ok()
    })
    .await;
    let standing = pooled.pool.standing();
    assert!(standing.connections <= 3, "{standing:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_hears_for_whom() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let options = PoolOptions {
        wait_max: Duration::from_secs(2),
        ..limited(1)
    };
    let pooled = Pooled::start(postgres.origin(), options).await;
    let (ann, joe) = (pooled.session().await, pooled.session().await);
    ann.batch_execute("begin").await.unwrap();
    let error = joe.simple_query("select 1").await.unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "53300");
    assert_eq!(
        error.message(),
        "Failed to acquire a connection from the pool."
    );
    let hint = error.hint().unwrap();
    assert!(hint.contains("client 1"), "{hint}");
    assert!(hint.contains("Raise connectionsMax or waitMsMax"), "{hint}");
    let detail = error.detail().unwrap();
    assert!(detail.contains("2000 ms, which is waitMsMax"), "{detail}");
    ann.batch_execute("listen a; commit").await.unwrap();
    let error = joe.simple_query("select 1").await.unwrap_err();
    let hint = error.as_db_error().unwrap().hint().unwrap();
    assert!(
        hint.contains("keeps it for its session, by LISTEN"),
        "{hint}"
    );
    ann.batch_execute("unlisten *").await.unwrap();
    assert_eq!(one(&joe, "select 1").await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_password_counts_for_new_connections() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let pooled = Pooled::start(postgres.origin(), limited(2)).await;
    let session = pooled.session().await;
    session.batch_execute("begin").await.unwrap();
    let beside = postgres.session().await;
    beside
        .batch_execute("create role second superuser login password 'two'")
        .await
        .unwrap();
    let mut origin = postgres.origin();
    origin.user = "second".to_owned();
    origin.password = Secret::new("two");
    pooled.pool.turn_to(origin);
    assert_eq!(
        one(&session, "select current_user").await,
        "postgres",
        "its transaction goes on"
    );
    session.batch_execute("commit").await.unwrap();
    assert_eq!(one(&session, "select current_user").await, "second");
    let old = "select count(*) from pg_stat_activity \
               where application_name = 'Dormouse' and usename = 'postgres'";
    until("the old connections are gone", async || {
        one(&beside, old).await == "0"
    })
    .await;
}

/// Passes bytes on to a server, until it is told to keep them to itself.
async fn wire_tap(to: std::net::SocketAddr) -> (u16, tokio::sync::watch::Sender<bool>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut is_cut = is_cut.clone();
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    biased;
                    _ = is_cut.wait_for(|is_cut| *is_cut) => {}
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                }
                // Both sockets stay open, and nothing comes through any more.
                let _ = is_cut.wait_for(|is_cut| !*is_cut).await;
            });
        }
    });
    (port, cut)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_is_cut_holds_nobody() {
    let Some(postgres) = Postgres::with_password() else {
        return;
    };
    let (port, cut) = wire_tap(postgres.native.address).await;
    let mut origin = postgres.origin();
    origin.hosts = vec![Host::Tcp("127.0.0.1".to_owned(), port)];
    let options = PoolOptions {
        connect_timeout: Duration::from_secs(2),
        check_after: Duration::ZERO,
        ..limited(1)
    };
    let pooled = Pooled::start(origin, options).await;
    let session = pooled.session().await;
    assert_eq!(one(&session, "select 1").await, "1");
    cut.send_replace(true);
    let (code, text) = told(&session.simple_query("select 1").await.unwrap_err());
    assert!(code == "58000" && text.contains("timeout"), "{code} {text}");
    cut.send_replace(false);
    until("the network is back", async || {
        session.simple_query("select 1").await.is_ok()
    })
    .await;
    assert_eq!(pooled.pool.standing().connections, 1);
}

/// As `openssl req -new -x509` makes them: an authority that has signed itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_its_own_authority() {
    if programs().is_none() {
        return;
    }
    let made = |year: i32| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let own = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Certificates {
            server: (own.pem(), own.key().serialize_pem()),
            client: certificates("localhost").client,
            authority: own.pem(),
        }
    };
    let (right, late) = (made(4000), made(2020));
    let stranger = made(4000).authority;
    for (own, mode, host, named, expected) in [
        (
            &right,
            TlsMode::VerifyFull,
            "localhost",
            &right.authority,
            "",
        ),
        (&right, TlsMode::VerifyCa, "127.0.0.1", &right.authority, ""),
        (
            &right,
            TlsMode::VerifyFull,
            "127.0.0.1",
            &right.authority,
            "is not for 127.0.0.1, but for localhost. Name a host that it is for",
        ),
        (
            &right,
            TlsMode::VerifyFull,
            "localhost",
            &stranger,
            "--sslrootcert",
        ),
        (
            &late,
            TlsMode::VerifyCa,
            "localhost",
            &late.authority,
            "has expired",
        ),
    ] {
        let postgres = Postgres::start(&with_tls(own, "scram-sha-256")).unwrap();
        let mut origin = postgres.origin();
        let port = postgres.native.address.port();
        origin.hosts = vec![Host::Tcp(host.to_owned(), port)];
        origin.tls = Tls {
            mode,
            authorities: Some(named.clone()),
            ..Tls::default()
        };
        match check(&origin, WITHIN).await {
            Ok(_) => assert_eq!(expected, "", "{mode:?} {host}"),
            Err(failure) => {
                assert_eq!(failure.kind, FailureKind::Certificate, "{failure}");
                let is_told = !expected.is_empty() && failure.reason.contains(expected);
                assert!(is_told, "{mode:?} {host}: {failure}");
            }
        }
    }
}

/// A login that whoever stands between, with a certificate of his own, could pass on is none.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_bound_where_that_is_required() {
    if programs().is_none() {
        return;
    }
    let right = certificates("localhost");
    for method in ["scram-sha-256", "password", "trust"] {
        let mut options = with_tls(&right, method);
        if method == "trust" {
            options.password = None;
        }
        let postgres = Postgres::start(&options).unwrap();
        for (mode, binding) in [
            (TlsMode::Require, ChannelBinding::Require),
            (TlsMode::Require, ChannelBinding::Prefer),
            (TlsMode::Require, ChannelBinding::Disable),
            (TlsMode::Disable, ChannelBinding::Require),
        ] {
            let mut origin = postgres.origin();
            origin.tls.mode = mode;
            origin.tls.channel_binding = binding;
            let is_bound = method == "scram-sha-256" && mode == TlsMode::Require;
            let is_required = binding == ChannelBinding::Require;
            match check(&origin, WITHIN).await {
                Ok(_) => assert!(is_bound || !is_required, "{method} {mode:?} {binding:?}"),
                Err(failure) => {
                    assert!(
                        is_required && !is_bound,
                        "{method} {mode:?} {binding:?}: {failure}"
                    );
                    assert!(
                        failure.reason.contains("channel_binding is require"),
                        "{failure}"
                    );
                }
            }
        }
    }
}

/// What is no Postgres is not told as a limit that was met.
#[tokio::test(flavor = "multi_thread")]
async fn what_listens_there_need_not_be_postgres() {
    for (says, told) in [
        (&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], "a server of HTTP"),
        (b"\x15\x03\x01\x00\x02\x02\x46", "speaks TLS"),
        (b"SSH-2.0-x\r\n", "does not speak PostgreSQL's protocol"),
        (
            b"220 mail.example.com ready\r\n",
            "does not speak PostgreSQL's protocol. Check",
        ),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                client.write_all(says).await.unwrap();
                let mut rest = Vec::new();
                // Until it has heard enough.
                let _ = client.read_to_end(&mut rest).await;
            }
        });
        for mode in ["disable", "require"] {
            if says[0] == b'S' && mode == "require" {
                // It is taken for a yes.
                continue;
            }
            let url = format!("postgres://a:b@127.0.0.1:{port}/c?sslmode={mode}");
            let failure = check(&Origin::of_url(&url).unwrap(), WITHIN)
                .await
                .unwrap_err();
            assert_eq!(failure.kind, FailureKind::Protocol, "{failure}");
            assert!(failure.reason.contains(told), "{mode}: {failure}");
        }
    }
}
