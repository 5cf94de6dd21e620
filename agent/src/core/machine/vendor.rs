//! What a vendor does to a licence while units of it are owed: a counter is taken off or changes its type, a total cannot be
//! read any more, a setting is edited.
//!
//! A counter that is refused is no trouble of the licence: its batches are held, new consumptions of it are refused with
//! the server's code, and all others go on. It is asked about again ever more slowly.

use tally_shared::{
    limits::Limits,
    units::Units,
    wire::{
        ErrorCode, add_consumption::FEATURE_TYPE_CONSUMPTION,
        check_license::LICENSE_TYPE_CONSUMPTION,
    },
};

use std::time::Duration;

use super::PROBE_INTERVALS;
use crate::core::{
    Core,
    book::{
        Account, AccountNo, Batch, BatchNo, BatchState, Dropped, Hold, License, LicenseNo, Pause,
    },
    clock::Moment,
};

/// Whether a refusal concerns the counter alone, not the licence.
pub(super) const fn is_of_counter(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::UnsupportedProductFeature
            | ErrorCode::InvalidLicenseFeatureCode
            | ErrorCode::LicenseNotConsumption
    )
}

/// Why a counter cannot be consumed, by the description of its licence.
fn refusal_of(license: &License, account: &Account) -> Option<ErrorCode> {
    let body = &license.body;
    let Some(code) = &account.feature else {
        let is_counted = body.license_type == LICENSE_TYPE_CONSUMPTION;
        return (!is_counted).then_some(ErrorCode::LicenseNotConsumption);
    };
    let is_counted = body
        .product_features
        .iter()
        .any(|feature| &feature.code == code && feature.feature_type == FEATURE_TYPE_CONSUMPTION);
    (!is_counted).then_some(ErrorCode::UnsupportedProductFeature)
}

impl Core {
    /// The counters of a licence that are refused although it describes them.
    pub(super) fn contradicted(&self, license: LicenseNo) -> Vec<AccountNo> {
        let Some(license) = self.book.license(license) else {
            return Vec::new();
        };
        let accounts = self.book.accounts_of(license.no);
        accounts
            .filter(|account| account.refused.is_some() && refusal_of(license, account).is_none())
            .map(|account| account.no)
            .collect()
    }

    /// Takes in which counters a licence has, by the description that was asked for at `asked_at`. Those that were refused
    /// before although it described them, the `contradicted`, are tried again only after their pause.
    pub(super) fn learn_refusals(
        &mut self,
        now: Moment,
        license: LicenseNo,
        contradicted: &[AccountNo],
        asked_at: Duration,
    ) {
        for no in self.book.account_numbers_of(license) {
            let (Some(license), Some(account)) =
                (self.book.license(license), self.book.accounts.get(&no))
            else {
                continue;
            };
            let told = refusal_of(license, account);
            let is_waiting = now.mono < account.watch.contradicted.until;
            match (told, account.refused) {
                (Some(code), known) => {
                    self.keep_undescribed(now, no, known.unwrap_or(code), asked_at);
                }
                (None, Some(_)) if contradicted.contains(&no) && is_waiting => {}
                (None, Some(_)) => self.accept_account(no, contradicted.contains(&no)),
                (None, None) => {}
            }
        }
    }

    /// A counter that the server no longer describes stands as it last did: asking for it at once would tell nothing new.
    fn keep_undescribed(
        &mut self,
        now: Moment,
        no: AccountNo,
        code: ErrorCode,
        asked_at: Duration,
    ) {
        if let Some(account) = self.book.account_mut(no) {
            account.standing.total = account.standing.total_at(now.time);
            account.standing.as_of = now.time;
            account.stale = false;
            account.refused = Some(code);
        }
        self.hold_refused(now, no, code);
        self.give_up_reading(now, no, code, asked_at);
        let is_paused = |account: &Account| now.mono < account.watch.contradicted.until;
        if !self.book.accounts.get(&no).is_some_and(is_paused) {
            self.pause_account(now, no);
        }
    }

    /// The server accepts a counter again.
    fn accept_account(&mut self, no: AccountNo, is_contradicted: bool) {
        if let Some(account) = self.book.account_mut(no) {
            account.refused = None;
            if !is_contradicted {
                account.watch.contradicted = Pause::default();
            }
        }
    }

    /// The server refused a batch for its counter.
    pub(super) fn refuse_account(&mut self, now: Moment, no: AccountNo, code: ErrorCode) {
        if let Some(account) = self.book.account_mut(no) {
            if account.refused.is_none() {
                tracing::warn!(
                    account = no.0,
                    feature = account.feature,
                    code = code.as_str(),
                    "the server refuses a counter of a licence"
                );
            }
            account.refused = Some(code);
        }
        self.hold_refused(now, no, code);
        self.pause_account(now, no);
    }

    /// The next try of an account's comes later than the last one did.
    pub(super) fn pause_account(&mut self, now: Moment, no: AccountNo) {
        let base = self.policy.sync_interval.saturating_mul(PROBE_INTERVALS);
        let max = self.policy.refresh_interval.max(base);
        // Not kept on disk: a start tries anew.
        if let Some(account) = self.book.account_mut(no) {
            let pause = &mut account.watch.contradicted;
            pause.grow(now.mono, base, max, &mut self.random);
        }
    }

    /// What waits to be sent of a counter that is refused.
    pub(super) fn hold_refused(&mut self, now: Moment, no: AccountNo, code: ErrorCode) {
        let waiting: Vec<BatchNo> = self
            .book
            .any_batches_of(no)
            .filter(|batch| matches!(batch.state, BatchState::Open | BatchState::Sealed))
            .map(|batch| batch.no)
            .collect();
        for batch in waiting {
            self.hold(now, batch, Hold::Refused(code));
        }
    }

