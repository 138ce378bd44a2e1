//! Requests to the collector.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::runtime::Handle;

use crate::cli::failure::Failure;

/// Bytes of a collector's answer that are read: it says what it did not take.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Sends to a collector, from any thread.
#[derive(Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    runtime: Handle,
    /// The last request did not get through: the next failure is no news.
    failing: AtomicBool,
}

impl Client {
    pub(super) fn new(
        endpoint: &str,
        headers: &str,
        timeout: Duration,
        runtime: &Handle,
    ) -> Result<Self, Failure> {
        let mut builder = reqwest::Client::builder()
            .timeout(timeout)
            .default_headers(parse(headers)?);
        if !endpoint.starts_with("https:") {
            // A machine without certificates can still talk to a collector of its own.
            builder = builder.tls_certs_only([]);
        }
        let http = builder.build().map_err(|error| {
            Failure::unavailable(format!("cannot send telemetry to {endpoint}: {error}"))
        })?;
        Ok(Self {
            http,
            runtime: runtime.clone(),
            failing: AtomicBool::new(false),
        })
    }

    /// Sends a message of OTLP.
    pub(super) async fn post(&self, url: &str, body: Vec<u8>) -> Result<(), HttpError> {
        let request = Request::post(url)
            .header("content-type", "application/x-protobuf")
            .body(Bytes::from(body))?;
        self.send_bytes(request).await.map(drop)
    }

    async fn send(
        http: reqwest::Client,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, HttpError> {
        let request = request.map(reqwest::Body::from);
        let mut answer = http.execute(reqwest::Request::try_from(request)?).await?;
        let status = answer.status();
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err("the collector's answer is too long".into());
            }
            body.extend_from_slice(&chunk);
        }
        let body = Bytes::from(body);
        Ok(Response::builder().status(status).body(body)?)
    }

    /// Says once that it does not work, and once that it does again.
    fn tell(&self, failure: Option<&str>) {
        let was_failing = self.failing.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(error) if !was_failing => {
                tracing::warn!(
                    error,
                    "the collector of telemetry does not take it: it is dropped"
                );
            }
            None if was_failing => tracing::info!("the collector of telemetry takes it again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // The caller may be a thread without a runtime.
        let sending = self.runtime.spawn(Self::send(self.http.clone(), request));
        let sent = sending.await.map_err(HttpError::from).flatten();
        match &sent {
            Ok(answer) if answer.status().is_success() => self.tell(None),
            Ok(answer) => self.tell(Some(answer.status().as_str())),
            // The innermost reason: the outer ones repeat the address.
            Err(error) => {
                let mut reason: &dyn std::error::Error = &**error;
                while let Some(source) = reason.source() {
                    reason = source;
                }
                self.tell(Some(&reason.to_string()));
            }
        }
        sent
    }
}

/// Reads `name=value,name=value`, where a value may be escaped as in an address.
fn parse(headers: &str) -> Result<HeaderMap, Failure> {
    let mut map = HeaderMap::new();
    for header in headers
        .split(',')
        .map(str::trim)
        .filter(|header| !header.is_empty())
    {
        // What it is is not shown: it may be a secret.
        let wrong = || {
            Failure::Usage(
                "telemetry.otlp_headers: there must be name=value, with commas between".to_owned(),
            )
        };
        let (name, value) = header.split_once('=').ok_or_else(wrong)?;
        let name = HeaderName::try_from(name.trim()).map_err(|_| wrong())?;
        let value = super::resource::unescape(value.trim());
        let mut value = HeaderValue::try_from(value).map_err(|_| wrong())?;
        value.set_sensitive(true);
        map.insert(name, value);
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_without_an_end_is_not_read_to_it() {
        use std::io::{Read as _, Write as _};
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let collector = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut some = [0; 1024];
            let _ = stream.read(&mut some);
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x1_0000));
            // Until nobody reads it.
            while stream.write_all(chunk.as_bytes()).is_ok() {}
        });
        // Another test may have.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let client = Client::new(&url, "", Duration::from_secs(60), runtime.handle()).unwrap();
        let error = runtime.block_on(client.post(&url, Vec::new())).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        drop(client);
        collector.join().unwrap();
    }

    #[test]
    fn headers_are_read_and_not_shown() {
        let map = parse("authorization=Bearer%20abc, x-team = data,").unwrap();
        assert_eq!(map["authorization"], "Bearer abc");
        assert_eq!(map["x-team"], "data");
        assert!(!format!("{map:?}").contains("abc"));
        for wrong in ["secret", "a b=secret", "a=%0asecret"] {
            let failure = parse(wrong).unwrap_err();
            assert!(!format!("{failure:?}").contains("secret"));
        }
    }
}
