//! TLS: certificates that are checked, and connections that must have it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::harness::{
    Authority, Files, Login, Pg, SCRAM, Server, dormouse, has_psql, run_program, startup, until,
};

/// SSLRequest.
const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

/// A server with a certificate for `localhost`, and who signed it.
struct Secured {
    server: Server,
    authority: Authority,
    folder: TempDir,
}

impl Secured {
    fn start(more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new(folder.path(), "root");
        let files = authority.issue(folder.path(), "server", "localhost");
        let server = Server::start_in(folder.path(), &settings(&files, more));
        Self {
            server,
            authority,
            folder,
        }
    }

    fn parameters(&self, mode: &str) -> String {
        format!(
            "sslmode={mode} sslrootcert={}",
            self.authority.root.display()
        )
    }
}

fn settings<'a>(files: &'a Files, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let path = |path: &'a Path| path.to_str().unwrap();
    let mut settings = vec![
        ("DORMOUSE_TLS__CERTIFICATE", path(&files.certificate)),
        ("DORMOUSE_TLS__KEY", path(&files.key)),
    ];
    settings.extend(more);
    settings
}

fn trusted(server: &Server) -> Login<'_> {
    Login::new(server, "postgres", "")
}

/// What libpq says of its connection.
const HOW: &str = "\\conninfo";

#[test]
fn a_certificate_can_be_verified() {
    if !has_psql() {
        return;
    }
    let secured = Secured::start(&[]);
    let full = secured.parameters("verify-full");
    let shown = trusted(&secured.server).with(&full).gives(HOW);
    assert!(shown.contains("TLSv1.3"), "{shown}");
    let direct = format!("{full} sslnegotiation=direct");
    let shown = trusted(&secured.server).with(&direct).gives(HOW);
    assert!(shown.contains("postgresql"), "{shown}");
    let older = format!("{full} ssl_max_protocol_version=TLSv1.2");
    let shown = trusted(&secured.server).with(&older).gives(HOW);
    assert!(shown.contains("TLSv1.2"), "{shown}");
    // As the client wishes.
    let shown = trusted(&secured.server).with("sslmode=disable").gives(HOW);
    assert!(!shown.contains("TLSv1"), "{shown}");
    // Another authority has not signed it, and it is not for that host.
    let other = Authority::new(secured.folder.path(), "other");
    let other = format!("sslmode=verify-full sslrootcert={}", other.root.display());
    let said = trusted(&secured.server).with(&other).is_refused();
    assert!(said.contains("certificate verify failed"), "{said}");
    let elsewhere = format!("{full} host=elsewhere");
    let said = trusted(&secured.server).with(&elsewhere).is_refused();
    assert!(said.contains("does not match host name"), "{said}");
    secured.server.still_answers();
}

#[test]
fn passwords_are_bound_to_the_connection() {
    if !has_psql() {
        return;
    }
    let secured = Secured::start(&SCRAM);
    let full = secured.parameters("verify-full");
    let bound = format!("{full} channel_binding=require");
    let admin = Login::admin(&secured.server).with(&bound);
    assert_eq!(
        admin.gives("create role app login password 'x'; select 1"),
        "1"
    );
    let app = Login::new(&secured.server, "app", "x");
    assert_eq!(app.with(&bound).gives("select current_user"), "app");
    let app = Login::new(&secured.server, "app", "x");
    let unbound = format!("{full} channel_binding=disable");
    assert_eq!(app.with(&unbound).gives("select current_user"), "app");
    let wrong = Login::new(&secured.server, "app", "y")
        .with(&bound)
        .is_refused();
    assert!(wrong.contains("password authentication failed"), "{wrong}");
}

#[test]
fn who_comes_without_is_sent_away() {
    if !has_psql() {
        return;
    }
    let secured = Secured::start(&[("DORMOUSE_PGWIRE__TLS", "require")]);
    let error = secured.server.refused("shop");
    assert_eq!(error.code(), "28000");
    assert!(error.message().contains("pgwire.tls"), "{error}");
    for mode in ["allow", "prefer", "require", "verify-full"] {
        let parameters = secured.parameters(mode);
        let login = trusted(&secured.server).with(&parameters);
        assert_eq!(login.gives("select 1"), "1", "{mode}");
    }
}

