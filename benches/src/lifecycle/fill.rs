//! Many databases: made over many HTTP connections at once, written by many clients at once.

use super::{
    crowd::{Crowd, query},
    server::Server,
};
use crate::session::{Result, us};
use std::{
    collections::HashMap,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

/// HTTP connections that create at once.
const CREATORS: usize = 64;

/// Clients that write at once.
const WRITERS: usize = 16;

/// What is written into a database: a table, and a row in it.
pub(super) const WRITE: &str = "create table entry (id int primary key, value bigint not null); \
                                insert into entry values (1, 0)";

/// The same in a database that may have it already.
pub(super) const WRITE_AGAIN: &str = "create table if not exists entry (id int primary key, value bigint not null); \
     insert into entry values (1, 0) on conflict (id) do update set value = entry.value + 1";

/// A database by its number.
pub(super) fn name(number: usize) -> String {
    format!("d{number}")
}

/// Creates databases 0 to `count`; microseconds in all.
pub(super) fn create(server: &Server, count: usize) -> Result<f64> {
    let next = AtomicUsize::new(0);
    let start = Instant::now();
    thread::scope(|scope| {
        let creator = || -> Result<()> {
            let mut client = server.http("postgres")?;
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return Ok(());
                }
                client.create(&name(number))?;
                if number.is_multiple_of(20_000) && number > 0 {
                    eprintln!("  {number} databases, {:.0} s", us(start) / 1e6);
                }
            }
        };
        let creators: Vec<_> = (0..CREATORS.min(count))
            .map(|_| scope.spawn(creator))
            .collect();
        for creator in creators {
            creator
                .join()
                .map_err(|_| "BUG: a creator of databases panicked")??;
        }
        Ok(us(start))
    })
}

/// Runs a request in each of these databases, a connection for each, and leaves them; microseconds
/// in all.
pub(super) fn write(server: &Server, databases: Range<usize>, sql: &str) -> Result<f64> {
    let start = Instant::now();
    let request = query(sql);
    let mut crowd = Crowd::new(server.pg)?;
    let mut next = databases.start;
    let mut asked: HashMap<usize, bool> = HashMap::new();
    loop {
        while asked.len() < WRITERS && next < databases.end {
            asked.insert(crowd.join(&name(next))?, false);
            next += 1;
        }
        if asked.is_empty() {
            return Ok(us(start));
        }
        let member = crowd.next()?.checked()?.member;
        if asked.insert(member, true) == Some(true) {
            asked.remove(&member);
            crowd.leave(member)?;
        } else {
            crowd.ask(member, &request)?;
        }
    }
}
