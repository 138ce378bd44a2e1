//! A keeper's work within one session of one database.

use std::time::Instant;

use tokio::join;

use crate::checker::SETTING_BASE;
use crate::member::Member;
use crate::phase::Phase;
use crate::random::Random;
use crate::session::{Answer, Session};
use crate::shared::{Event, Shared};
use crate::transaction::{End, Style, Transaction};
use crate::trouble::Trouble;
use crate::workload::Kind;

/// Kinds of an ordinary transaction.
const ORDINARY: [(u64, Kind); 3] = [
    (4, Kind::Transfers),
    (5, Kind::Lists),
    (2, Kind::Definitions),
];

/// Kinds of a large one.
const LARGE: [(u64, Kind); 2] = [(4, Kind::Bulk), (1, Kind::Lists)];

/// What costs Postgres much, and changes no content.
const UPKEEP: [&str; 8] = [
    "CHECKPOINT",
    "CHECKPOINT",
    "VACUUM",
    "VACUUM (ANALYZE) log",
    "VACUUM (FREEZE) accounts",
    "VACUUM FULL bulk",
    "REINDEX TABLE log",
    "CLUSTER bulk USING bulk_pkey",
];

/// SQLSTATE of a division by zero.
const DIVISION_BY_ZERO: &str = "22012";

#[derive(Debug, Clone, Copy)]
enum Step {
    Ordinary,
    Pipelined,
    Large,
    Upkeep,
    Setting,
    Look,
}

const STEPS: [(u64, Step); 6] = [
    (72, Step::Ordinary),
    (10, Step::Pipelined),
    (5, Step::Large),
    (4, Step::Upkeep),
    (3, Step::Setting),
    (6, Step::Look),
];

/// A session, and what it works on.
#[derive(Debug)]
pub struct Visit<'a> {
    /// The session.
    pub session: &'a Session,
    /// Its database.
    pub member: &'a Member,
    /// What all share.
    pub shared: &'a Shared,
}

