//! Waiting for a condition on a value: level-triggered, bounded, and with the last value when it
//! gives up.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

use anyhow::bail;

/// How long anything that a test waits for may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Reads until `accept` likes the value.
///
/// # Errors
///
/// What `read` says, or the last value where none was accepted in time.
pub fn until<T: Debug>(
    what: &str,
    read: impl FnMut() -> crate::Result<T>,
    accept: impl Fn(&T) -> bool,
) -> crate::Result<T> {
    within(PATIENCE, what, read, accept)
}

/// As [`until`], for what may take longer.
///
/// # Errors
///
/// As [`until`].
pub fn within<T: Debug>(
    patience: Duration,
    what: &str,
    mut read: impl FnMut() -> crate::Result<T>,
    accept: impl Fn(&T) -> bool,
) -> crate::Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        let value = read()?;
        if accept(&value) {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited {patience:?} for {what}; the last value was {value:#?}");
        }
        std::thread::sleep(LOOK);
    }
}
