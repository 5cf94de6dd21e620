//! Callers with wrong keys: counted, logged now and then, and slowed.
//!
//! Only the refusal of a wrong key waits. A right key never does, so nobody can slow an application
//! down by guessing at its side; and who waits gives way where connections run out.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::connection::{Connection, Source};

/// So many wrong keys in a row are answered at once: people mistype.
const FREE: u32 = 5;

/// The first wait; each further one is twice as long.
const WAIT_MIN: Duration = Duration::from_millis(50);

/// The longest wait.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A source that was quiet for so long starts anew.
const FORGET: Duration = Duration::from_mins(1);

/// Sources that are told apart; the rest counts as one.
const SOURCES_MAX: usize = 1024;

/// Between two lines in the log.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What was seen of callers with wrong keys.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    met: AtomicU64,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    sources: HashMap<Option<Source>, Count>,
    /// Wrong keys since the last line in the log.
    unlogged: u64,
    log_at: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    wrong: u32,
    last: Duration,
}

impl Strangers {
    /// How many wrong keys there were since the start.
    pub(super) fn met(&self) -> u64 {
        self.met.load(Ordering::Relaxed)
    }

    /// Takes note of somebody who is not let in at all.
    pub(super) fn turn_away(&self, source: Source, now: Duration, what: &str) {
        self.note(source, now, what);
    }

    /// Takes note of a wrong key at this time, and waits before it may be refused.
    pub(super) async fn meet(&self, connection: &Connection, now: Duration, what: &str) {
        let wait = self.note(connection.source(), now, what);
        if !wait.is_zero() {
            connection.idle_meanwhile();
            tokio::time::sleep(wait).await;
            connection.begin_work();
        }
    }

    fn note(&self, source: Source, now: Duration, what: &str) -> Duration {
        self.met.fetch_add(1, Ordering::Relaxed);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.unlogged += 1;
        if now >= seen.log_at {
            tracing::warn!(
                ?source,
                "refused {} requests with wrong keys; the last one: {what}",
                seen.unlogged
            );
            seen.unlogged = 0;
            seen.log_at = now.saturating_add(LOG_INTERVAL);
        }
        let mut key = Some(network_of(source));
        if seen.sources.len() >= SOURCES_MAX && !seen.sources.contains_key(&key) {
            seen.sources
                .retain(|_, count| now.saturating_sub(count.last) < FORGET);
            if seen.sources.len() >= SOURCES_MAX {
                key = None;
            }
        }
        let count = seen.sources.entry(key).or_default();
        if now.saturating_sub(count.last) >= FORGET {
            count.wrong = 0;
        }
        count.wrong = count.wrong.saturating_add(1);
        count.last = now;
        wait_after(count.wrong)
    }
}

fn wait_after(wrong: u32) -> Duration {
    match wrong.checked_sub(FREE + 1) {
        None => Duration::ZERO,
        Some(doublings) => WAIT_MIN
            .saturating_mul(2_u32.saturating_pow(doublings))
            .min(WAIT_MAX),
    }
}

/// One who has an IPv6 network has all of its addresses.
fn network_of(source: Source) -> Source {
    match source {
        Source::Address(IpAddr::V6(address)) => {
            let network = u128::from(address) >> 64 << 64;
            Source::Address(IpAddr::V6(Ipv6Addr::from(network)))
        }
        other => other,
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    const HERE: Source = Source::User(1000);

    #[test]
    fn a_few_wrong_keys_are_free_and_then_each_costs_more_up_to_a_second() {
        let strangers = Strangers::default();
        let waits: Vec<u128> = (0..12)
            .map(|_| strangers.note(HERE, Duration::ZERO, "test").as_millis())
            .collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(strangers.met(), 12);
    }

    #[test]
    fn another_source_pays_nothing_and_a_quiet_minute_forgets() {
        let strangers = Strangers::default();
        for _ in 0..20 {
            strangers.note(HERE, Duration::ZERO, "test");
        }
        let other = Source::User(1001);
        assert_eq!(
            strangers.note(other, Duration::ZERO, "test"),
            Duration::ZERO
        );
        assert_eq!(strangers.note(HERE, FORGET, "test"), Duration::ZERO);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_network_is_one_source() {
        let strangers = Strangers::default();
        for number in 0..5000 {
            strangers.note(Source::User(number), Duration::ZERO, "test");
        }
        let known = strangers.seen.lock().unwrap().sources.len();
        assert!(known <= SOURCES_MAX + 1, "{known}");
        let address = |text: &str| network_of(Source::Address(text.parse().unwrap()));
        assert_eq!(address("2001:db8::1"), address("2001:db8::ffff"));
        assert_ne!(address("2001:db8::1"), address("2001:db8:0:1::1"));
    }
}
