//! How the files went, as a table.

use std::{fmt, time::Duration};

/// How a file's program came to its end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with its session.
    Itself,
    /// The server closed a session in the middle: what follows in the file was not run.
    ConnectionLost,
    /// It was ended.
    OutOfTime,
}

/// How one file went.
pub(super) struct Outcome {
    pub(super) name: String,
    /// Lines that differ from what is expected.
    pub(super) lines: usize,
    pub(super) ended: Ended,
    pub(super) took: Duration,
}

impl Outcome {
    fn passed(&self) -> bool {
        self.lines == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, lines, .. } = self;
        let seconds = self.took.as_secs_f64();
        let word = match (self.passed(), self.ended) {
            (true, _) => return write!(f, "ok       {name:<40} {:>6} {seconds:>7.1} s", ""),
            (false, Ended::Itself) => "differs",
            (false, Ended::ConnectionLost) => "LOST",
            (false, Ended::OutOfTime) => "TIME",
        };
        write!(f, "{word:<8} {name:<40} {lines:>6} {seconds:>7.1} s")
    }
}

pub(super) fn summary(outcomes: &[Outcome]) -> String {
    let count = |which: &dyn Fn(&Outcome) -> bool| outcomes.iter().filter(|o| which(o)).count();
    let failed = |ended| count(&|outcome| !outcome.passed() && outcome.ended == ended);
    let took: Duration = outcomes.iter().map(|outcome| outcome.took).sum();
    format!(
        "{} of {} passed; {} differ, {} lost their connection, {} ran out of time; {:.0} s",
        count(&Outcome::passed),
        outcomes.len(),
        failed(Ended::Itself),
        failed(Ended::ConnectionLost),
        failed(Ended::OutOfTime),
        took.as_secs_f64()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_is_counted_once() {
        let outcome = |lines, ended| Outcome {
            name: "a".into(),
            lines,
            ended,
            took: Duration::from_secs(2),
        };
        let outcomes = [
            outcome(0, Ended::Itself),
            // Some files are expected to lose a session.
            outcome(0, Ended::ConnectionLost),
            outcome(3, Ended::Itself),
            outcome(4, Ended::ConnectionLost),
            outcome(5, Ended::OutOfTime),
        ];
        assert_eq!(
            summary(&outcomes),
            "2 of 5 passed; 1 differ, 1 lost their connection, 1 ran out of time; 10 s"
        );
        assert!(outcomes[1].to_string().starts_with("ok "));
        assert!(outcomes[3].to_string().starts_with("LOST "));
    }
}