#[test]
fn it_can_be_off() {
    if !has_psql() {
        return;
    }
    let secured = Secured::start(&[("DORMOUSE_PGWIRE__TLS", "off")]);
    let said = trusted(&secured.server)
        .with("sslmode=require")
        .is_refused();
    assert!(said.contains("server does not support SSL"), "{said}");
    assert_eq!(trusted(&secured.server).gives("select 1"), "1");
}

#[test]
fn much_goes_both_ways() {
    if !has_psql() {
        return;
    }
    let secured = Secured::start(&[]);
    let full = secured.parameters("verify-full");
    let rows = secured.folder.path().join("rows");
    let script = secured.folder.path().join("script");
    let text = format!(
        "create table t (n int, s text);\n\
         insert into t select n, repeat(md5(n::text), 20) from generate_series(1, 20000) n;\n\
         \\copy t to '{rows}'\ncreate table u (like t);\n\\copy u from '{rows}'\n\
         select count(*), (select md5(string_agg(u::text, '' order by n)) from u) = \
         (select md5(string_agg(t::text, '' order by n)) from t) from u;\n",
        rows = rows.display()
    );
    std::fs::write(&script, text).unwrap();
    let mut psql = trusted(&secured.server).with(&full).psql();
    let shown = run_program(psql.arg("-f").arg(script)).done();
    assert_eq!(shown.trim_end(), "20000|t");
}

#[test]
fn a_new_certificate_needs_no_restart() {
    if !has_psql() {
        return;
    }
    let secured = Secured::start(&[]);
    let old = secured.parameters("verify-full");
    let login = |parameters: &str| {
        let output = trusted(&secured.server).with(parameters).run("select 1");
        output.code
    };
    assert_eq!(login(&old), Some(0));
    let next = Authority::new(secured.folder.path(), "next");
    let new = format!("sslmode=verify-full sslrootcert={}", next.root.display());
    next.issue(secured.folder.path(), "server", "localhost");
    secured.server.signal(Signal::HUP);
    until(|| login(&new), |code| *code == Some(0));
    assert_eq!(login(&old), Some(2));
    // What cannot be used is not, and the log says so.
    std::fs::write(secured.folder.path().join("server.crt"), "no certificate").unwrap();
    secured.server.signal(Signal::HUP);
    let kept = "the certificate from before stays";
    until(|| secured.server.log().contains(kept), |told| *told);
    assert_eq!(login(&new), Some(0));
    // And when it can be used again, it is without a word from anybody.
    secured
        .authority
        .issue(secured.folder.path(), "server", "localhost");
    until(|| login(&old), |code| *code == Some(0));
}

#[test]
fn clients_can_be_asked_for_certificates() {
    if !has_psql() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "root");
    let clients = Authority::new(folder.path(), "clients");
    let files = authority.issue(folder.path(), "server", "localhost");
    let client_ca = ("DORMOUSE_TLS__CLIENT_CA", clients.root.to_str().unwrap());
    let server = Server::start_in(folder.path(), &settings(&files, &[client_ca]));
    let login = |files: &Files| {
        let parameters = format!(
            "sslmode=verify-full sslrootcert={} sslcert={} sslkey={}",
            authority.root.display(),
            files.certificate.display(),
            files.key.display()
        );
        trusted(&server).with(&parameters).run("select 1").code
    };
    assert_eq!(login(&clients.issue(folder.path(), "good", "ann")), Some(0));
    assert_eq!(
        login(&authority.issue(folder.path(), "bad", "ann")),
        Some(2)
    );
    let none = format!(
        "sslmode=verify-full sslrootcert={}",
        authority.root.display()
    );
    trusted(&server).with(&none).is_refused();
}