    /// The total of an account cannot be read. Where the request of an unknown batch can no longer arrive, a person decides.
    pub(super) fn give_up_reading(
        &mut self,
        now: Moment,
        no: AccountNo,
        code: ErrorCode,
        asked_at: Duration,
    ) {
        let unknown: Vec<(BatchNo, Duration)> = self
            .book
            .any_batches_of(no)
            .filter(|batch| matches!(batch.state, BatchState::Unknown { .. }))
            // Its key tells what became of it.
            .filter(|batch| !self.trusts_key(now, batch))
            .filter_map(|batch| Some((batch.no, batch.sealed.as_ref()?.readings.arrives_until)))
            .collect();
        for (batch, arrives_until) in unknown {
            if asked_at < arrives_until {
                self.read_again(now, batch, arrives_until);
            } else {
                tracing::warn!(
                    batch = batch.0,
                    code = code.as_str(),
                    "nobody can tell any more whether a batch was counted"
                );
                self.hold(now, batch, Hold::Gone(code));
            }
        }
    }

    /// The server refused to describe a licence: where no device is left to read it by, no total can be read.
    pub(super) fn give_up_license(
        &mut self,
        now: Moment,
        license: LicenseNo,
        code: ErrorCode,
        asked_at: Duration,
    ) {
        let is_readable = |license: &License| license.reader().is_some();
        if self.book.license(license).is_some_and(is_readable) {
            return;
        }
        for no in self.book.account_numbers_of(license) {
            self.give_up_reading(now, no, code, asked_at);
        }
    }

    /// The server describes a licence again: the total decides about what was gone. Nothing of the account was sent meanwhile,
    /// so that the total before is still the one to compare with.
    pub(super) fn take_up_gone(&mut self, now: Moment, license: LicenseNo) {
        for no in self.book.account_numbers_of(license) {
            let (Some(license), Some(account)) =
                (self.book.license(license), self.book.accounts.get(&no))
            else {
                continue;
            };
            let batches = self.book.batches_of(no);
            let is_under_way = |batch: &&Batch| {
                matches!(batch.state, BatchState::Sent | BatchState::Unknown { .. })
            };
            if refusal_of(license, account).is_some() || batches.iter().any(is_under_way) {
                continue;
            }
            let is_gone = |batch: &&&Batch| matches!(batch.state, BatchState::Held(Hold::Gone(_)));
            let Some(gone) = batches.iter().find(is_gone).map(|batch| batch.no) else {
                continue;
            };
            let look_at = now.mono;
            if let Some(batch) = self.book.batch_mut(gone) {
                batch.state = BatchState::Unknown { look_at };
                batch.held_at = None;
                if let Some(sealed) = &mut batch.sealed {
                    sealed.readings.is_begun = true;
                }
            }
        }
    }

    /// Leaves out what later settings have replaced, of each batch that waits to be sent. Where nothing is left of a batch that
    /// adds nothing, it is at its end without a request.
    pub(super) fn drop_replaced_settings(&mut self, now: Moment) {
        let waiting = |batch: &&Batch| matches!(batch.state, BatchState::Open | BatchState::Sealed);
        let replaced: Vec<(BatchNo, Dropped)> = self
            .book
            .batches()
            .filter(waiting)
            .filter_map(|batch| {
                let setting = self.book.lane(batch.lane)?.key.setting;
                let dropped = self.book.dropped_of(batch);
                let is_idle = batch.units == Units::ZERO && dropped.leave(setting).is_empty();
                let is_news = is_idle || dropped != batch.dropped;
                (!setting.is_empty() && is_news).then_some((batch.no, dropped))
            })
            .collect();
        for (no, dropped) in replaced {
            let Some(batch) = self.book.batch(no) else {
                continue;
            };
            if batch.units == Units::ZERO && self.book.setting_of(batch).is_empty() {
                self.book.end_batch(now, no, BatchState::Settled);
            } else {
                self.book.drop_setting(no, dropped);
            }
        }
    }

    /// The same for a batch that was refused, by what is known of the limits now.
    pub(super) fn drop_edited_setting_of_held(&mut self, no: BatchNo) {
        let account = self.book.batch(no).map(|batch| batch.account);
        let account = account.and_then(|account| self.book.accounts.get(&account));
        if let Some(limits) = account.map(|account| account.standing.limits) {
            self.drop_edited_setting(no, &limits);
        }
    }

    /// Leaves out what the vendor has edited since a batch was sent: sent again, it would undo the edit. Returns whether there
    /// is anything of the kind.
    pub(super) fn drop_edited_setting(&mut self, no: BatchNo, limits: &Limits) -> bool {
        let Some(batch) = self.book.batch(no) else {
            return false;
        };
        let (Some(sealed), Some(lane)) = (&batch.sealed, self.book.lane(batch.lane)) else {
            return false;
        };
        let before = sealed.before.limits;
        let setting = batch.dropped.leave(lane.key.setting);
        let allow = setting.allow_overages;
        let max = setting.max_overages;
        let edited = Dropped {
            allow_overages: allow
                .is_some_and(|set| ![before.allow_overages, set].contains(&limits.allow_overages)),
            max_overages: max
                .is_some_and(|set| ![before.max_overages, set].contains(&limits.max_overages)),
        };
        if edited == Dropped::default() {
            return false;
        }
        let dropped = Dropped {
            allow_overages: batch.dropped.allow_overages || edited.allow_overages,
            max_overages: batch.dropped.max_overages || edited.max_overages,
        };
        tracing::warn!(
            batch = no.0,
            "the vendor has edited an overage setting since it was sent: it is not sent again"
        );
        self.book.drop_setting(no, dropped);
        true
    }
}
