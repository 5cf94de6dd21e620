//! Times as people say them; exact ones are in `--json`.

use std::time::Duration;

use tally_shared::time::Timestamp;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How long, to the precision that matters: `3 s`, `12 min`, `2 h 5 min`, `6 days`.
pub(super) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let minutes = seconds % HOUR / MINUTE;
    match seconds {
        0..MINUTE => format!("{seconds} s"),
        MINUTE..HOUR => format!("{minutes} min"),
        HOUR..DAY if minutes > 0 => format!("{} h {minutes} min", seconds / HOUR),
        HOUR..DAY => format!("{} h", seconds / HOUR),
        _ if seconds < 2 * DAY => format!("{} h", seconds / HOUR),
        _ => format!("{} days", seconds / DAY),
    }
}

/// The day of a time, in UTC.
pub(super) fn day(time: Timestamp) -> String {
    let text = time.to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}

/// A time in UTC, to its second: `2026-11-25 08:04:43`.
pub(super) fn moment(time: Timestamp) -> String {
    let text = time.to_string();
    let seconds = text.split(['.', 'Z']).next().unwrap_or_default();
    seconds.replace('T', " ")
}

/// A number of units.
pub(super) fn units(count: i64) -> String {
    match count {
        1 => "1 unit".to_owned(),
        count => format!("{count} units"),
    }
}

/// A number of bytes, to the precision that matters.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut unit = "bytes";
    let (mut whole, mut tenth) = (count, 0);
    for next in UNITS {
        if whole < 1024 {
            break;
        }
        (whole, tenth) = (whole / 1024, whole % 1024 * 10 / 1024);
        unit = next;
    }
    if unit == "bytes" || whole >= 10 {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{tenth} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_said_as_people_say_them() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (3_600, "1 h"),
            (7_500, "2 h 5 min"),
            (100_000, "27 h"),
            (600_000, "6 days"),
        ] {
            assert_eq!(span(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_moment_is_told_to_its_second() {
        let time = Timestamp::parse("2026-11-25T08:04:43.210Z").unwrap();
        assert_eq!(moment(time), "2026-11-25 08:04:43");
    }

    #[test]
    fn bytes_have_a_unit_that_fits() {
        for (count, expected) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_536, "1.5 KiB"),
            (50 << 30, "50 GiB"),
        ] {
            assert_eq!(bytes(count), expected);
        }
    }
}
