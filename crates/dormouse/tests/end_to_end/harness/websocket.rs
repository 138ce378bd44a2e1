//! A client of WebSockets.

use std::net::TcpStream;

use serde_json::Value;
use tungstenite::client::IntoClientRequest as _;
use tungstenite::http::HeaderValue;
use tungstenite::{Message, WebSocket};

use super::{PATIENCE, Server};

/// A client of `dormouse.v1`.
pub(crate) struct Client {
    pub(crate) socket: WebSocket<TcpStream>,
    /// What the server said first.
    pub(crate) hello: Value,
}

impl Client {
    #[track_caller]
    pub(crate) fn open(server: &Server, database: &str) -> Self {
        Self::open_as(server, database, None)
    }

    /// With a token.
    #[track_caller]
    pub(crate) fn open_as(server: &Server, database: &str, token: Option<&str>) -> Self {
        let path = format!("/v1/databases/{database}/ws");
        let mut socket = connect_as(server, &path, Some("dormouse.v1"), token).unwrap();
        let hello = read_json(&mut socket).unwrap();
        Self { socket, hello }
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.socket
            .send(Message::text(message.to_string()))
            .unwrap();
    }

    #[track_caller]
    pub(crate) fn read(&mut self) -> Value {
        read_json(&mut self.socket).unwrap()
    }

    #[track_caller]
    pub(crate) fn ask(&mut self, message: &Value) -> Value {
        self.send(message);
        self.read()
    }

    /// Why the server closes, once it has said everything else.
    #[track_caller]
    pub(crate) fn closed(&mut self) -> (u16, String) {
        loop {
            match self.socket.read() {
                Ok(Message::Close(Some(frame))) => {
                    return (frame.code.into(), frame.reason.to_string());
                }
                Ok(_) => {}
                Err(error) => panic!("it was not closed: {error}"),
            }
        }
    }
}

pub(crate) fn connect(
    server: &Server,
    path: &str,
    protocol: Option<&'static str>,
) -> Result<WebSocket<TcpStream>, u16> {
    connect_as(server, path, protocol, None)
}

pub(crate) fn connect_as(
    server: &Server,
    path: &str,
    protocol: Option<&'static str>,
    token: Option<&str>,
) -> Result<WebSocket<TcpStream>, u16> {
    let mut request = format!("ws://{}{path}", server.http)
        .into_client_request()
        .unwrap();
    if let Some(protocol) = protocol {
        let value = HeaderValue::from_static(protocol);
        request
            .headers_mut()
            .insert("sec-websocket-protocol", value);
    }
    if let Some(token) = token {
        let value = HeaderValue::try_from(format!("Bearer {token}")).unwrap();
        request.headers_mut().insert("authorization", value);
    }
    let stream = TcpStream::connect(server.http).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    match tungstenite::client(request, stream) {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn read_json(socket: &mut WebSocket<TcpStream>) -> Result<Value, tungstenite::Error> {
    loop {
        if let Message::Text(text) = socket.read()? {
            return Ok(serde_json::from_str(&text).unwrap());
        }
    }
}
