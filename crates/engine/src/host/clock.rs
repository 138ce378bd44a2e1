//! Clocks, calendars and randomness.

use std::time::Duration;

use wasmtime::{Caller, Linker};

use super::{Host, slice_mut, split, write_u32};
use crate::errno::Errno;

pub(super) fn link(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.func_wrap("env", "emscripten_date_now", |caller: Caller<'_, Host>| {
        caller.data().environment.realtime().as_nanos() as f64 / 1e6
    })?;
    linker.func_wrap("env", "emscripten_get_now", |caller: Caller<'_, Host>| {
        caller.data().environment.monotonic().as_nanos() as f64 / 1e6
    })?;
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "clock_time_get",
        |mut caller: Caller<'_, Host>, clock: i32, _precision: i64, at: u32| {
            let (memory, host) = split(&mut caller);
            let now = match clock {
                0 => host.environment.realtime(),
                1..=3 => host.environment.monotonic(),
                _ => return Errno::INVAL.0,
            };
            match slice_mut(memory, at, 8) {
                Ok(target) => {
                    target.copy_from_slice(&(now.as_nanos() as u64).to_le_bytes());
                    0
                }
                Err(errno) => errno.0,
            }
        },
    )?;
    linker.func_wrap(
        "wasi_snapshot_preview1",
        "random_get",
        |mut caller: Caller<'_, Host>, at: u32, len: u32| {
            let (memory, host) = split(&mut caller);
            match slice_mut(memory, at, len) {
                Ok(target) => {
                    host.environment.random(target);
                    0
                }
                Err(errno) => errno.0,
            }
        },
    )?;
    linker.func_wrap(
        "env",
        "_setitimer_js",
        |mut caller: Caller<'_, Host>, which: i32, ms: f64| {
            const ITIMER_REAL: i32 = 0;
            if which == ITIMER_REAL {
                let host = caller.data_mut();
                let now = host.environment.monotonic();
                host.timer.deadline =
                    (ms > 0.0).then(|| now + Duration::from_nanos((ms * 1e6).min(1e18) as u64));
                host.timer.fired = false;
            }
            0
        },
    )?;
    linker.func_wrap(
        "env",
        "_tzset_js",
        |mut caller: Caller<'_, Host>, timezone: u32, daylight: u32, standard: u32, summer: u32| {
            let (memory, _) = split(&mut caller);
            write_u32(memory, timezone, 0);
            write_u32(memory, daylight, 0);
            for name in [standard, summer] {
                if let Ok(target) = slice_mut(memory, name, 4) {
                    target.copy_from_slice(b"UTC\0");
                }
            }
        },
    )?;
    for name in ["_gmtime_js", "_localtime_js"] {
        linker.func_wrap(
            "env",
            name,
            |mut caller: Caller<'_, Host>, seconds: i64, at: u32| {
                let (memory, _) = split(&mut caller);
                write_calendar(memory, at, seconds);
                0
            },
        )?;
    }
    linker.func_wrap(
        "env",
        "_mktime_js",
        |mut caller: Caller<'_, Host>, at: u32| {
            let (memory, _) = split(&mut caller);
            let field = |index: u32| i64::from(super::read_u32(memory, at + 4 * index) as i32);
            let days = days_from_civil(field(5) + 1900, field(4) + 1, field(3));
            let seconds = days * 86_400 + field(2) * 3600 + field(1) * 60 + field(0);
            write_calendar(memory, at, seconds);
            seconds
        },
    )?;
    Ok(())
}

/// Writes `struct tm` (UTC) for a time in seconds since the Unix epoch.
fn write_calendar(memory: &mut [u8], at: u32, seconds: i64) {
    let days = seconds.div_euclid(86_400);
    let second = seconds.rem_euclid(86_400);
    let (year, month, day) = civil_from_days(days);
    let year_day = days - days_from_civil(year, 1, 1);
    let week_day = (days + 4).rem_euclid(7);
    let fields = [
        second % 60,
        second / 60 % 60,
        second / 3600,
        day,
        month - 1,
        year - 1900,
        week_day,
        year_day,
        0,
        0,
    ];
    for (index, value) in (0u32..).zip(fields) {
        write_u32(memory, at + 4 * index, value as i32 as u32);
    }
}

/// Days since 1970-01-01 of a date in the proleptic Gregorian calendar. Years begin in March
/// here, so that the leap day is the last of its year and months need no table.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let months = year * 12 + (month - 1);
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month = (month + 9) % 12;
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`]: year, month (1-12), day (1-31).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_round_trips() {
        for days in (-200_000..200_000).step_by(37) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
        assert_eq!(civil_from_days(0), (1970, 1, 1));
        assert_eq!(days_from_civil(2000, 2, 29), 11_016);
        assert_eq!(days_from_civil(2000, 14, 1), days_from_civil(2001, 2, 1));
    }
}
