//! The two HTTP requests that the crash test needs.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many databases have a backend.
///
/// # Errors
/// What went wrong, in words.
pub async fn awake(server: SocketAddr) -> Result<u64, String> {
    let document = request(server, "GET", "/health", "").await?;
    document["databases"]["awake"]
        .as_u64()
        .ok_or_else(|| format!("GET /health says no databases.awake: {document}"))
}

/// Makes a database.
///
/// # Errors
/// What went wrong, in words.
pub async fn create_database(server: SocketAddr, name: &str) -> Result<(), String> {
    let body = serde_json::json!({ "name": name }).to_string();
    request(server, "POST", "/v1/databases", &body)
        .await
        .map(|_document| ())
}

async fn request(
    server: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Value, String> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {server}\r\nconnection: close\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = match timeout(PATIENCE, exchange).await {
        Ok(answer) => answer.map_err(|error| format!("{method} {path}: {error}"))?,
        Err(_) => return Err(format!("{method} {path}: no answer")),
    };
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| format!("{method} {path}: {answer:?}"))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        return Err(format!("{method} {path}: {status} {body}"));
    }
    serde_json::from_str(body).map_err(|error| format!("{method} {path}: {error}: {body}"))
}
