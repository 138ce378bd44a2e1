//! A database much larger than what its backend may use: memory should follow the working set.

use super::{
    Run,
    disk::Taken,
    server::{BACKEND_BYTES, IDLE_MS, Server, data, put_data_aside},
    table::{Table, mib, ms, p50_p99},
    usage::Watch,
    wake,
};
use crate::{
    pgwire::{Address, Client},
    samples::Budget,
    session::{Result, Session as _, us},
};
use serde_json::json;
use std::{
    fs::{self, File},
    io::Read as _,
    path::Path,
    time::Instant,
};

/// What the backend may use, bytes.
const BACKEND_BYTES_MAX: u64 = 256 << 20;

/// Rows on a page of 8 KiB, with these bytes of padding each.
const ROWS_ON_PAGE: u64 = 7;
const PAD_BYTES: usize = 1_090;

/// Rows in one message of a COPY.
const ROWS_AT_ONCE: u64 = 64;

pub(super) fn run(run: &Run) -> Result<String> {
    let large = run.count(2_048, 256) as u64;
    let mut table = Table::new([
        "size",
        "work",
        "time",
        "MiB/s",
        "anonymous MiB before",
        "most during",
        "after",
    ]);
    let mut notes = String::new();
    for mib in [large / 4, large] {
        eprintln!("  {mib} MiB");
        // What was measured until then is shown all the same.
        match one(run, mib.max(1), &mut table) {
            Ok(note) => notes.push_str(&note),
            Err(error) => notes.push_str(&format!("{mib} MiB ended early: {error}\n")),
        }
        put_data_aside(run)?;
    }
    Ok(format!(
        "### A large database under a backend of {} MiB\n\n{table}\n{notes}",
        mib(BACKEND_BYTES_MAX)
    ))
}

/// Loads a database of so many MiB, reads it, lets it sleep and wakes it; a note about its files.
fn one(run: &Run, size: u64, table: &mut Table) -> Result<String> {
    let rows = size * 128 * ROWS_ON_PAGE;
    let server = Server::start(run, &[(BACKEND_BYTES, BACKEND_BYTES_MAX), (IDLE_MS, 100)])?;
    server.http("large")?.create("large")?;
    let mut client = Client::connect(&Address::Tcp(server.pg), "large")?;
    client.execute("create table big (id int primary key, val int not null, pad text not null)")?;

    let mut work = |what: &str, mib_read: u64, work: &mut dyn FnMut() -> Result<Option<String>>| {
        eprintln!("    {what}");
        let before = server.memory()?.anonymous;
        let watch = Watch::start(server.id());
        let start = Instant::now();
        let said = work()?;
        let us = us(start);
        let most = watch.stop()?;
        let speed = mib_read as f64 * 1e6 / us;
        table.row([
            format!("{size} MiB"),
            what.to_owned(),
            said.unwrap_or_else(|| ms(us) + " ms"),
            if mib_read > 0 {
                format!("{speed:.0}")
            } else {
                "–".to_owned()
            },
            mib(before),
            mib(most),
            mib(server.memory()?.anonymous),
        ]);
        Ok::<(), crate::session::Error>(())
    };
    work("load by COPY", size, &mut || {
        client
            .copy_in("copy big from stdin", copy(rows))
            .map(|()| None)
    })?;
    work("checkpoint", 0, &mut || {
        client.execute("checkpoint").map(|_| None)
    })?;
    for nth in ["first", "second"] {
        work(&format!("{nth} sequential scan"), size, &mut || {
            client.execute("select sum(val) from big").map(|_| None)
        })?;
    }
    let lookups = run.choose(20_000, 2_000);
    for (what, among) in [("any row", rows), ("1 % of the rows", rows / 100)] {
        work(&format!("{lookups} lookups by key, {what}"), 0, &mut || {
            let keys: Vec<_> = wake::some(among as usize, lookups)
                .map(|key| vec![json!(key + 1)])
                .collect();
            let budget = Budget {
                warmup: 0,
                iterations: lookups,
                limit_ms: 120_000,
            };
            let sql = "select val, length(pad) from big where id = $1";
            let [p50, p99] = p50_p99(&client.prepared(sql, &keys, budget)?);
            Ok(Some(format!("{p50} ms p50, {p99} ms p99")))
        })?;
    }
    drop(client);
    work("sleep", 0, &mut || {
        server.until_asleep("large").map(|_| None)
    })?;
    work("wake, to the first row", 0, &mut || {
        let woken = wake::one(&server, "large", "select val from big where id = 1")?;
        Ok(Some(ms(woken.row_us) + " ms"))
    })?;
    server.until_asleep("large")?;
    server.stop()?;
    let taken = Taken::by(&data(run))?;
    let (read, read_us) = read_all(&data(run))?;
    Ok(format!(
        "{size} MiB of pages: {} MiB on disk in {} files; this program reads all its files at \
         {:.0} MiB/s.\n",
        mib(taken.bytes),
        taken.files,
        read as f64 / f64::from(1 << 20) * 1e6 / read_us
    ))
}

/// Rows as COPY wants them, some in each message.
fn copy(rows: u64) -> impl Iterator<Item = Vec<u8>> {
    let pad = "p".repeat(PAD_BYTES);
    (0..rows.div_ceil(ROWS_AT_ONCE)).map(move |nth| {
        let first = nth * ROWS_AT_ONCE + 1;
        let last = (first + ROWS_AT_ONCE - 1).min(rows);
        (first..=last)
            .flat_map(|id| format!("{id}\t{}\t{pad}\n", id * 7919 % 100_003).into_bytes())
            .collect()
    })
}

/// Reads every file below a folder: bytes, and microseconds.
fn read_all(folder: &Path) -> Result<(u64, f64)> {
    let mut piece = vec![0; 1 << 20];
    let (mut bytes, mut folders) = (0, vec![folder.to_owned()]);
    let start = Instant::now();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let mut file = File::open(path)?;
            loop {
                match file.read(&mut piece)? {
                    0 => break,
                    n => bytes += n as u64,
                }
            }
        }
    }
    Ok((bytes, us(start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_once() {
        let text: Vec<u8> = copy(130).flatten().collect();
        let text = String::from_utf8(text).unwrap();
        let ids: Vec<u64> = text
            .lines()
            .map(|line| line.split('\t').next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(ids, (1..=130).collect::<Vec<u64>>());
    }
}
