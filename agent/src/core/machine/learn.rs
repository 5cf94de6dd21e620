//! Learning what the server says of a licence, and what became of a batch that it may have counted.

use std::{collections::BTreeMap, time::Duration};

use tally_shared::{
    limits::Standing,
    wire::{Holder, add_consumption::FEATURE_TYPE_CONSUMPTION},
};

use super::{
    resolve::{By, Decision},
    turn,
};
use crate::core::{
    Core, UndecidablePolicy,
    book::{AccountNo, Batch, BatchNo, BatchState, Hold, License, LicenseNo, Op, Pause},
    clock::Moment,
    outcome::LicenseFound,
    reconcile::{Verdict, verdict},
};

/// How an account stands, by what the server said when it was asked at that time.
#[derive(Clone, Copy)]
struct Told {
    standing: Standing,
    asked_at: Duration,
}

impl Core {
    /// Takes in what the server said of a licence when it was asked at `asked_at`.
    pub(in crate::core) fn learn_license(
        &mut self,
        now: Moment,
        found: &LicenseFound,
        asked_at: Duration,
    ) -> LicenseNo {
        let LicenseFound { subject, body } = found;
        let known = self.book.find(subject).filter(|known| match known.holder {
            Holder::LicenseKey(_) => true,
            // A user can hold several licences of one product.
            Holder::Username(_) => known.id == body.counter.id,
        });
        let no = match known.map(|known| known.no) {
            Some(no) => no,
            None => self.book.add_license(|no| License {
                no,
                product: subject.product.clone(),
                holder: subject.holder.clone(),
                body: body.clone(),
                blocked: None,
                devices: BTreeMap::new(),
                refreshed_at: now.time,
                id: body.counter.id,
                op: Op::Idle,
                pause: Pause::default(),
                probe: Pause::default(),
                refresh_at: Duration::ZERO,
            }),
        };
        if let Some(license) = self.book.license_mut(no) {
            license.body = body.clone();
            license.blocked = None;
            license.devices.insert(subject.hardware_id.clone(), None);
            license.refreshed_at = now.time;
            license.pause = Pause::default();
            license.probe = Pause::default();
        }
        self.schedule_refresh(now, no);
        let told = |standing| Told { standing, asked_at };
        self.learn_account(now, no, None, told(body.counter.standing(now.time)));
        for feature in &body.product_features {
            if feature.feature_type == FEATURE_TYPE_CONSUMPTION {
                let told = told(feature.standing(now.time));
                self.learn_account(now, no, Some(&feature.code), told);
            }
        }
        self.keep_undescribed(now, no);
        self.release_refused(now, no);
        no
    }

    /// A feature that the server no longer describes stands as it last did: asking for it again would
    /// tell nothing new.
    fn keep_undescribed(&mut self, now: Moment, license: LicenseNo) {
        let Some(license) = self.book.license(license) else {
            return;
        };
        let features = &license.body.product_features;
        let undescribed: Vec<AccountNo> = self
            .book
            .accounts_of(license.no)
            .filter(|account| {
                let code = account.feature.as_ref();
                code.is_some_and(|code| features.iter().all(|feature| &feature.code != code))
            })
            .map(|account| account.no)
            .collect();
        for no in undescribed {
            if let Some(account) = self.book.account_mut(no) {
                account.standing.total = account.standing.total_at(now.time);
                account.standing.as_of = now.time;
                account.stale = false;
            }
        }
    }

    fn learn_account(
        &mut self,
        now: Moment,
        license: LicenseNo,
        feature: Option<&str>,
        Told { standing, asked_at }: Told,
    ) {
        let Some(account) = self.book.account_of(license, feature) else {
            self.book
                .add_account(license, feature.map(str::to_owned), standing);
            return;
        };
        let (no, is_old) = (account.no, asked_at < account.heard_at);
        let doubtful = self
            .book
            .batches_of(no)
            .into_iter()
            .find_map(|batch| match batch.state {
                BatchState::Unknown { look_at } => Some((batch.no, look_at)),
                BatchState::Sent => Some((batch.no, Duration::MAX)),
                _ => None,
            });
        match doubtful {
            // It was on its way while something newer was heard.
            None if is_old => {}
            None => self.hear(now, no, Told { standing, asked_at }, false),
            // The total was read while the batch could still arrive, or the key will tell more than it
            // (its age may be known only now, by the answer's date): only the limits are news.
            Some((batch, look_at)) if asked_at < look_at || self.keeps_key(now, batch) => {
                if let Some(account) = self.book.account_mut(no) {
                    account.standing.limits = standing.limits;
                }
            }
            Some((batch, _)) => self.reconcile(now, batch, Told { standing, asked_at }),
        }
    }

