//! The command line.

use crate::session::Result;
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

pub(crate) const HELP: &str = "\
Compares Dormouse with PGlite and a native PostgreSQL in one run on this machine.

Usage: cargo xtask bench [OPTIONS]

The table goes to standard output as Markdown, progress to standard error. A peer that cannot be
had is left out, and the table says why.

Options:
  --json FILE         Also write everything measured to FILE, rounds apart.
  --quick             A small run, to see that it works; its numbers mean little.
  --rounds N          Rounds of the short statements [15]
  --only WORD[,WORD]  Only these peers, of: native,
                      native-fsync-off, pglite, pglite-socket, inprocess, dormouse
  --work DIR          Where data folders go, removed at the end [/var/tmp]; the disk there
                      is the one that is measured
  --tools DIR         The folder that `cargo xtask tools` prints (given by xtask)
  --dormouse FILE     The server's program (given by xtask)
  --inprocess FILE    A program with our library that speaks the driver protocol of
                      benches/README.md (given by xtask when the example is there)
  -h, --help          This text
";

pub(crate) struct Args {
    pub(crate) help: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) only: Vec<String>,
    pub(crate) work: PathBuf,
    pub(crate) tools: PathBuf,
    pub(crate) dormouse: PathBuf,
    pub(crate) inprocess: Option<PathBuf>,
}

impl Args {
    pub(crate) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let disk = Path::new("/var/tmp");
        let mut args = Self {
            help: false,
            json: None,
            quick: false,
            rounds: 15,
            only: Vec::new(),
            work: if disk.is_dir() {
                disk.to_owned()
            } else {
                env::temp_dir()
            },
            tools: env::var_os("DORMOUSE_TEST_TOOLS")
                .unwrap_or_default()
                .into(),
            dormouse: beside_this_program("dormouse")?,
            inprocess: None,
        };
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let name = word.to_string_lossy().into_owned();
            let mut value = || words.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "-h" | "--help" => args.help = true,
                "--quick" => args.quick = true,
                "--json" => args.json = Some(value()?.into()),
                "--rounds" => args.rounds = value()?.to_string_lossy().parse()?,
                "--only" => {
                    args.only = value()?
                        .to_string_lossy()
                        .split(',')
                        .map(str::to_owned)
                        .collect();
                }
                "--work" => args.work = value()?.into(),
                "--tools" => args.tools = value()?.into(),
                "--dormouse" => args.dormouse = value()?.into(),
                "--inprocess" => args.inprocess = Some(value()?.into()),
                _ => return Err(format!("unknown option '{name}'\n\n{HELP}").into()),
            }
        }
        if args.rounds == 0 {
            return Err("--rounds must be at least 1".into());
        }
        Ok(args)
    }

    /// Whether a peer was asked for.
    pub(crate) fn wants(&self, host: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| word == host)
    }
}

/// A program that is built into the same folder.
pub(crate) fn beside_this_program(name: &str) -> Result<PathBuf> {
    Ok(env::current_exe()?.with_file_name(format!("{name}{}", env::consts::EXE_SUFFIX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Args> {
        Args::parse(words.iter().map(Into::into))
    }

    #[test]
    fn options() {
        let args = parse(&["--only", "native,pglite", "--rounds", "3", "--quick"]).unwrap();
        assert!(args.wants("native") && args.wants("pglite") && !args.wants("dormouse"));
        assert_eq!((args.rounds, args.quick), (3, true));
        assert!(parse(&[]).unwrap().wants("dormouse"));
        assert!(parse(&["--rounds", "0"]).is_err());
        assert!(parse(&["--rounds"]).is_err());
        assert!(parse(&["--nothing"]).is_err());
    }
}
