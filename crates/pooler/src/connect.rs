//! From an origin to a connection that is logged in.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use wire::PgError;
use wire::pg::authentication::{self, Request};
use wire::pg::scram::{self, Channel, Client, NONCE_BYTES, Proof};
use wire::pg::startup::{self, Startup};
use wire::pg::{Frame, backend, frontend};

use crate::cancel::Cancels;
use crate::dialing::{self, Dialing};
use crate::failure::{Failure, FailureKind};
use crate::origin::{ChannelBinding, Host, Origin, Target, TlsMode};
use crate::side::Side;
use crate::stranger::stranger;
use crate::stream::Stream;
use crate::tls;

/// The longest message of a login.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// What a server is told of who connects.
const APPLICATION_NAME: &str = "Dormouse";

/// A connection that is logged in, and idle.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) side: Side<Stream>,
    /// What the server has told of itself, `server_version` and others.
    pub(crate) parameters: BTreeMap<String, String>,
    pub(crate) key: CancelKey,
}

/// How to cancel what a server does.
#[derive(Clone)]
pub(crate) struct CancelKey {
    host: Host,
    /// Where the server is, whatever the host's name leads to by now.
    address: Option<SocketAddr>,
    pid: u32,
    key: Vec<u8>,
    /// Of the connection, if it is encrypted.
    tls: Option<Arc<ClientConfig>>,
    /// Those of its pool.
    pub(crate) cancels: Option<Arc<Cancels>>,
}

/// Without the key.
impl fmt::Debug for CancelKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CancelKey")
            .field("host", &self.host)
            .field("pid", &self.pid)
            .finish_non_exhaustive()
    }
}

impl CancelKey {
    /// The server's process.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }
}

/// Tries an origin's hosts one after the other.
///
/// # Errors
///
/// Why the last of them, or one that had the last word, did not let us in.
pub(crate) async fn connect(
    origin: &Origin,
    dialing: &Dialing,
    within: Duration,
    settings: &[(&str, String)],
) -> Result<Link, Failure> {
    let until = Instant::now() + within;
    let mut last = Failure::new(FailureKind::Dns, "the origin names no host");
    for host in &origin.hosts {
        let login = Login {
            origin,
            host,
            dialing,
            settings,
        };
        let connected = match timeout_at(until, login.run()).await {
            Ok(connected) => connected,
            Err(_) => Err(Failure::new(
                FailureKind::Timeout,
                format!("{host} did not answer within {} ms", within.as_millis()),
            )),
        };
        match connected {
            Ok(link) => return Ok(link),
            Err(failure) if failure.kind.is_of_the_host() => last = failure,
            Err(failure) => return Err(failure),
        }
    }
    Err(last)
}

