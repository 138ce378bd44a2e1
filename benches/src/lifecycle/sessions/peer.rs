//! The servers that are measured beside each other: ours, and a native PostgreSQL.

use crate::{
    hosts::{Host as _, Native},
    lifecycle::{
        Run,
        crowd::{Crowd, query},
        pgbench::Target,
        server::{IDLE_MS, Server, Setting},
    },
    pgwire::{Address, Client},
    process::tree,
    session::{Result, Session as _},
};
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_setaffinity},
};
use std::{fs, net::SocketAddr, thread};

/// The database that everything is measured in.
pub(super) const DATABASE: &str = "postgres";

/// Connections that a native server lets in, where nobody asks for more.
pub(super) const CONNECTIONS: usize = 1_200;

/// A running server.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    /// Of its first process.
    pub(super) id: u32,
    server: Kind,
}

enum Kind {
    Ours(Server),
    Native(Native),
}

/// Ours, whose database falls asleep after so many milliseconds without a session.
pub(super) fn ours(run: &Run, idle_ms: u64, more: &[Setting<'_>]) -> Result<Peer> {
    let mut settings = vec![(IDLE_MS, idle_ms)];
    settings.extend_from_slice(more);
    let server = Server::start(run, &settings)?;
    Ok(Peer {
        name: "Dormouse",
        address: server.pg,
        id: server.id(),
        server: Kind::Ours(server),
    })
}

/// A native server that lets so many connections in.
pub(super) fn native(run: &Run, connections: usize) -> Result<Peer> {
    let mut native = Native::new(&run.tools, &run.folder, true)?;
    native
        .check()
        .map_err(|error| format!("{error}: `cargo xtask tools` brings a PostgreSQL"))?;
    native.set(&format!("max_connections={connections}"));
    let home = run.folder.join("native");
    fs::create_dir(&home)?;
    native.start(&home.join("data"))?;
    let (id, address) = native.process();
    let Address::Tcp(address) = *address else {
        return Err("BUG: a native server listens on TCP".into());
    };
    Ok(Peer {
        name: "native",
        address,
        id,
        server: Kind::Native(native),
    })
}

impl Peer {
    /// Where pgbench finds it.
    pub(super) fn target(&self) -> Target {
        Target {
            name: self.name,
            address: self.address,
            user: "postgres".to_owned(),
            password: String::new(),
            database: DATABASE.to_owned(),
        }
    }

    /// A client.
    pub(super) fn connect(&self) -> Result<Client> {
        Client::connect(&Address::Tcp(self.address), DATABASE)
    }

    /// Lets the server run on one core alone, or on all. What it starts later inherits that.
    pub(super) fn pin(&self, one: bool) -> Result<()> {
        let mut cores = CpuSet::new();
        let count = thread::available_parallelism()?.get();
        (0..if one { 1 } else { count }).for_each(|core| cores.set(core));
        for process in tree(self.id)? {
            let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else {
                // It has ended meanwhile.
                continue;
            };
            for task in tasks {
                let task = task?.file_name();
                let task = task.to_str().and_then(|name| name.parse().ok());
                match sched_setaffinity(task.and_then(Pid::from_raw), &cores) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(format!("pinning to a core: {error}").into()),
                }
            }
        }
        Ok(())
    }

    /// Anonymous memory of all its processes, bytes; what several share counts once.
    pub(super) fn anonymous(&self) -> Result<u64> {
        anonymous(self.id)
    }

    /// Processor time that all its processes have had, those that have ended too, microseconds.
    pub(super) fn cpu_us(&self) -> Result<f64> {
        let mut ticks = 0;
        for process in tree(self.id)? {
            let stat = fs::read_to_string(format!("/proc/{process}/stat"));
            // The time of a process that has ended is its parent's.
            let ended = process == self.id;
            ticks += stat.ok().and_then(|stat| cpu(&stat, ended)).unwrap_or(0);
        }
        Ok(ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64)
    }

    /// Adds connections to a crowd, one after the other; each asks one query.
    pub(super) fn join(&self, crowd: &mut Crowd, count: usize) -> Result<()> {
        for nth in 0..count {
            let member = crowd
                .join(DATABASE)
                .and_then(|member| crowd.answer(member).map(|_| member))
                .map_err(|error| format!("{}, connection {nth}: {error}", self.name))?;
            crowd.ask(member, &query("select 1"))?;
            crowd.answer(member)?;
        }
        Ok(())
    }

    /// Waits until the database is asleep.
    pub(super) fn until_asleep(&self) -> Result<()> {
        match &self.server {
            Kind::Ours(server) => server.until_asleep(DATABASE).map(drop),
            Kind::Native(_) => Err("BUG: the databases of a native server never sleep".into()),
        }
    }

    /// Waits, with a client, until `sql` counts rows.
    pub(super) fn until(&self, client: &mut Client, sql: &str) -> Result<()> {
        // A client of the benchmark sees errors alone: no rows are a division by zero.
        let sql = format!("select 1 / least(count(*), 1) from {sql}");
        for _ in 0..10_000 {
            match client.execute(&sql) {
                Err(error) if error.to_string().contains("22012") => {}
                answer => return answer.map(drop),
            }
        }
        Err(format!("{}: never so: {sql}", self.name).into())
    }

    /// Ends the server. Its figures stand, however it ends.
    pub(super) fn stop(self) {
        let stopped = match self.server {
            Kind::Ours(server) => server.stop(),
            Kind::Native(mut native) => native.stop(),
        };
        if let Err(error) = stopped {
            eprintln!("  {}: {error}", self.name);
        }
    }
}

/// Anonymous memory of a process and all that come from it, bytes; what several share counts once.
pub(super) fn anonymous(id: u32) -> Result<u64> {
    let mut kib = 0;
    for process in tree(id)? {
        // A process that ends meanwhile has no memory.
        let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"));
        kib += text.ok().and_then(|text| pss_anon(&text)).unwrap_or(0);
    }
    match kib {
        0 => Err("no /proc/PID/smaps_rollup with Pss_Anon to read".into()),
        kib => Ok(kib * 1024),
    }
}

fn pss_anon(smaps_rollup: &str) -> Option<u64> {
    let line = smaps_rollup
        .lines()
        .find_map(|line| line.strip_prefix("Pss_Anon:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The user and system time in a `/proc/PID/stat`, with that of ended children or without.
fn cpu(stat: &str, ended: bool) -> Option<u64> {
    let fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let times: Vec<u64> = fields
        .take(4)
        .filter_map(|time| time.parse().ok())
        .collect();
    let [user, system, user_ended, system_ended] = times[..] else {
        return None;
    };
    let ended = if ended { user_ended + system_ended } else { 0 };
    Some(user + system + ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anonymous_memory() {
        let text = "0-1 ---p [rollup]\nPss:   50 kB\nPss_Anon:   7 kB\n";
        assert_eq!(pss_anon(text), Some(7));
        assert_eq!(pss_anon("Pss: 7 kB"), None);
    }

    #[test]
    fn processor_time() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 30 20 20 0";
        assert_eq!((cpu(stat, false), cpu(stat, true)), (Some(300), Some(350)));
        assert_eq!(cpu("7 (a) S", true), None);
    }
}
