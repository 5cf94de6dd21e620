//! Whether the server can be reached, and when to try again.
//!
//! The link is the state that all licences share: one server, one set of credentials. While it is
//! down, a single operation at a time tries it; a success lets all others go. A licence's own trouble
//! is not the link's, so that one cannot delay another.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tally_shared::wire::ErrorCode;

use super::{Policy, Random, book::Pause};

/// The longest pause between two tries of the server.
const BACKOFF_MAX: Duration = Duration::from_mins(5);

/// How long syncing rests after the server refused the credentials; somebody has to mend them, and on
/// demand it is tried at once.
const STOPPED_PAUSE: Duration = Duration::from_mins(5);

/// Whether the agent may use the network: for drills.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NetworkMode {
    /// The agent may use the network.
    #[default]
    Online,
    /// The agent acts as if there were no network.
    Offline,
}

/// Whether the server can be reached, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It was reached at the last try.
    Online,
    /// The network is switched off, for a drill.
    Offline,
    /// It was not reached at the last try, or did not answer validly.
    Unreachable,
    /// It refuses the credentials.
    Refused,
    /// What is owed was recorded for another server: this one is left alone.
    OtherServer,
}

/// What is known of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Its last answer was complete and valid.
    Up,
    /// Something was sent and not answered validly.
    Doubtful,
    /// It could not be reached, or was not tried yet.
    Down,
}

/// The state that all licences share.
#[derive(Clone, Debug)]
pub struct Link {
    mode: NetworkMode,
    /// Whether what is owed was recorded for another server.
    is_elsewhere: bool,
    reach: Reach,
    pause: Pause,
    /// Why the server refuses the credentials, if it does.
    stopped: Option<ErrorCode>,
    /// Whether the clock was corrected since the last valid answer.
    date_corrected: bool,
    /// When the server last gave a valid answer, on the monotonic clock.
    reached_at: Option<Duration>,
    /// Since when its state has been what it is, on the monotonic clock.
    since: Duration,
}

/// At most this many operations are under way at once, so that a reconnecting agent with many
/// licences stays far from the server's rate limits (200 requests in 10 s for an address).
const BUSY_MAX: usize = 8;

impl Link {
    pub(super) const fn new(now: Duration) -> Self {
        Self {
            mode: NetworkMode::Online,
            is_elsewhere: false,
            reach: Reach::Down,
            pause: Pause {
                until: Duration::ZERO,
                failures: 0,
            },
            stopped: None,
            date_corrected: false,
            reached_at: None,
            since: now,
        }
    }

    /// Whether the server can be reached.
    pub fn state(&self) -> LinkState {
        match (self.mode, self.stopped, self.is_up()) {
            (NetworkMode::Offline, _, _) => LinkState::Offline,
            (NetworkMode::Online, _, _) if self.is_elsewhere => LinkState::OtherServer,
            (NetworkMode::Online, Some(_), _) => LinkState::Refused,
            (NetworkMode::Online, None, true) => LinkState::Online,
            (NetworkMode::Online, None, false) => LinkState::Unreachable,
        }
    }

    /// Since when that has been so, on the monotonic clock; the agent's start where it never changed.
    pub const fn since(&self) -> Duration {
        self.since
    }

    /// Changes something, and notes whether that made another state of it.
    fn change(&mut self, now: Duration, change: impl FnOnce(&mut Self)) {
        let before = self.state();
        change(self);
        if self.state() != before {
            self.since = now;
        }
    }

    /// Whether the server could be reached at the last try and may be used.
    pub fn is_up(&self) -> bool {
        self.may_be_used() && self.reach == Reach::Up && self.stopped.is_none()
    }

    /// Whether the agent may use the network.
    pub const fn mode(&self) -> NetworkMode {
        self.mode
    }

    /// Whether the server may be asked or sent anything.
    pub fn may_be_used(&self) -> bool {
        self.mode == NetworkMode::Online && !self.is_elsewhere
    }

    /// Why the server refuses the credentials, if it does.
    pub const fn stopped(&self) -> Option<ErrorCode> {
        self.stopped
    }

    /// When the server last gave a valid answer, on the monotonic clock.
    pub const fn reached_at(&self) -> Option<Duration> {
        self.reached_at
    }

