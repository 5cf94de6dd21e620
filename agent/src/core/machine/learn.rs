//! Learning what the server says of a licence.

use std::{collections::BTreeMap, time::Duration};

use tally_shared::{
    limits::Standing,
    time::Timestamp,
    units::Units,
    wire::{
        PoolCounter, add_consumption::FEATURE_TYPE_CONSUMPTION,
        check_license::LICENSE_TYPE_CONSUMPTION,
    },
};

use super::turn;
use crate::core::{
    Core,
    book::{AccountNo, Batch, BatchNo, BatchState, Hold, License, LicenseNo, Op, Pause, Pool},
    clock::Moment,
    outcome::LicenseFound,
};

/// How an account stands, by what the server said when it was asked at that time.
#[derive(Clone, Copy)]
pub(super) struct Told {
    /// How it stands.
    pub(super) standing: Standing,
    /// When it was asked for, on the monotonic clock.
    pub(super) asked_at: Duration,
}

/// The time at a place of the monotonic clock.
fn time_at(now: Moment, mono: Duration) -> Timestamp {
    let since = i64::try_from(now.mono.saturating_sub(mono).as_millis()).unwrap_or(i64::MAX);
    now.time.plus_millis(since.saturating_neg())
}

impl Core {
    /// Takes in what the server said of a licence when it was asked at `asked_at`: it is the one of the answer's id, whatever
    /// name asked. Returns `None` where another was asked for by its id, and the answer's is not known.
    pub(in crate::core) fn learn_license(
        &mut self,
        now: Moment,
        found: &LicenseFound,
        asked_at: Duration,
    ) -> Option<LicenseNo> {
        let LicenseFound {
            subject,
            body,
            is_fresh,
        } = found;
        let id = body.counter.id;
        let known = self.book.by_id(&subject.product, id);
        let no = match known.map(|known| known.no) {
            // An old answer decides nothing of what is known, and shows that the device is.
            Some(no) if !is_fresh => {
                let hardware_id = &subject.hardware_id;
                if let Some(license) = self.book.license_mut(no) {
                    license.devices.entry(hardware_id.clone()).or_default();
                }
                self.point(now, found, no);
                return Some(no);
            }
            Some(no) => no,
            None if subject.license_id.is_some_and(|asked| asked != id) => return None,
            None => self.book.add_license(|no| License {
                no,
                product: subject.product.clone(),
                holder: subject.holder.clone(),
                body: body.clone(),
                blocked: None,
                devices: BTreeMap::new(),
                refreshed_at: now.time,
                id,
                op: Op::Idle,
                pause: Pause::default(),
                probe: Pause::default(),
                refresh_at: Duration::ZERO,
            }),
        };
        let contradicted = self.contradicted(no);
        for no in self.licenses_of_id(no) {
            let Some(license) = self.book.license_mut(no) else {
                continue;
            };
            license.body = body.clone();
            let was_blocked = license.blocked.take().is_some();
            let device = license.devices.get(&subject.hardware_id);
            let was_refused = device.is_some_and(Option::is_some);
            license.refreshed_at = now.time;
            license.pause = Pause::default();
            if was_blocked || was_refused {
                // What another device is refused for is asked about as slowly as before.
                license.probe = Pause::default();
            }
        }
        if let Some(license) = self.book.license_mut(no) {
            license.devices.insert(subject.hardware_id.clone(), None);
        }
        self.point(now, found, no);
        self.schedule_refresh(now, no);
        self.take_up_gone(now, no);
        let told = |standing| Told { standing, asked_at };
        let own = self.book.account_of(no, None);
        let is_news = own.is_none_or(|own| own.heard_at <= asked_at);
        let is_counted = body.license_type == LICENSE_TYPE_CONSUMPTION;
        if is_counted || self.book.account_of(no, None).is_none() {
            self.learn_account(now, no, None, told(body.counter.standing(now.time)));
        }
        let own = self.book.account_of(no, None).map(|own| own.no);
        let pool = body.pool();
        // A licence of another type is described without its pool, and its units are still owed to that.
        if is_news && (is_counted || pool.is_some()) {
            // An answer on file, or a cache's, may be of any time.
            let asked = if *is_fresh {
                time_at(now, asked_at)
            } else {
                Timestamp::default()
            };
            self.learn_pool(now, own, pool.as_ref(), asked);
        }
        for feature in &body.product_features {
            if feature.feature_type == FEATURE_TYPE_CONSUMPTION {
                let told = told(feature.standing(now.time));
                self.learn_account(now, no, Some(&feature.code), told);
            }
        }
        self.learn_refusals(now, no, &contradicted, asked_at);
        for no in self.licenses_of_id(no) {
            self.release_refused(now, no);
        }
        if !is_fresh {
            for account in self.book.account_numbers_of(no) {
                self.mark_account_unsure(account);
            }
        }
        Some(no)
    }