/// Cancels what a server does at this moment, and waits until the server has taken note of it. Encrypted if the server's
/// connection is: who hears the key may cancel too.
pub(crate) async fn cancel(key: &CancelKey) -> io::Result<()> {
    let said = |failure: Failure| io::Error::other(failure.reason);
    let stream = dialing::reach(&key.host, key.address).await;
    let mut stream = stream.map_err(said)?;
    stream = match (stream, &key.tls) {
        (Stream::Tcp(mut tcp), Some(config)) => {
            if !offers_tls(&key.host, &mut tcp).await.map_err(said)? {
                return Err(io::Error::other("the server has no TLS any more"));
            }
            encrypted(&key.host, tcp, config).await.map_err(said)?
        }
        (stream, _) => stream,
    };
    let mut packet = BytesMut::new();
    startup::cancel_request(&mut packet, key.pid, &key.key);
    stream.write_all(&packet).await?;
    stream.flush().await?;
    // The server hangs up when the signal is sent, without a farewell.
    let mut rest = [0; 16];
    loop {
        match stream.read(&mut rest).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether the server goes on in TLS.
async fn offers_tls(host: &Host, tcp: &mut TcpStream) -> Result<bool, Failure> {
    let broke = |error: io::Error| Failure::of_io(&error, "asking for TLS");
    tcp.write_all(&startup::SSL_REQUEST_PACKET)
        .await
        .map_err(broke)?;
    let mut said = vec![tcp.read_u8().await.map_err(broke)?];
    match said[0] {
        b'S' => Ok(true),
        // An error is how old servers say that they do not know what that is.
        b'N' | b'E' => Ok(false),
        _ => {
            let mut more = [0; 16];
            let read = tcp.read(&mut more).await.map_err(broke)?;
            said.extend_from_slice(&more[..read]);
            Err(stranger(host, &said))
        }
    }
}

/// A connection in TLS.
async fn encrypted(
    host: &Host,
    tcp: TcpStream,
    config: &Arc<ClientConfig>,
) -> Result<Stream, Failure> {
    let name = match host {
        Host::Tcp(name, _) => name.clone(),
        Host::Unix(..) => String::new(),
    };
    let name = ServerName::try_from(name).map_err(|_| {
        let reason = format!("{host} is no name for which there are certificates");
        Failure::new(FailureKind::Certificate, reason)
    })?;
    let connected = TlsConnector::from(Arc::clone(config))
        .connect(name, tcp)
        .await;
    let stream = connected.map_err(|error| tls_failed(host, &error))?;
    Ok(Stream::Tls(Box::new(stream)))
}

fn tls_failed(host: &Host, error: &io::Error) -> Failure {
    let cause = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let kind = match cause {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented) => {
            FailureKind::Certificate
        }
        _ => FailureKind::Tls,
    };
    let why = match (cause, host) {
        (Some(cause), Host::Tcp(name, _)) => tls::in_words(cause, name),
        _ => error.to_string(),
    };
    Failure::new(kind, format!("TLS with {host} failed: {why}"))
}

/// The steps into one host.
struct Login<'a> {
    origin: &'a Origin,
    host: &'a Host,
    dialing: &'a Dialing,
    /// Of the session that begins.
    settings: &'a [(&'a str, String)],
}