    /// Until when nothing is tried, on the monotonic clock.
    pub const fn paused_until(&self) -> Duration {
        self.pause.until
    }

    /// Whether one more operation may start beside those under way.
    pub(super) fn may_start(&self, now: Duration, busy: usize) -> bool {
        self.next_start(busy).is_some_and(|from| now >= from)
    }

    /// From when one more operation may start, on the monotonic clock; `None` while it takes an event.
    pub(super) fn next_start(&self, busy: usize) -> Option<Duration> {
        let busy_max = if self.is_trying() { 1 } else { BUSY_MAX };
        (self.may_be_used() && busy < busy_max).then_some(self.pause.until)
    }

    /// Whether the next operation is a try of a server that could not be used before.
    pub(super) fn is_trying(&self) -> bool {
        self.reach == Reach::Down || self.stopped.is_some()
    }

    /// The server gave a valid answer and accepts the credentials.
    pub(super) fn reached(&mut self, now: Duration) {
        self.change(now, |link| {
            link.reach = Reach::Up;
            link.stopped = None;
            link.date_corrected = false;
            link.nudge();
            link.reached_at = Some(now);
        });
    }

    /// Something was sent and not answered validly.
    pub(super) fn doubted(&mut self, now: Duration) {
        if self.reach == Reach::Up {
            self.change(now, |link| link.reach = Reach::Doubtful);
        }
    }

    /// The server could not be reached.
    pub(super) fn unreached(&mut self, now: Duration, policy: &Policy, random: &mut Random) {
        self.change(now, |link| link.reach = Reach::Down);
        self.pause
            .grow(now, policy.sync_interval, BACKOFF_MAX, random);
    }

    /// The server wants to be left alone for a while.
    pub(super) fn throttled(
        &mut self,
        now: Duration,
        wait: Option<Duration>,
        policy: &Policy,
        random: &mut Random,
    ) {
        self.pause
            .grow(now, policy.sync_interval, BACKOFF_MAX, random);
        if let Some(wait) = wait {
            self.pause.until = self
                .pause
                .until
                .max(now.saturating_add(wait.min(BACKOFF_MAX)));
        }
    }

    /// The server refuses the credentials or the date. A date is corrected once and tried again at
    /// once; anything else rests until somebody mends it.
    pub(super) fn refused(&mut self, now: Duration, code: ErrorCode) {
        self.reached_at = Some(now);
        if code == ErrorCode::DateHeaderDiff && !self.date_corrected {
            self.date_corrected = true;
            return;
        }
        self.change(now, |link| link.stopped = Some(code));
        self.date_corrected = false;
        self.pause.until = now.saturating_add(STOPPED_PAUSE);
    }

    /// Forgets all pauses, on demand.
    pub(super) const fn nudge(&mut self) {
        self.pause = Pause {
            until: Duration::ZERO,
            failures: 0,
        };
    }

    /// Whether what is owed was recorded for another server.
    pub(super) fn set_elsewhere(&mut self, now: Duration, is_elsewhere: bool) {
        self.change(now, |link| link.is_elsewhere = is_elsewhere);
    }

    /// The same where nothing is known of the time: after a commit that failed.
    pub(super) const fn keep_away(&mut self, is_elsewhere: bool) {
        self.is_elsewhere = is_elsewhere;
    }

    pub(super) fn set_mode(&mut self, now: Duration, mode: NetworkMode) {
        self.change(now, |link| {
            link.mode = mode;
            // What the server was before a drill says nothing about it afterwards.
            link.reach = Reach::Down;
            link.nudge();
        });
    }
}

impl Pause {
    /// Lengthens the pause after a failure: full jitter over a bound that doubles from `base`.
    pub(super) fn grow(
        &mut self,
        now: Duration,
        base: Duration,
        max: Duration,
        random: &mut Random,
    ) {
        let bound = base
            .saturating_mul(2_u32.saturating_pow(self.failures.min(16)))
            .min(max);
        self.failures = self.failures.saturating_add(1);
        let bound_ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX).max(1);
        // At least a tenth of the base, so that bad luck cannot make a busy loop.
        let least = base / 10;
        self.until = now.saturating_add(least + Duration::from_millis(random() % bound_ms));
    }
}
