//! Every row is there, is as it was written, and is found by a scan as by an index.

use std::collections::BTreeMap;

use super::cell;
use crate::op::bulk_note;
use crate::payload::{checksum, payload};
use crate::session::Session;
use crate::state::{ACCOUNTS, BALANCE, Span, State, Table};
use crate::trouble::Trouble;

pub(super) async fn check(session: &Session, state: &State, seed: u64) -> Result<(), Trouble> {
    accounts(session, state).await?;
    log(session, state, seed).await?;
    bulk(session, state).await?;
    for (number, table) in &state.tables {
        of_table(session, *number, table).await?;
    }
    let mut scanned = vec![
        ("accounts".to_owned(), "id >= 0"),
        ("log".to_owned(), "client >= 0"),
        ("bulk".to_owned(), "client >= 0"),
    ];
    let tables = state.tables.keys();
    scanned.extend(tables.map(|number| (format!("t{number}"), "id >= 0")));
    for (table, condition) in scanned {
        scans_agree(session, &table, condition).await?;
    }
    session.run("RESET ALL").await.map(|_answer| ())
}

async fn accounts(session: &Session, state: &State) -> Result<(), Trouble> {
    let answer = session
        .run("SELECT id, balance FROM accounts ORDER BY id")
        .await?;
    let mut balances = Vec::new();
    for (row, id) in answer.rows.iter().zip(0..) {
        let found: u64 = cell(row, 0)?;
        if found != id {
            return Err(Trouble::Broken(format!(
                "accounts: id {found} where {id} belongs"
            )));
        }
        balances.push(cell::<i64>(row, 1)?);
    }
    let sum: i64 = balances.iter().sum();
    let right = BALANCE * ACCOUNTS as i64;
    if sum != right || balances.len() != ACCOUNTS {
        return Err(Trouble::Broken(format!(
            "accounts: {} rows with the sum {sum}, not {ACCOUNTS} with {right}",
            balances.len()
        )));
    }
    let mut pairs = balances.iter().zip(&state.balances).zip(0..);
    match pairs.find(|((found, expected), _)| found != expected) {
        Some(((found, expected), id)) => Err(Trouble::Broken(format!(
            "accounts: the balance of {id} is {found}, not {expected}"
        ))),
        None => Ok(()),
    }
}

async fn log(session: &Session, state: &State, seed: u64) -> Result<(), Trouble> {
    let sql = "SELECT client, seq, payload, crc FROM log ORDER BY client, seq";
    let rows = session.run(sql).await?.rows;
    let mut found = rows.iter();
    for (&client, span) in &state.log {
        for seq in span.first..=span.last {
            let Some(row) = found.next() else {
                return Err(missing("log", client, seq, *span, "the end"));
            };
            let at: (u32, u64) = (cell(row, 0)?, cell(row, 1)?);
            if at != (client, seq) {
                return Err(missing("log", client, seq, *span, &format!("{at:?}")));
            }
            let (text, crc): (String, u32) = (cell(row, 2)?, cell(row, 3)?);
            let expected = payload(seed, client, seq);
            if text != expected || crc != checksum(&expected) {
                return Err(Trouble::Broken(foreign(client, seq, &text, &expected, crc)));
            }
        }
    }
    match found.next() {
        Some(row) => Err(Trouble::Broken(format!(
            "log: a row of client {} with seq {} that was never committed here",
            cell::<u32>(row, 0)?,
            cell::<u64>(row, 1)?
        ))),
        None => Ok(()),
    }
}

fn missing(table: &str, client: u32, number: u64, span: Span, instead: &str) -> Trouble {
    Trouble::Broken(format!(
        "{table}: row {number} of client {client} is missing (rows {} to {} belong there); instead: \
         {instead}",
        span.first, span.last
    ))
}

fn foreign(client: u32, seq: u64, text: &str, expected: &str, crc: u32) -> String {
    let mut pairs = text.bytes().zip(expected.bytes());
    let at = pairs.position(|(found, right)| found != right);
    let at = at.unwrap_or_else(|| text.len().min(expected.len()));
    let around: String = text.chars().skip(at.saturating_sub(10)).take(60).collect();
    format!(
        "log: row {seq} of client {client} is foreign from byte {at} of {} (right length {}): \
         ...{around:?}; its crc is {crc}, that of what belongs there {}",
        text.len(),
        expected.len(),
        checksum(expected)
    )
}

async fn bulk(session: &Session, state: &State) -> Result<(), Trouble> {
    let note = bulk_note("client", "id");
    let sql = format!(
        "SELECT client, count(*), min(id), max(id), count(*) FILTER (WHERE note <> {note}) \
         FROM bulk GROUP BY client"
    );
    let mut found = BTreeMap::new();
    for row in session.run(&sql).await?.rows {
        let numbers: [u64; 4] = [
            cell(&row, 1)?,
            cell(&row, 2)?,
            cell(&row, 3)?,
            cell(&row, 4)?,
        ];
        found.insert(cell::<u32>(&row, 0)?, numbers);
    }
    let spans = state.bulk.iter().filter(|(_, span)| span.count() > 0);
    let expected: BTreeMap<u32, [u64; 4]> = spans
        .map(|(client, span)| (*client, [span.count(), span.first, span.last, 0]))
        .collect();
    if found == expected {
        return Ok(());
    }
    Err(Trouble::Broken(format!(
        "bulk: clients have [rows, first, last, foreign ones] {found:?}, not {expected:?}"
    )))
}

async fn of_table(session: &Session, number: u32, table: &Table) -> Result<(), Trouble> {
    let columns = table.columns.keys();
    let wrong: Vec<String> = columns
        .map(|column| format!("c{column} IS DISTINCT FROM {column}"))
        .collect();
    let sql = format!(
        "SELECT count(*), coalesce(min(id), 1), coalesce(max(id), 0), \
         count(*) FILTER (WHERE {}) FROM t{number}",
        wrong.join(" OR ")
    );
    let answer = session.run(&sql).await?;
    let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
    let found: [u64; 4] = [cell(row, 0)?, cell(row, 1)?, cell(row, 2)?, cell(row, 3)?];
    let expected = [table.rows, 1, table.rows, 0];
    if found == expected {
        return Ok(());
    }
    Err(Trouble::Broken(format!(
        "t{number}: [rows, first, last, wrong ones] are {found:?}, not {expected:?}"
    )))
}

/// The rows that a sequential scan finds are as many as those that the indexes find.
async fn scans_agree(session: &Session, table: &str, condition: &str) -> Result<(), Trouble> {
    let mut counts = Vec::new();
    for (sequential, index) in [("on", "off"), ("off", "on")] {
        let sql = format!(
            "SET enable_seqscan = {sequential}; SET enable_indexscan = {index}; \
             SET enable_indexonlyscan = {index}; SET enable_bitmapscan = {index}; \
             SELECT count(*) FROM {table} WHERE {condition}"
        );
        let answer = session.run(&sql).await?;
        let row = answer.rows.first().map_or(&[][..], Vec::as_slice);
        counts.push(cell::<u64>(row, 0)?);
    }
    if counts.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(());
    }
    Err(Trouble::Broken(format!(
        "{table}: by scan and by index the rows are {counts:?}"
    )))
}
