//! The outside world, behind one small trait: what the device's clocks show. Everything else that
//! comes from outside (files, sockets, random bits) is passed in where an [`App`](crate::app::App) is
//! built.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime},
};

use tally_shared::time::Timestamp;

use crate::core::clock::Reading;

/// What the device's clocks show.
pub trait Clocks: Send + Sync {
    /// All of them, read together.
    fn reading(&self) -> Reading;

    /// The wall clock alone, for those who ask often.
    fn wall(&self) -> Timestamp {
        self.reading().wall
    }

    /// The time since the device started alone, for those who ask often.
    fn mono(&self) -> Duration {
        self.reading().mono
    }
}

/// The real clocks.
pub struct SystemClocks {
    boot: Arc<str>,
}

impl SystemClocks {
    /// The clocks of this device.
    pub fn new() -> Self {
        Self {
            boot: boot_id().into(),
        }
    }
}

impl Default for SystemClocks {
    fn default() -> Self {
        Self::new()
    }
}

impl Clocks for SystemClocks {
    fn reading(&self) -> Reading {
        Reading {
            wall: Timestamp::from_system_time(SystemTime::now()),
            mono: since_boot(),
            boot: Arc::clone(&self.boot),
        }
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_system_time(SystemTime::now())
    }

    fn mono(&self) -> Duration {
        since_boot()
    }
}

/// Time since the device started, sleep included.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn since_boot() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Time since the process started: where no clock of the system counts sleep, a restart is a reboot.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn since_boot() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Which start of the device this is.
fn boot_id() -> String {
    static FALLBACK: OnceLock<String> = OnceLock::new();
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Ok(id) = fs_err::read_to_string("/proc/sys/kernel/random/boot_id") {
        return id.trim().to_owned();
    }
    // Unknown: each process counts as a start of its own, so that its time is unproven until a contact.
    FALLBACK
        .get_or_init(|| {
            let started = Timestamp::from_system_time(SystemTime::now());
            format!(
                "process {} at {started} {:?}",
                std::process::id(),
                Instant::now()
            )
        })
        .clone()
}