    fn learn_account(
        &mut self,
        now: Moment,
        license: LicenseNo,
        feature: Option<&str>,
        Told { standing, asked_at }: Told,
    ) {
        let Some(account) = self.book.account_of(license, feature) else {
            let no = self
                .book
                .add_account(license, feature.map(str::to_owned), standing);
            if let Some(account) = self.book.accounts.get_mut(&no) {
                account.heard_at = asked_at;
            }
            return;
        };
        let no = self.told_account(account.no);
        let Some(account) = self.book.accounts.get(&no) else {
            return;
        };
        let is_old = asked_at < account.heard_at;
        let doubtful = self
            .book
            .batches_of(no)
            .into_iter()
            .find(|batch| matches!(batch.state, BatchState::Unknown { .. } | BatchState::Sent))
            .map(|batch| batch.no);
        match doubtful {
            // It was on its way while something newer was heard.
            None if is_old => {}
            None => self.hear(now, no, Told { standing, asked_at }, None),
            Some(batch)
                if asked_at >= self.unknown_since(batch)
                    && self.is_replaced(now, batch, &standing) => {}
            // Nothing is known of its outcome yet, or its key will tell more than the total (its age may be known only now, by
            // the answer's date): only the limits are news.
            Some(batch) if asked_at < self.unknown_since(batch) || self.keeps_key(now, batch) => {
                if let Some(account) = self.book.account_mut(no) {
                    account.standing.limits = standing.limits;
                }
            }
            Some(batch) => self.read_of_unknown(now, batch, Told { standing, asked_at }),
        }
        self.tell_twins(no);
    }

    /// The server had counted a batch before: its pool's total stands for no less than the last one with the batch's units.
    pub(super) fn count_in_pool(&mut self, now: Moment, no: BatchNo) {
        let Some((account, units)) = self
            .book
            .batch(no)
            .map(|batch| (batch.account, batch.units))
        else {
            return;
        };
        let known = self.book.accounts.get(&account);
        let Some(mut pool) = known.and_then(|known| self.book.pool_of(known)).cloned() else {
            return;
        };
        let total = pool.standing.total_at(now.time);
        pool.standing.total = total.checked_add(units).unwrap_or(total);
        pool.standing.as_of = now.time;
        if let Some(account) = self.book.account_mut(account) {
            account.pool = Some(pool);
        }
    }

    /// What the answer to a question of that time says of the pool that an account draws from.
    pub(super) fn learn_pool(
        &mut self,
        now: Moment,
        no: Option<AccountNo>,
        pool: Option<&PoolCounter>,
        asked: Timestamp,
    ) {
        let Some(account) = no.and_then(|no| self.book.accounts.get(&no)) else {
            return;
        };
        let pool = pool.map(|pool| self.book.told_pool(Pool::of(pool, now.time), asked));
        if account.pool == pool {
            return;
        }
        let (no, before) = (account.no, self.book.room_left(account, now.time));
        if let Some(account) = self.book.account_mut(no) {
            account.pool = pool;
        }
        self.note_room(now, no, before);
    }

    /// Where there is more room than before, the totals are believed again.
    fn note_room(&mut self, now: Moment, no: AccountNo, before: Option<i64>) {
        let account = self.book.accounts.get(&no);
        let room = account.and_then(|account| self.book.room_left(account, now.time));
        if room.unwrap_or(i64::MAX) > before.unwrap_or(i64::MAX) {
            self.forget_contradiction(no);
        }
    }

    fn keeps_key(&self, now: Moment, no: BatchNo) -> bool {
        self.book
            .batch(no)
            .is_some_and(|batch| self.trusts_key(now, batch))
    }

    /// When a batch's outcome became unknown, on the monotonic clock; never where its answer may still come.
    fn unknown_since(&self, no: BatchNo) -> Duration {
        let batch = self.book.batch(no);
        let sealed = batch
            .filter(|batch| batch.state != BatchState::Sent)
            .and_then(|batch| batch.sealed.as_ref());
        sealed.map_or(Duration::MAX, |sealed| sealed.readings.since)
    }