impl Visit<'_> {
    /// One step of work.
    ///
    /// # Errors
    /// [`Trouble`]
    pub async fn step(&self, random: &mut Random) -> Result<(), Trouble> {
        if !self.member.model.lock().head().is_set_up() {
            return self.transact(&Transaction::set_up()).await;
        }
        match random.weighted(&STEPS).unwrap_or(Step::Ordinary) {
            Step::Ordinary => self.transact(&self.any(random, &ORDINARY)).await,
            Step::Pipelined => self.pipeline(random).await,
            Step::Large => {
                let transaction = self.any(random, &LARGE);
                self.shared.tell(Event::Began(Phase::Bulk));
                self.transact(&transaction).await
            }
            Step::Upkeep => {
                let sql = random.pick(&UPKEEP).copied().unwrap_or("CHECKPOINT");
                self.shared.tell(Event::Began(Phase::Bulk));
                self.session.run(sql).await?;
                self.shared.counters.upkeep.add();
                Ok(())
            }
            Step::Setting => self.alter_system().await,
            Step::Look => self.look().await,
        }
    }

    fn any(&self, random: &mut Random, kinds: &[(u64, Kind)]) -> Transaction {
        let model = self.member.model.lock();
        Transaction::any(random, kinds, model.head(), &self.member.clients)
    }

    /// Sends a transaction, and waits for its answer.
    ///
    /// # Errors
    /// [`Trouble`]
    pub async fn transact(&self, transaction: &Transaction) -> Result<(), Trouble> {
        let number = self.member.model.lock().sent() + 1;
        let statements = transaction.statements(self.shared.seed, number);
        let text = statements.join("; ");
        match transaction.style {
            Style::Block => {
                let text = format!("BEGIN; {text}; COMMIT");
                self.commit(transaction, &text, Some(2)).await
            }
            Style::Implicit => self.commit(transaction, &text, Some(1)).await,
            Style::Simple | Style::Extended => {
                self.session.run("BEGIN").await?;
                self.run_each(&statements, transaction.style).await?;
                self.end(transaction).await
            }
        }
    }

    /// Runs statement by statement. The last one numbers the transaction.
    async fn run_each(&self, statements: &[String], style: Style) -> Result<(), Trouble> {
        let mut touched = None;
        for statement in statements {
            touched = match style {
                Style::Extended => Some(self.session.execute(statement).await?),
                _ => self.session.run(statement).await?.counts.last().copied(),
            };
        }
        numbered(touched)
    }

    async fn end(&self, transaction: &Transaction) -> Result<(), Trouble> {
        match transaction.end {
            End::Commit => return self.commit(transaction, "COMMIT", None).await,
            End::Rollback => {
                self.session.run("ROLLBACK").await?;
            }
            End::Failure => {
                match self.session.run("SELECT 1 / 0").await {
                    Err(error) if error.is(DIVISION_BY_ZERO) => {}
                    Err(error) => return Err(error),
                    Ok(answer) => {
                        return Err(Trouble::Broken(format!("1 / 0 is {:?}", answer.rows)));
                    }
                }
                self.session.run("COMMIT").await?;
            }
        }
        self.shared.counters.rollbacks.add();
        Ok(())
    }

    /// Sends the message that commits. `numbered_at` says where, from the end, the statement is
    /// that numbers the transaction, if it is in this message.
    async fn commit(
        &self,
        transaction: &Transaction,
        text: &str,
        numbered_at: Option<usize>,
    ) -> Result<(), Trouble> {
        let number = self.member.model.lock().send(&transaction.lasting());
        self.await_commit(number, text, numbered_at).await
    }

    async fn await_commit(
        &self,
        number: u64,
        text: &str,
        numbered_at: Option<usize>,
    ) -> Result<(), Trouble> {
        let Answer { counts, .. } = self.session.run(text).await?;
        self.member.model.lock().acknowledge(number, Instant::now());
        self.shared.counters.commits.add();
        match numbered_at {
            Some(at) => numbered(counts.iter().rev().nth(at - 1).copied()),
            None => Ok(()),
        }
    }

    /// Three transactions of one message each, sent without waiting for the answers.
    async fn pipeline(&self, random: &mut Random) -> Result<(), Trouble> {
        let mut sent = Vec::new();
        for _ in 0..3 {
            let ops = self.any(random, &ORDINARY).lasting();
            let transaction = Transaction::committed(ops, Style::Implicit);
            let number = self.member.model.lock().send(&transaction.lasting());
            let statements = transaction.statements(self.shared.seed, number);
            sent.push((number, statements.join("; ")));
        }
        let [(first, one), (second, two), (third, three)] = sent.as_slice() else {
            return Ok(());
        };
        // Each is put on the wire when it is first polled: in this order.
        let done = join!(
            biased;
            self.await_commit(*first, one, Some(1)),
            self.await_commit(*second, two, Some(1)),
            self.await_commit(*third, three, Some(1)),
        );
        done.0.and(done.1).and(done.2)
    }

    async fn alter_system(&self) -> Result<(), Trouble> {
        let value = self.member.model.lock().send_setting();
        let milliseconds = SETTING_BASE + value;
        self.session
            .run(&format!(
                "ALTER SYSTEM SET deadlock_timeout = {milliseconds}"
            ))
            .await?;
        self.member
            .model
            .lock()
            .acknowledge_setting(value, Instant::now());
        self.shared.counters.settings.add();
        Ok(())
    }

    /// Reads what is known.
    async fn look(&self) -> Result<(), Trouble> {
        let sql = "SELECT (SELECT n FROM version), (SELECT sum(balance) FROM accounts), \
                   (SELECT count(*) FROM log), (SELECT count(*) FROM bulk)";
        let found = self.session.run(sql).await?.rows;
        let model = self.member.model.lock();
        let head = model.head();
        let log: u64 = head.log.values().map(|span| span.count()).sum();
        let numbers = [
            model.sent().to_string(),
            head.balances.iter().sum::<i64>().to_string(),
            log.to_string(),
            head.bulk_rows().to_string(),
        ];
        let expected = [numbers.map(Some).to_vec()];
        if found == expected {
            return Ok(());
        }
        Err(Trouble::Broken(format!(
            "[number, sum, log, bulk] are {found:?}, not {expected:?}"
        )))
    }
}

/// The statement that numbers a transaction touched one row.
fn numbered(touched: Option<u64>) -> Result<(), Trouble> {
    match touched {
        Some(1) => Ok(()),
        other => Err(Trouble::Broken(format!(
            "the version before this transaction is not what it was: {other:?} rows match"
        ))),
    }
}
