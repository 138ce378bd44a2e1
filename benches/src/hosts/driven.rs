//! Engines without a server: a driver process with the engine and its client in it.

use super::{Created, Host, NOT_RUNNING, Started};
use crate::{
    driver::{Driver, DriverSession, number},
    process::{Memory, Running},
    session::{Result, Session, us},
};
use serde_json::json;
use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    process::Command,
    rc::Rc,
    time::Instant,
};

pub(crate) struct Driven {
    name: &'static str,
    ways: &'static [&'static str],
    /// The program and its first arguments; the data folder comes after them.
    command: Option<Vec<PathBuf>>,
    tools: PathBuf,
    process: Option<(Running, Rc<RefCell<Driver>>)>,
}

impl Driven {
    /// PGlite under Node.js.
    pub(crate) fn pglite(tools: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("node/pglite.mjs");
        Self {
            name: "pglite",
            ways: &["PGlite in Node.js"],
            command: Some(vec!["node".into(), script]),
            tools: tools.to_owned(),
            process: None,
        }
    }

    /// Our library; `program` speaks the driver protocol.
    pub(crate) fn inprocess(tools: &Path, program: Option<PathBuf>) -> Self {
        Self {
            name: "inprocess",
            ways: &["Dormouse in process"],
            command: program.map(|program| vec![program]),
            tools: tools.to_owned(),
            process: None,
        }
    }

    fn driver(&self) -> &Rc<RefCell<Driver>> {
        &self.process.as_ref().expect(NOT_RUNNING).1
    }
}

impl Host for Driven {
    fn name(&self) -> &'static str {
        self.name
    }

    fn ways(&self) -> &'static [&'static str] {
        self.ways
    }

    fn check(&self) -> Result<()> {
        let command = self
            .command
            .as_deref()
            .ok_or("no driver program was named (--inprocess)")?;
        for file in command.iter().filter(|file| file.is_absolute()) {
            if !file.exists() {
                return Err(format!("{} is not there", file.display()).into());
            }
        }
        Ok(())
    }

    fn start(&mut self, data: &Path) -> Result<Started> {
        let words = self
            .command
            .as_deref()
            .ok_or("no driver program was named")?;
        let (program, args) = words.split_first().ok_or("no driver program was named")?;
        let mut command = Command::new(program);
        command
            .args(args)
            .arg(data)
            .env("DORMOUSE_TEST_TOOLS", &self.tools);
        let start = Instant::now();
        let mut running = Running::start(&mut command, &data.with_extension("log"), true)?;
        let (driver, ready) = Driver::new(&mut running)?;
        let ready_us = us(start);
        self.process = Some((running, Rc::new(RefCell::new(driver))));
        Ok(Started {
            ready_us,
            open_us: ready["open_us"].as_f64(),
            version: ready["version"]
                .as_str()
                .unwrap_or("unknown version")
                .to_owned(),
        })
    }

    fn stop(&mut self) -> Result<()> {
        let Some((running, driver)) = self.process.take() else {
            return Ok(());
        };
        // The end of its standard input is the driver's reason to end.
        drop(driver);
        running.wait()
    }

    fn database(&self, _way: &str) -> &'static str {
        super::DATABASE
    }

    fn session(&mut self, _way: &str) -> Result<Box<dyn Session>> {
        Ok(Box::new(DriverSession(Rc::clone(self.driver()))))
    }

    fn create(&mut self, _way: &str, name: &str) -> Result<Created> {
        let question = json!({ "op": "create", "name": name });
        let answer = self.driver().borrow_mut().ask(&question)?;
        Ok(Created {
            create_us: number(&answer, "us")?,
            first_us: number(&answer, "first_us")?,
        })
    }

    fn release(&mut self) -> Result<()> {
        self.driver()
            .borrow_mut()
            .ask(&json!({ "op": "release" }))
            .map(drop)
    }

    fn memory(&self) -> Result<Memory> {
        self.process.as_ref().expect(NOT_RUNNING).0.memory()
    }
}