/// A TLS connection over one that has come as far as its handshake.
fn encrypt(
    secured: &Secured,
    stream: TcpStream,
    protocols: &[&[u8]],
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_file(&secured.authority.root).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, stream)
}

fn connect(secured: &Secured) -> TcpStream {
    let stream = TcpStream::connect(secured.server.pg).unwrap();
    stream
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .unwrap();
    stream
}

fn startup_packet() -> bytes::BytesMut {
    let mut packet = bytes::BytesMut::new();
    startup("shop").encode(&mut packet).unwrap();
    packet
}

#[test]
fn who_begins_with_tls_must_name_the_protocol() {
    let secured = Secured::start(&[]);
    let said = |protocols: &[&[u8]]| {
        let mut stream = encrypt(&secured, connect(&secured), protocols);
        let mut said = Vec::new();
        let sent = stream.write_all(&startup_packet());
        sent.and_then(|()| {
            let mut some = [0; 256];
            let count = stream.read(&mut some)?;
            said.extend_from_slice(&some[..count]);
            Ok(())
        })
        .map_err(|error| error.to_string())
        .map(|()| String::from_utf8_lossy(&said).into_owned())
    };
    let answer = said(&[b"postgresql"]).unwrap();
    assert!(answer.starts_with('R'), "{answer}");
    let answer = said(&[]).unwrap();
    assert!(
        answer.contains("ALPN") && answer.contains("08P01"),
        "{answer}"
    );
    let answer = said(&[b"http/1.1"]).unwrap_err();
    assert!(answer.contains("ApplicationProtocol"), "{answer}");
    secured.server.still_answers();
}

#[test]
fn what_is_sent_in_clear_before_tls_is_not_taken() {
    let secured = Secured::start(&[]);
    let mut client = Pg::open(secured.server.pg);
    client.send(&[SSL_REQUEST, &startup_packet()].concat());
    let error = client.last_word();
    assert!(error.message().contains("unencrypted data"), "{error}");

    // Inside TLS there is no other.
    let mut stream = connect(&secured);
    stream.write_all(SSL_REQUEST).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"S");
    let mut stream = encrypt(&secured, stream, &[]);
    stream.write_all(SSL_REQUEST).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"E");

    // A handshake that is none.
    let mut stream = connect(&secured);
    stream.write_all(SSL_REQUEST).unwrap();
    stream.read_exact(&mut answer).unwrap();
    stream.write_all(b"no handshake at all").unwrap();
    let mut rest = Vec::new();
    // An alert, and the end; or a reset, if the alert was not read in time.
    let _ = stream.read_to_end(&mut rest);
    secured.server.still_answers();
}

#[test]
fn what_is_wrong_with_the_files_is_said_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new(folder.path(), "root");
    let files = authority.issue(folder.path(), "server", "localhost");
    let other = authority.issue(folder.path(), "other", "localhost");
    let fails = |settings: &[(&str, &str)]| {
        let mut command = dormouse();
        command.args(["serve", "--pg", "127.0.0.1:0", "--http", "127.0.0.1:0"]);
        command
            .current_dir(folder.path())
            .envs(settings.iter().copied());
        run_program(&mut command).failed(2)
    };
    let mixed = Files {
        certificate: files.certificate.clone(),
        key: other.key.clone(),
    };
    let said = fails(&settings(&mixed, &[]));
    assert!(
        said.contains("tls.key") && said.contains("does not go with"),
        "{said}"
    );
    let swapped = Files {
        certificate: files.key.clone(),
        key: files.certificate.clone(),
    };
    let said = fails(&settings(&swapped, &[]));
    assert!(said.contains("tls.certificate"), "{said}");
    let said = fails(&settings(&files, &[])[..1]);
    assert!(said.contains("needs tls.key"), "{said}");
    let said = fails(&[("DORMOUSE_PGWIRE__TLS", "require")]);
    assert!(said.contains("tls.certificate"), "{said}");
}
