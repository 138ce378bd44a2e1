//! `dormouse password`.

use std::io::{self, BufRead as _, IsTerminal as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::failure::Failure;

/// Longer than any password: a file that was given by mistake is not read to its end.
const BYTES_MAX: u64 = 4096;

/// Prints the verifier of a password, which is read from the terminal or from standard input.
pub(crate) fn run() -> Result<(), Failure> {
    let password = if io::stdin().is_terminal() {
        let password = ask("Password: ")?;
        if password != ask("Again: ")? {
            return Err(Failure::Usage("the passwords are not the same".to_owned()));
        }
        password
    } else {
        read_line()?
    };
    if password.is_empty() {
        return Err(Failure::Usage("the password is empty".to_owned()));
    }
    let verifier = server::verifier_of(&password).map_err(|error| {
        Failure::unavailable(format!(
            "the system gave no random bytes for a salt: {error}"
        ))
    })?;
    super::print(&format!("{}\n", *verifier.to_text()));
    Ok(())
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, Failure> {
    let hidden = Hidden::begin().map_err(|error| unreadable(&error.into()))?;
    eprint!("{prompt}");
    let line = read_line();
    drop(hidden);
    eprintln!();
    line
}

fn read_line() -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::with_capacity(BYTES_MAX as usize));
    let read = io::Read::take(io::stdin().lock(), BYTES_MAX).read_line(&mut line);
    read.map_err(|error| unreadable(&error))?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}

fn unreadable(error: &io::Error) -> Failure {
    Failure::unavailable(format!("cannot read the password: {error}"))
}

/// What is typed is not shown, as long as this lives.
struct Hidden(Termios);

impl Hidden {
    fn begin() -> rustix::io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &hidden)?;
        Ok(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // There is nobody to tell that it did not work.
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}