impl Login<'_> {
    async fn run(&self) -> Result<Link, Failure> {
        let (stream, tls) = self.secured().await?;
        let key = CancelKey {
            host: self.host.clone(),
            address: stream.address(),
            pid: 0,
            key: Vec::new(),
            tls,
            cancels: None,
        };
        let channel = match &stream {
            Stream::Tls(_) if self.binding() != ChannelBinding::Disable => Channel::Tls {
                end_point: stream.certificate().and_then(scram::end_point),
            },
            _ => Channel::Plain,
        };
        let mut side = Side::new(stream);
        let mut startup = Startup::new(&self.origin.user, &self.origin.database);
        startup.settings = vec![
            ("client_encoding".to_owned(), "UTF8".to_owned()),
            ("application_name".to_owned(), APPLICATION_NAME.to_owned()),
        ];
        let settings = self.settings.iter();
        startup
            .settings
            .extend(settings.map(|(name, value)| ((*name).to_owned(), value.clone())));
        startup.encode(&mut side.outbox).map_err(Failure::said)?;
        self.authenticate(&mut side, &channel).await?;
        let mut link = settle(side, key).await?;
        if self.origin.target == Target::ReadWrite {
            self.must_write(&mut link).await?;
        }
        Ok(link)
    }

    /// A socket, with TLS as the origin wants it, and how that is.
    async fn secured(&self) -> Result<(Stream, Option<Arc<ClientConfig>>), Failure> {
        let stream = self.dialing.open(self.host).await?;
        let Stream::Tcp(mut tcp) = stream else {
            // As libpq: a socket of this machine has no TLS.
            return Ok((stream, None));
        };
        let Some(config) = tls::config(&self.origin.tls)? else {
            return Ok((Stream::Tcp(tcp), None));
        };
        let mode = self.origin.tls.mode;
        match offers_tls(self.host, &mut tcp).await? {
            true => {}
            false if mode == TlsMode::Prefer => return Ok((Stream::Tcp(tcp), None)),
            false => {
                return Err(Failure::new(
                    FailureKind::TlsNotOffered,
                    format!("{} has no TLS, and sslmode is {}", self.host, mode.name()),
                ));
            }
        }
        let stream = encrypted(self.host, tcp, &config).await?;
        Ok((stream, Some(config)))
    }

    async fn authenticate(
        &self,
        side: &mut Side<Stream>,
        channel: &Channel,
    ) -> Result<(), Failure> {
        let mut scram: Option<Client> = None;
        let mut proof: Option<Proof> = None;
        let mut is_proven = false;
        let mut is_first = true;
        loop {
            let frame = match next(side).await {
                // The beginning of no message.
                Err(failure) if is_first && failure.kind == FailureKind::Protocol => {
                    return Err(stranger(self.host, &side.inbox));
                }
                frame => frame?,
            };
            is_first = false;
            match frame.kind() {
                backend::kind::ERROR_RESPONSE => return Err(said(&frame)),
                backend::kind::NOTICE_RESPONSE | backend::kind::NEGOTIATE_PROTOCOL_VERSION => {
                    continue;
                }
                backend::kind::AUTHENTICATION => {}
                other => return Err(unexpected(other)),
            }
            let request = Request::decode(frame.body()).map_err(Failure::said)?;
            let password = self.origin.password.reveal();
            match request {
                Request::Ok if scram.is_some() || proof.is_some() => {
                    return Err(distrust(scram::Distrust::Signature));
                }
                Request::Ok if is_proven || self.binding() != ChannelBinding::Require => {
                    return Ok(());
                }
                Request::Ok => return Err(self.unbound()),
                // Nothing is sent that whoever stands between could use.
                Request::Cleartext | Request::Md5 { .. }
                    if self.binding() == ChannelBinding::Require =>
                {
                    return Err(self.unbound());
                }
                Request::Cleartext => {
                    self.needs_password()?;
                    authentication::password(&mut side.outbox, password.as_bytes())
                        .map_err(Failure::said)?;
                }
                Request::Md5 { salt } => {
                    self.needs_password()?;
                    let answer = authentication::md5_response(&self.origin.user, password, salt);
                    authentication::password(&mut side.outbox, answer.as_bytes())
                        .map_err(Failure::said)?;
                }
                Request::Sasl { mechanisms } => {
                    self.needs_password()?;
                    let mut nonce = [0; NONCE_BYTES];
                    getrandom::fill(&mut nonce).map_err(|error| {
                        Failure::new(FailureKind::Protocol, format!("no randomness: {error}"))
                    })?;
                    let client = Client::choose(&mechanisms, channel, &nonce).map_err(distrust)?;
                    if self.binding() == ChannelBinding::Require
                        && client.mechanism() != scram::SHA_256_PLUS
                    {
                        return Err(self.unbound());
                    }
                    let first = client.first();
                    authentication::sasl_initial(
                        &mut side.outbox,
                        client.mechanism(),
                        first.as_bytes(),
                    )
                    .map_err(Failure::said)?;
                    scram = Some(client);
                }
                Request::SaslContinue(challenge) => {
                    let client = scram.take().ok_or_else(|| unexpected(frame.kind()))?;
                    let (last, waits) = prove(client, password, challenge).await?;
                    authentication::sasl_response(&mut side.outbox, last.as_bytes())
                        .map_err(Failure::said)?;
                    proof = Some(waits);
                }
                Request::SaslFinal(outcome) => {
                    let proof = proof.take().ok_or_else(|| unexpected(frame.kind()))?;
                    proof.judge(outcome).map_err(distrust)?;
                    is_proven = true;
                }
                Request::Other(method) => {
                    return Err(Failure::new(
                        FailureKind::Protocol,
                        format!(
                            "the server wants authentication method {method}; the pool has \
                             SCRAM-SHA-256, md5, cleartext and certificates"
                        ),
                    ));
                }
            }
        }
    }

    fn binding(&self) -> ChannelBinding {
        self.origin.tls.channel_binding
    }

    fn unbound(&self) -> Failure {
        Failure::new(
            FailureKind::Protocol,
            format!(
                "channel_binding is require, and {} offers no login that is bound to its certificate: that is \
                 SCRAM-SHA-256-PLUS, over TLS. Give the role a password by scram-sha-256 there, or set channel_binding to prefer",
                self.host
            ),
        )
    }

    fn needs_password(&self) -> Result<(), Failure> {
        match self.origin.password.is_empty() {
            true => Err(Failure::new(
                FailureKind::Credentials,
                "the server asks for a password, and the origin has none",
            )),
            false => Ok(()),
        }
    }

    async fn must_write(&self, link: &mut Link) -> Result<(), Failure> {
        let is_read_only = match link.parameters.get("in_hot_standby").map(String::as_str) {
            Some("on") => true,
            _ => {
                let rows = query(link, "SHOW transaction_read_only").await?;
                rows.first().map(String::as_str) == Some("on")
            }
        };
        match is_read_only {
            true => Err(Failure::new(
                FailureKind::ReadOnly,
                format!("{} takes no writes", self.host),
            )),
            false => Ok(()),
        }
    }
}

