//! The unit: one message there and back over loopback TCP, with a process on each side.

use crate::{samples::Budget, session::Result};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
};

/// About what `select 1` takes on the wire.
const MESSAGE: [u8; 70] = [b'd'; 70];

pub(crate) struct Echo {
    /// Ends when its standard input does, which is when this is dropped.
    _server: Child,
    stream: TcpStream,
}

impl Echo {
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let mut server = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("starting {}: {error}", program.display()))?;
        let output = server
            .stdout
            .take()
            .ok_or("tcp-echo has no standard output")?;
        let mut port = String::new();
        BufReader::new(output).read_line(&mut port)?;
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port.trim().parse()?))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            _server: server,
            stream,
        })
    }

    pub(crate) fn ping(&mut self, budget: Budget) -> Result<Vec<f64>> {
        let mut answer = [0; MESSAGE.len()];
        budget.run(|_| {
            self.stream.write_all(&MESSAGE)?;
            self.stream.read_exact(&mut answer)?;
            Ok(())
        })
    }
}
