//! A peer that runs in a process of its own with its client: PGlite in Node.js, our library.
//!
//! The driver is asked on its standard input and answers on its standard output, one JSON object
//! a line; `benches/README.md` has the protocol. Only what the driver itself times counts.

use crate::{
    process::Running,
    samples::Budget,
    session::{Params, Result, Session},
};
use serde_json::{Value, json};
use std::{
    cell::RefCell,
    io::{BufRead as _, BufReader, Write as _},
    process::{ChildStdin, ChildStdout},
    rc::Rc,
};

pub(crate) struct Driver {
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Driver {
    /// Takes the ends of a process that was started with pipes, and waits until it is ready;
    /// gives its first line too.
    pub(crate) fn new(running: &mut Running) -> Result<(Self, Value)> {
        let input = running
            .child
            .stdin
            .take()
            .ok_or("the driver has no standard input")?;
        let output = running
            .child
            .stdout
            .take()
            .ok_or("the driver has no standard output")?;
        let mut driver = Self {
            input,
            output: BufReader::new(output),
        };
        let ready = driver.answer().map_err(|error| running.explain(error))?;
        if ready["ready"] != true {
            return Err(format!("the driver said {ready} before it was ready").into());
        }
        Ok((driver, ready))
    }

    /// One question, one answer.
    pub(crate) fn ask(&mut self, question: &Value) -> Result<Value> {
        self.input.write_all(format!("{question}\n").as_bytes())?;
        self.input.flush()?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the driver ended".into());
        }
        let answer: Value = serde_json::from_str(&line)
            .map_err(|error| format!("the driver said '{}': {error}", line.trim()))?;
        match answer.get("error") {
            Some(error) => Err(error.to_string().into()),
            None => Ok(answer),
        }
    }
}

/// A number in an answer.
pub(crate) fn number(answer: &Value, key: &str) -> Result<f64> {
    answer[key]
        .as_f64()
        .ok_or_else(|| format!("no number '{key}' in {answer}").into())
}

fn samples(answer: &Value) -> Result<Vec<f64>> {
    let samples = answer["samples_us"]
        .as_array()
        .ok_or("no 'samples_us' in an answer")?;
    Ok(samples.iter().filter_map(Value::as_f64).collect())
}

/// The driver's one database.
pub(crate) struct DriverSession(pub(crate) Rc<RefCell<Driver>>);

impl Session for DriverSession {
    fn simple(&mut self, sql: &str, budget: Budget) -> Result<Vec<f64>> {
        samples(&self.0.borrow_mut().ask(&json!({
            "op": "simple",
            "sql": sql,
            "warmup": budget.warmup,
            "iterations": budget.iterations,
            "limit_ms": budget.limit_ms,
        }))?)
    }

    fn prepared(&mut self, sql: &str, params: &[Params], budget: Budget) -> Result<Vec<f64>> {
        samples(&self.0.borrow_mut().ask(&json!({
            "op": "prepared",
            "sql": sql,
            "params": params,
            "warmup": budget.warmup,
            "iterations": budget.iterations,
            "limit_ms": budget.limit_ms,
        }))?)
    }

    fn transaction(&mut self, sql: &str, rows: &[Params]) -> Result<f64> {
        let question = json!({ "op": "transaction", "sql": sql, "params": rows });
        number(&self.0.borrow_mut().ask(&question)?, "us")
    }
}
