//! The unit of the comparison: a server that sends back what it gets, as soon as it gets it.
//!
//! Prints its port, then serves one connection after another until its standard input ends.

use std::{
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process, thread,
};

fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?.port());
    thread::spawn(|| {
        // Whoever started this has gone when its end of the pipe closes.
        let mut end = Vec::new();
        let _ = io::stdin().read_to_end(&mut end);
        process::exit(0);
    });
    for stream in listener.incoming() {
        // A client that goes away in the middle is no reason to stop.
        let _ = echo(stream?);
    }
    Ok(())
}

fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = [0; 64 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            n => stream.write_all(&buffer[..n])?,
        }
    }
}
