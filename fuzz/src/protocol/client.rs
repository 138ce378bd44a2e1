//! A connection that sends whatever it is told to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;
use wire::pg::Frame;

use super::opening::Opening;

/// What a server sent.
#[derive(Debug)]
pub enum Incoming {
    /// A message.
    Frame(Frame),
    /// Bytes that are no message.
    Garbled(String),
    /// It closed the connection, or it broke.
    Closed,
}

/// A connection. What the server sends is read while this one writes.
#[derive(Debug)]
pub struct Client {
    writer: OwnedWriteHalf,
    incoming: UnboundedReceiver<Incoming>,
    /// We have closed our direction. The server then may give the connection up amid an answer.
    is_half_closed: Arc<AtomicBool>,
    /// The connection has ended.
    is_closed: bool,
}

/// Why a connection did not begin.
#[derive(Debug)]
pub enum NotOpened {
    /// No connection, or it broke.
    Broken(io::Error),
    /// A wish for encryption was not refused by an `N`.
    Wrong(u8),
    /// Nothing came in time.
    Silent,
}

impl From<io::Error> for NotOpened {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

impl Client {
    /// Connects and sends the first packets.
    ///
    /// # Errors
    /// [`NotOpened`].
    pub async fn open(
        address: SocketAddr,
        opening: &Opening,
        patience: Duration,
    ) -> Result<Self, NotOpened> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        for wish in &opening.wishes {
            let mut packet = 8_u32.to_be_bytes().to_vec();
            packet.extend(wish.to_be_bytes());
            stream.write_all(&packet).await?;
            let mut answer = [0];
            let read = timeout(patience, stream.read_exact(&mut answer)).await;
            read.map_err(|_| NotOpened::Silent)??;
            if answer != *b"N" {
                return Err(NotOpened::Wrong(answer[0]));
            }
        }
        stream.write_all(&opening.packet.bytes).await?;
        let (reader, writer) = stream.into_split();
        let (sender, incoming) = mpsc::unbounded_channel();
        let is_half_closed = Arc::new(AtomicBool::new(false));
        tokio::spawn(read(reader, sender, Arc::clone(&is_half_closed)));
        Ok(Self {
            writer,
            incoming,
            is_half_closed,
            is_closed: false,
        })
    }

    /// Sends bytes, the first of them in pieces of these sizes. False if the server takes no more.
    pub async fn send(&mut self, mut bytes: &[u8], pieces: &[usize]) -> bool {
        for piece in pieces {
            let (first, rest) = bytes.split_at((*piece).min(bytes.len()));
            if self.writer.write_all(first).await.is_err() {
                return false;
            }
            // So that the other side sees them as they are.
            tokio::task::yield_now().await;
            bytes = rest;
        }
        self.writer.write_all(bytes).await.is_ok()
    }

    /// Closes our direction.
    pub async fn half_close(&mut self) {
        self.is_half_closed.store(true, Ordering::Release);
        // It may be closed already.
        let _ = self.writer.shutdown().await;
    }

    /// The next message; `None` if nothing came for so long.
    pub async fn next(&mut self, patience: Duration) -> Option<Incoming> {
        if self.is_closed {
            return Some(Incoming::Closed);
        }
        let incoming = timeout(patience, self.incoming.recv()).await.ok()?;
        let incoming = incoming.unwrap_or(Incoming::Closed);
        self.is_closed = !matches!(incoming, Incoming::Frame(_));
        Some(incoming)
    }
}

async fn read(
    mut reader: OwnedReadHalf,
    sender: UnboundedSender<Incoming>,
    may_be_cut: Arc<AtomicBool>,
) {
    let mut buffer = BytesMut::new();
    loop {
        loop {
            let incoming = match Frame::split(&mut buffer, 1 << 26) {
                Ok(Some(frame)) => Incoming::Frame(frame),
                Ok(None) => break,
                Err(error) => {
                    Incoming::Garbled(format!("{error}: {:02x?}", &buffer[..buffer.len().min(40)]))
                }
            };
            let is_last = matches!(incoming, Incoming::Garbled(_));
            if sender.send(incoming).is_err() || is_last {
                return;
            }
        }
        match reader.read_buf(&mut buffer).await {
            Ok(1..) => {}
            Ok(0) if !buffer.is_empty() && !may_be_cut.load(Ordering::Acquire) => {
                let left = format!("{} bytes at the end are no message", buffer.len());
                // Nobody may listen any more.
                let _ = sender.send(Incoming::Garbled(left));
                return;
            }
            Ok(0) | Err(_) => return,
        }
    }
}
