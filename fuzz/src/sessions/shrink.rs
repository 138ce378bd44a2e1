//! The least of a program that still makes a difference.

use super::program::Program;
use super::side::{Cast, Side};

/// Both servers.
#[derive(Debug, Clone, Copy)]
pub struct Sides {
    /// The one that is looked at.
    pub dormouse: Side,
    /// The one that is right.
    pub native: Side,
}

/// Two answers that are not the same.
#[derive(Debug, Clone)]
pub struct Difference {
    /// What was asked, and the error if Dormouse answered with one: a smaller program must differ in the same.
    kind: String,
    /// All of it, for people.
    pub text: String,
}

impl Sides {
    /// The first answer in which they differ.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub async fn compare(&self, program: &Program) -> Result<Option<Difference>, String> {
        let (left, right) = tokio::join!(self.dormouse.begin(program), self.native.begin(program));
        let mut left = left.map_err(|error| format!("dormouse: {error}"))?;
        let mut right = right.map_err(|error| format!("native: {error}"))?;
        let difference = difference(program, &mut left, &mut right).await;
        let (left, right) = tokio::join!(left.end(), right.end());
        right.map_err(|error| format!("native: {error}"))?;
        match difference {
            // What comes after it is no matter.
            Some(difference) => Ok(Some(difference)),
            None => left
                .map(|()| None)
                .map_err(|error| format!("dormouse: {error}")),
        }
    }

    /// Leaves ops out as long as the servers still differ, for at most so many runs.
    pub async fn shrink(
        &self,
        mut program: Program,
        mut told: Difference,
        holders_max: usize,
        mut runs: usize,
    ) -> (Program, Difference) {
        let mut size = program.ops.len().div_ceil(2);
        while size > 0 {
            let mut start = 0;
            let mut is_smaller = false;
            while start < program.ops.len() && runs > 0 {
                let mut candidate = program.clone();
                let end = (start + size).min(candidate.ops.len());
                candidate.ops.drain(start..end);
                if !candidate.is_fair(holders_max) {
                    start += size;
                    continue;
                }
                runs -= 1;
                match self.compare(&candidate).await {
                    Ok(Some(difference)) if difference.kind == told.kind => {
                        (program, told, is_smaller) = (candidate, difference, true);
                    }
                    Ok(_) | Err(_) => start += size,
                }
            }
            if runs == 0 {
                break;
            }
            if !is_smaller || size > 1 {
                size /= 2;
            }
        }
        (program, told)
    }
}

async fn difference(program: &Program, left: &mut Cast, right: &mut Cast) -> Option<Difference> {
    for (number, (session, op)) in program.ops.iter().enumerate() {
        let (ours, theirs) = tokio::join!(left.ask(*session, op), right.ask(*session, op));
        if ours != theirs {
            let code = ours
                .iter()
                .find_map(|line| line.split_once(" C=")?.1.split(' ').next());
            let kind = format!("{op} {}", code.unwrap_or_default());
            let [ours, theirs] = [ours, theirs].map(|lines| lines.join("\n            "));
            let text =
                format!("op {number} w{session}: {op}\n  dormouse: {ours}\n  native:   {theirs}");
            return Some(Difference { kind, text });
        }
    }
    let (ours, theirs) = tokio::join!(left.notifications(), right.notifications());
    let mut told = ours.iter().zip(&theirs).enumerate();
    let (session, (ours, theirs)) = told.find(|(_, (ours, theirs))| ours != theirs)?;
    Some(Difference {
        kind: "notifications".to_owned(),
        text: format!("notifications of w{session}\n  dormouse: {ours:?}\n  native:   {theirs:?}"),
    })
}
