//! The least of a program that still makes a difference.

use super::program::Program;
use super::side::{Side, difference};

/// Both servers.
#[derive(Debug, Clone, Copy)]
pub struct Sides {
    /// The one that is looked at.
    pub dormouse: Side,
    /// The one that is right.
    pub native: Side,
}

impl Sides {
    /// How they differ.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub async fn compare(&self, program: &Program) -> Result<Option<String>, String> {
        let (left, right) = tokio::join!(self.dormouse.play(program), self.native.play(program));
        let left = left.map_err(|error| format!("dormouse: {error}"))?;
        let right = right.map_err(|error| format!("native: {error}"))?;
        Ok(difference(program, &left, &right))
    }

    /// Leaves ops out as long as the servers still differ, for at most so many runs.
    pub async fn shrink(
        &self,
        mut program: Program,
        mut told: String,
        holders_max: usize,
        mut runs: usize,
    ) -> (Program, String) {
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
                    Ok(Some(difference)) => {
                        (program, told, is_smaller) = (candidate, difference, true);
                    }
                    Ok(None) | Err(_) => start += size,
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