/// Everything up to the first `ReadyForQuery`.
async fn settle(mut side: Side<Stream>, mut key: CancelKey) -> Result<Link, Failure> {
    let mut parameters = BTreeMap::new();
    loop {
        let frame = next(&mut side).await?;
        match frame.kind() {
            backend::kind::ERROR_RESPONSE => return Err(said(&frame)),
            backend::kind::PARAMETER_STATUS => {
                let (name, value) =
                    backend::decode_parameter_status(frame.body()).map_err(Failure::said)?;
                let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                parameters.insert(text(name), text(value));
            }
            backend::kind::BACKEND_KEY_DATA => {
                let (pid, secret) =
                    backend::decode_backend_key_data(frame.body()).map_err(Failure::said)?;
                key.pid = pid;
                key.key = secret.to_vec();
            }
            backend::kind::READY_FOR_QUERY => {
                return Ok(Link {
                    side,
                    parameters,
                    key,
                });
            }
            _ => {}
        }
    }
}

/// The rounds of hashing take milliseconds, or as long as the server likes.
async fn prove(
    client: Client,
    password: &str,
    challenge: &[u8],
) -> Result<(String, Proof), Failure> {
    let password = zeroize::Zeroizing::new(password.to_owned());
    let challenge = challenge.to_vec();
    let proving = tokio::task::spawn_blocking(move || client.prove(&password, &challenge));
    let proved = proving.await.map_err(|error| {
        Failure::new(FailureKind::Protocol, format!("the login ended: {error}"))
    })?;
    proved.map_err(distrust)
}

/// Runs a simple query on a connection of our own: the first column of its rows.
///
/// # Errors
///
/// What the server says.
pub(crate) async fn query(link: &mut Link, sql: &str) -> Result<Vec<String>, Failure> {
    frontend::query(&mut link.side.outbox, sql.as_bytes()).map_err(Failure::said)?;
    let mut rows = Vec::new();
    let mut error = None;
    loop {
        let frame = next(&mut link.side).await?;
        match frame.kind() {
            backend::kind::ERROR_RESPONSE => {
                let mut failure = said(&frame);
                failure.kind = FailureKind::Query;
                error = Some(failure);
            }
            backend::kind::DATA_ROW => {
                let mut row = backend::DataRow::decode(frame.body()).map_err(Failure::said)?;
                let value = row.next().flatten();
                let value = value.map(|value| String::from_utf8_lossy(value).into_owned());
                rows.push(value.unwrap_or_default());
            }
            backend::kind::READY_FOR_QUERY => {
                return match error {
                    Some(failure) => Err(failure),
                    None => Ok(rows),
                };
            }
            _ => {}
        }
    }
}

/// Sends what waits, and takes the next message.
async fn next(side: &mut Side<Stream>) -> Result<Frame, Failure> {
    let broke = |error: io::Error| Failure::of_io(&error, "talking to the server");
    side.drain().await.map_err(broke)?;
    loop {
        if let Some(frame) =
            Frame::split(&mut side.inbox, MESSAGE_BYTES_MAX).map_err(Failure::said)?
        {
            return Ok(frame);
        }
        if side.fill().await.map_err(broke)? == 0 {
            return Err(Failure::new(
                FailureKind::Network,
                "the server hung up while it was talked to",
            ));
        }
    }
}

fn said(frame: &Frame) -> Failure {
    let error = PgError::decode(frame.body()).unwrap_or_else(|error| error);
    Failure::said(error)
}

fn unexpected(kind: u8) -> Failure {
    Failure::new(
        FailureKind::Protocol,
        format!("the server sent a message {:?} amid a login", kind as char),
    )
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn distrust(reason: scram::Distrust) -> Failure {
    Failure::new(FailureKind::Protocol, reason.to_string())
}
