//! What a request meets in a state of the network: pure, and repeatable from the seed.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::spec::{InvalidState, NetworkState};

/// A state of the network, and what is remembered of it.
#[derive(Debug)]
pub(crate) struct Weather {
    state: NetworkState,
    random: StdRng,
    /// How many phases of a flapping network have begun.
    phases: u64,
    /// When the requests of the current window passed.
    passed: VecDeque<Instant>,
    affected: u64,
}

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// Nothing: it arrives.
    Pass,
    /// It arrives, and is answered, late: so long in all.
    Late(Duration),
    /// It is lost.
    Lost,
    /// A captive portal answers in the stub's place.
    Portal,
    /// A limit of the rate answers in the stub's place.
    Refused(u16, Option<u64>),
}

impl Default for Weather {
    fn default() -> Self {
        Self::of(NetworkState::Up)
    }
}

impl Weather {
    /// A state that has just begun.
    pub(crate) fn new(state: NetworkState) -> Result<Self, InvalidState> {
        state.check()?;
        Ok(Self::of(state))
    }

    fn of(state: NetworkState) -> Self {
        let seed = match state {
            NetworkState::Slow { seed, .. } | NetworkState::Flapping { seed, .. } => seed,
            _ => 0,
        };
        Self {
            state,
            random: StdRng::seed_from_u64(seed),
            phases: 0,
            passed: VecDeque::new(),
            affected: 0,
        }
    }

    /// As it was ordered.
    pub(crate) const fn state(&self) -> &NetworkState {
        &self.state
    }

    /// How many requests did not just pass.
    pub(crate) const fn affected(&self) -> u64 {
        self.affected
    }

    /// Whether clients do not reach the stub from the beginning.
    pub(crate) const fn begins_gone(&self) -> bool {
        matches!(self.state, NetworkState::Gone)
    }

    /// The next phase of a network that changes by itself: whether it is up then, and for how long.
    pub(crate) fn next_phase(&mut self) -> Option<(bool, Duration)> {
        let NetworkState::Flapping {
            up_ms,
            down_ms,
            jitter_ms,
            ..
        } = self.state
        else {
            return None;
        };
        let is_up = self.phases.is_multiple_of(2);
        self.phases += 1;
        let least = if is_up { up_ms } else { down_ms };
        Some((is_up, self.with_jitter(least, jitter_ms)))
    }

    /// What a request meets that arrives now.
    pub(crate) fn meet(&mut self, reachable: bool, now: Instant) -> Meeting {
        let meeting = if reachable {
            self.meet_reachable(now)
        } else {
            Meeting::Lost
        };
        self.affected += u64::from(meeting != Meeting::Pass);
        meeting
    }

    fn meet_reachable(&mut self, now: Instant) -> Meeting {
        match self.state {
            NetworkState::Up | NetworkState::Flapping { .. } => Meeting::Pass,
            NetworkState::Gone => Meeting::Lost,
            NetworkState::Slow {
                delay_ms,
                jitter_ms,
                ..
            } => Meeting::Late(self.with_jitter(delay_ms, jitter_ms)),
            NetworkState::CaptivePortal => Meeting::Portal,
            NetworkState::RateLimited {
                requests,
                window_ms,
                status,
                retry_after,
            } => {
                let window = Duration::from_millis(window_ms);
                let is_over = |at: &Instant| now.saturating_duration_since(*at) >= window;
                while self.passed.front().is_some_and(is_over) {
                    self.passed.pop_front();
                }
                if self.passed.len() >= requests {
                    return Meeting::Refused(status, retry_after);
                }
                self.passed.push_back(now);
                Meeting::Pass
            }
        }
    }

    fn with_jitter(&mut self, least_ms: u64, jitter_ms: u64) -> Duration {
        let more = self.random.random_range(0..=jitter_ms);
        Duration::from_millis(least_ms.saturating_add(more))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weather(json: &str) -> Weather {
        Weather::new(serde_json::from_str(json).unwrap()).unwrap()
    }

    fn phases(weather: &mut Weather) -> Vec<(bool, Duration)> {
        (0..20).filter_map(|_| weather.next_phase()).collect()
    }

    #[test]
    fn the_same_seed_flaps_alike_and_another_does_not() {
        let flapping = |seed: u64| {
            let json = format!(
                r#"{{"state":"flapping","up_ms":100,"down_ms":50,"jitter_ms":90,"seed":{seed}}}"#
            );
            phases(&mut weather(&json))
        };
        let first = flapping(7);
        assert_eq!(flapping(7), first);
        assert_ne!(flapping(8), first);
        let in_range = |(up, lasts): &(bool, Duration)| {
            let least = if *up { 100 } else { 50 };
            (least..=least + 90).contains(&lasts.as_millis())
        };
        assert!(first.iter().all(in_range), "{first:?}");
        assert_eq!((first[0].0, first[1].0, first[2].0), (true, false, true));
    }

    #[test]
    fn a_limit_lets_so_many_pass_in_each_window() {
        let mut limited = weather(
            r#"{"state":"rate_limited","requests":2,"window_ms":1000,"status":503,"retry_after":4}"#,
        );
        let start = Instant::now();
        let mut meet = |ms| limited.meet(true, start + Duration::from_millis(ms));
        let refused = Meeting::Refused(503, Some(4));
        assert_eq!((meet(0), meet(400)), (Meeting::Pass, Meeting::Pass));
        assert_eq!((meet(500), meet(999)), (refused, refused));
        assert_eq!((meet(1000), meet(1001)), (Meeting::Pass, refused));
        assert_eq!(meet(1400), Meeting::Pass);
        assert_eq!(limited.affected(), 3);
    }

    #[test]
    fn a_slow_network_delays_within_its_jitter() {
        let mut slow = weather(r#"{"state":"slow","delay_ms":100,"jitter_ms":20}"#);
        let mut late = || match slow.meet(true, Instant::now()) {
            Meeting::Late(time) => time.as_millis(),
            other => panic!("{other:?}"),
        };
        let times: Vec<u128> = (0..50).map(|_| late()).collect();
        assert!(times.iter().all(|ms| (100..=120).contains(ms)), "{times:?}");
        assert_ne!(times.iter().min(), times.iter().max());
    }

    #[test]
    fn what_cannot_be_reached_loses_every_request() {
        let lost = |json| weather(json).meet(false, Instant::now());
        assert_eq!(lost(r#"{"state":"gone"}"#), Meeting::Lost);
        let flapping = r#"{"state":"flapping","up_ms":10,"down_ms":10}"#;
        assert_eq!(lost(flapping), Meeting::Lost);
        assert_eq!(weather(flapping).meet(true, Instant::now()), Meeting::Pass);
    }
}
