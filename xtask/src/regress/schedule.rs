//! Which files are run, in the order of PostgreSQL's schedule.

use crate::{Failure, Result};

/// The files of `schedule`: all, or those `wanted` with what must come before them.
///
/// A group of the schedule may run side by side and need not: its files are listed one after the
/// other.
pub(super) fn choose(
    schedule: &str,
    wanted: &[String],
    always: Option<&str>,
) -> Result<Vec<String>> {
    let all = names(schedule);
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(&name.as_str())) {
        return Err(Failure::new(format!("'{unknown}' is not in the schedule")));
    }
    let chosen = |name: &&str| {
        wanted.is_empty() || always == Some(*name) || wanted.iter().any(|file| file == name)
    };
    Ok(all.into_iter().filter(chosen).map(str::to_owned).collect())
}

fn names(schedule: &str) -> Vec<&str> {
    schedule
        .lines()
        .filter_map(|line| line.trim().strip_prefix("test:"))
        .flat_map(str::split_whitespace)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEDULE: &str =
        "# a comment with test: in it\ntest: first\n\ntest: b a\n  test: last \n";

    #[test]
    fn all_in_their_order() {
        let all = choose(SCHEDULE, &[], Some("first")).ok().unwrap();
        assert_eq!(all, ["first", "b", "a", "last"]);
    }

    #[test]
    fn some_in_the_order_of_the_schedule() {
        let wanted = ["last".to_owned(), "b".to_owned()];
        let some = choose(SCHEDULE, &wanted, Some("first")).ok().unwrap();
        assert_eq!(some, ["first", "b", "last"]);
        assert_eq!(choose(SCHEDULE, &wanted, None).ok().unwrap(), ["b", "last"]);
    }

    #[test]
    fn an_unknown_file_is_refused() {
        assert!(choose(SCHEDULE, &["c".to_owned()], None).is_err());
    }
}
