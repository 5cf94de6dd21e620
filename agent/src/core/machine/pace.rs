//! Pauses and refreshes: when a licence is asked about again.

use std::time::Duration;

use crate::core::{
    Core,
    book::{BatchState, LicenseNo, Pause},
    clock::Moment,
};

impl Core {
    /// Pauses are forgotten, and what is held is asked about.
    pub(super) fn nudge(&mut self) {
        self.link.nudge();
        for license in self.book.licenses.values_mut() {
            license.pause = Pause::default();
            license.probe = Pause::default();
        }
        for account in self.book.accounts.values_mut() {
            account.watch.contradicted = Pause::default();
        }
        for batch in self.book.batches.values_mut() {
            batch.opened_at = Duration::ZERO;
            let account = self.book.accounts.get(&batch.account);
            let license = account.and_then(|found| self.book.licenses.get_mut(&found.license));
            if let (Some(license), BatchState::Held(_)) = (license, batch.state) {
                license.refresh_at = Duration::ZERO;
            }
        }
    }

    pub(super) fn resume_license(&mut self, license: LicenseNo) {
        if let Some(license) = self.book.licenses.get_mut(&license) {
            license.pause = Pause::default();
        }
    }

    pub(super) fn pause(&mut self, now: Moment, license: LicenseNo, wait: Option<Duration>) {
        let (base, max) = (self.policy.sync_interval, self.policy.refresh_interval);
        if let Some(license) = self.book.licenses.get_mut(&license) {
            license.pause.grow(now.mono, base, max, &mut self.random);
            if let Some(wait) = wait {
                let until = now.mono.saturating_add(wait.min(max));
                license.pause.until = license.pause.until.max(until);
            }
        }
    }

    pub(super) fn schedule_refresh(&mut self, now: Moment, license: LicenseNo) {
        let interval_ms =
            u64::try_from(self.policy.refresh_interval.as_millis()).unwrap_or(u64::MAX);
        // Within a fifth of the interval, so that devices that started together do not stay together.
        let jitter = Duration::from_millis((self.random)() % (interval_ms / 5).max(1));
        let at = now
            .mono
            .saturating_add(self.policy.refresh_interval)
            .saturating_sub(jitter);
        if let Some(license) = self.book.licenses.get_mut(&license) {
            license.refresh_at = at;
        }
    }
}