    /// The server's word on an account of which nothing is under way.
    pub(super) fn hear(
        &mut self,
        now: Moment,
        no: AccountNo,
        told: Told,
        doubtful: Option<(BatchNo, Units)>,
    ) {
        let Told { standing, asked_at } = told;
        let asked = time_at(now, asked_at);
        let is_beside = turn::is_beside(&standing, asked, now.time);
        let before = self.book.accounts.get(&no);
        let before = before.and_then(|account| self.book.room_left(account, now.time));
        let doubtful = doubtful.or_else(|| self.doubtful_refusal(now, no, &standing, asked_at));
        let was_shared = self
            .book
            .accounts
            .get(&no)
            .is_some_and(|found| found.shared);
        let is_believed = is_beside || self.audit_reading(now, no, &standing, asked_at, doubtful);
        let Some(account) = self.book.account_mut(no) else {
            return;
        };
        if !is_believed {
            account.standing.limits = standing.limits;
            // A restart must not forget it: nothing is sent against a total that may have fallen.
            account.stale = true;
            return;
        }
        account.standing = standing;
        account.heard_at = now.mono;
        account.unsure = is_beside;
        account.stale = is_beside;
        account.watch.read_at = Duration::ZERO;
        if is_beside {
            // Before it turned or after? It is read again when that is over.
            account.standing.as_of = asked;
        } else {
            self.audit_refusals(now, (no, was_shared), &standing, asked_at);
            self.note_room(now, no, before);
        }
    }

    /// What the limits say of the setting of a batch whose outcome is unknown. Returns whether the vendor has edited it and
    /// nothing else was in the batch: then it is at its end.
    fn is_replaced(&mut self, now: Moment, no: BatchNo, standing: &Standing) -> bool {
        if let Some(sealed) = self.sealed_mut(no) {
            sealed.readings.limits_are_read = true;
        }
        let is_edited = self.drop_edited_setting(no, &standing.limits);
        let is_setting_only = |batch: &Batch| batch.units == Units::ZERO;
        let is_end = is_edited && self.book.batch(no).is_some_and(is_setting_only);
        if is_end {
            self.book.end_batch(now, no, BatchState::Settled);
            if let Some(account) = self.book.batch(no).map(|batch| batch.account)
                && let Some(account) = self.book.account_mut(account)
            {
                account.standing.limits = standing.limits;
            }
        }
        is_end
    }

    /// The server no longer refuses the licence: what was held for that goes on.
    pub(super) fn release_refused(&mut self, now: Moment, license: LicenseNo) {
        let Some(license) = self.book.license(license) else {
            return;
        };
        let released: Vec<BatchNo> = self
            .book
            .accounts_of(license.no)
            .filter(|account| account.refused.is_none())
            .flat_map(|account| self.book.batches_of(account.no))
            .filter(|batch| matches!(batch.state, BatchState::Held(Hold::Refused(_))))
            .filter(|batch| {
                let lane = self.book.lane(batch.lane);
                let first = self.book.first_of(license);
                lane.is_some_and(|lane| first.accepts(&lane.key.hardware_id))
            })
            .map(|batch| batch.no)
            .collect();
        for no in released {
            self.go_on_after_refusal(now, no);
        }
    }

    /// A batch that may have been counted before it was refused goes on under its key, or waits for a total that is asked for
    /// after the refusal.
    fn go_on_after_refusal(&mut self, now: Moment, no: BatchNo) {
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        if !batch.is_unproven() {
            self.reseal(now, no);
        } else if self.goes_again_under_its_key(now, batch)
            && let Some(batch) = self.book.batch_mut(no)
        {
            batch.state = BatchState::Sealed;
            batch.held_at = None;
        }
    }

    /// A batch that was certainly refused goes on as a new one, under another id: the old id has its answer.
    pub(super) fn reseal(&mut self, now: Moment, no: BatchNo) {
        self.drop_edited_setting_of_held(no);
        let Some(old) = self.book.batch(no).cloned() else {
            return;
        };
        self.book.end_batch(now, no, BatchState::Superseded);
        self.book.add_batch(|no| Batch {
            no,
            ..old.renewed()
        });
    }
}