    fn keeps_key(&self, now: Moment, no: BatchNo) -> bool {
        self.book
            .batch(no)
            .is_some_and(|batch| self.trusts_key(now, batch))
    }

    /// The server's word on an account; `explained` where this agent's own units moved the total.
    fn hear(&mut self, now: Moment, no: AccountNo, told: Told, explained: bool) {
        let Told { standing, asked_at } = told;
        let Some(account) = self.book.account_mut(no) else {
            return;
        };
        let moved = account.standing.total_at(now.time) != standing.total;
        account.shared |= moved && !explained;
        account.standing = standing;
        account.heard_at = now.mono;
        account.stale = false;
        let took = i64::try_from(now.mono.saturating_sub(asked_at).as_millis()).unwrap_or(i64::MAX);
        let asked = now.time.plus_millis(took.saturating_neg());
        if turn::is_beside(&standing, asked, now.time) {
            // Before it turned or after? It is read again when that is over.
            account.standing.as_of = asked;
            account.stale = true;
        }
    }

    /// The request can no longer arrive: the total tells what became of it.
    fn reconcile(&mut self, now: Moment, no: BatchNo, told: Told) {
        let standing = told.standing;
        let Some(batch) = self.book.batch(no) else {
            return;
        };
        let Some(sealed) = &batch.sealed else { return };
        let account = batch.account;
        let Some(lane) = self.book.lane(batch.lane) else {
            return;
        };
        let verdict = verdict(batch, sealed, lane.key.setting, &standing);
        tracing::info!(
            batch = no.0,
            ?verdict,
            "compared the total before and after"
        );
        match (verdict, self.policy.undecidable) {
            (Verdict::Applied, _) => self.settle(now, no, standing, false),
            (Verdict::NotApplied, _) => self.certainly_not_counted(no),
            (Verdict::Undecidable, UndecidablePolicy::AssumeApplied) => {
                self.note_decision(now, no, Decision::Applied, By::Policy, None);
                self.settle(now, no, standing, false);
            }
            (Verdict::Undecidable, UndecidablePolicy::Resend) => {
                self.note_decision(now, no, Decision::Resend, By::Policy, None);
                self.certainly_not_counted(no);
            }
            (Verdict::Undecidable, UndecidablePolicy::Hold) => {
                tracing::warn!(
                    batch = no.0,
                    "the total cannot tell whether a batch was counted"
                );
                self.hold(now, no, Hold::Undecidable);
            }
        }
        self.hear(now, account, told, verdict == Verdict::Applied);
    }

    /// The server no longer refuses the licence: what was held for that goes on.
    fn release_refused(&mut self, now: Moment, license: LicenseNo) {
        let Some(license) = self.book.license(license) else {
            return;
        };
        let released: Vec<BatchNo> = self
            .book
            .accounts_of(license.no)
            .flat_map(|account| self.book.batches_of(account.no))
            .filter(|batch| matches!(batch.state, BatchState::Held(Hold::Refused(_))))
            .filter(|batch| {
                let lane = self.book.lane(batch.lane);
                lane.is_some_and(|lane| license.accepts(&lane.key.hardware_id))
            })
            .map(|batch| batch.no)
            .collect();
        for no in released {
            self.reseal(now, no);
        }
    }

    /// A refused batch goes on as a new one, under a new id: the old id has its answer.
    pub(super) fn reseal(&mut self, now: Moment, no: BatchNo) {
        let Some(old) = self.book.batch(no).cloned() else {
            return;
        };
        let Some(standing) = self.standing_of(&old) else {
            return;
        };
        self.book.end_batch(now, no, BatchState::Superseded);
        let id = self.new_id(now);
        self.book.add_batch(|no| Batch {
            no,
            ..old.renewed(now, id, standing)
        });
    }
}
