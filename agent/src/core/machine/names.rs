//! Which licence a name opens, as the server's answers say, and how the server is asked.
//!
//! A known licence is read without its id under a name whose default it is: one request then tells both how the licence
//! stands and whether the name still opens it. Where the name opens another licence by now, that one is learnt of, the
//! pointer moves, and the one that was asked for counts as not told: it is asked for by its id after a pause. Under other
//! names it is read with its id, since the answer would be about another licence. Refreshes take a licence's names in turn,
//! so that each is looked at, and it costs no more requests than one name does.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tally_shared::wire::{ErrorCode, Holder, Subject};

use super::PROBE_INTERVALS;
use crate::core::{
    Core,
    book::{AccountNo, BatchNo, BatchState, Book, License, LicenseNo, Name},
    clock::Moment,
    outcome::LicenseFound,
};

/// What is remembered of asking while the process runs.
#[derive(Default)]
pub(in crate::core) struct Asking {
    /// How each licence is being asked for.
    subjects: BTreeMap<LicenseNo, Subject>,
    /// Licences that are asked for by id next: what was said without it may be about another one.
    by_id: BTreeSet<LicenseNo>,
    /// Which of its names a licence is read under next.
    turns: BTreeMap<LicenseNo, usize>,
}

impl Core {
    /// How the server is asked about a licence on a device, or under the next of its names.
    pub(super) fn question(
        &mut self,
        no: LicenseNo,
        hardware_id: Option<&str>,
        is_by_id: bool,
    ) -> Option<Subject> {
        let license = self.book.license(no)?;
        let named = match hardware_id {
            Some(device) => self.book.name_for(license, device),
            None => self.next_name(license),
        };
        let subject = match (named, hardware_id) {
            (Some((name, is_default)), _) => {
                let is_by_id = is_by_id || !is_default || self.asking.by_id.contains(&no);
                Subject {
                    product: name.product.clone(),
                    holder: name.holder.clone(),
                    license_id: is_by_id.then(|| license.server_id()),
                    hardware_id: name.hardware_id.clone(),
                }
            }
            (None, Some(device)) => self.book.subject_of(license, device),
            (None, None) => {
                let device = self.book.first_of(license).any_device()?;
                self.book.subject_of(license, &device)
            }
        };
        if hardware_id.is_none() {
            let turn = self.asking.turns.entry(no).or_default();
            *turn = turn.wrapping_add(1);
        }
        self.asking.subjects.insert(no, subject.clone());
        Some(subject)
    }

    /// The name whose turn it is, of those on devices that the server accepts.
    fn next_name(&self, license: &License) -> Option<(&Name, bool)> {
        let first = self.book.first_of(license);
        let is_accepted = |device: &str| first.devices.get(device).is_some_and(Option::is_none);
        let names: Vec<_> = self
            .book
            .names_of(first.no)
            .filter(|(name, _)| is_accepted(&name.hardware_id))
            .collect();
        let turn = self.asking.turns.get(&license.no).copied();
        names
            .get(turn.unwrap_or_default().checked_rem(names.len())?)
            .copied()
    }

    /// What the server said when it was asked about a licence: of that one, or of another.
    pub(super) fn found(
        &mut self,
        now: Moment,
        no: LicenseNo,
        found: &LicenseFound,
        asked_at: Duration,
    ) {
        let id = self.book.license(no).map(License::server_id);
        if id.is_some_and(|id| id != found.body.counter.id) {
            self.told_of_another(now, no, found, asked_at);
            return;
        }
        let was_by_id = self.asking.by_id.remove(&no);
        self.learn_license(now, found, asked_at);
        if was_by_id && found.subject.license_id.is_some() {
            // Without its id the same name was refused: the server takes that request for another licence's.
            let name = Name::of(&found.subject);
            if let Some(mut opens) = self.book.opens(&name).cloned() {
                opens.default = opens.default.filter(|default| *default != no);
                self.book.set_name(&name, opens);
            }
        }
        if !found.is_fresh {
            // A cache answers: it may have the server's own answer later.
            self.pause(now, no, None);
        }
    }

    /// An answer about another licence than the one that was asked about: nothing of it is taken for that one, which is
    /// asked for again after a pause.
    fn told_of_another(
        &mut self,
        now: Moment,
        no: LicenseNo,
        found: &LicenseFound,
        asked_at: Duration,
    ) {
        self.pause(now, no, None);
        if !found.is_fresh {
            return;
        }
        tracing::warn!(
            license = no.0,
            told_id = found.body.counter.id,
            "the server told of another licence than was asked about"
        );
        let LicenseFound { subject, body, .. } = found;
        let told = self.book.by_id(&subject.product, body.counter.id);
        let is_forgotten = told.is_some_and(|told| self.book.is_forgotten(told));
        if subject.license_id.is_some() || is_forgotten {
            self.unname(now, no, &Name::of(subject));
        }
        if !is_forgotten {
            self.learn_license(now, found, asked_at);
        }
        if let Some(license) = self.book.licenses.get_mut(&no) {
            license.refresh_at = license.refresh_at.max(license.pause.until);
        }
    }

    /// A licence was asked for by its id, and the answer is about another: the name does not open it.
    pub(in crate::core) fn not_opened(&mut self, now: Moment, found: &LicenseFound) {
        let LicenseFound {
            subject, is_fresh, ..
        } = found;
        let asked = subject.license_id;
        let asked = asked.and_then(|id| self.book.by_id(&subject.product, id));
        if let (Some(no), true) = (asked.map(|license| license.no), is_fresh) {
            self.unname(now, no, &Name::of(subject));
        }
    }

    /// The server refuses a licence that it was asked about.
    pub(super) fn look_up_refused(
        &mut self,
        now: Moment,
        no: LicenseNo,
        hardware_id: &str,
        (code, asked_at): (ErrorCode, Duration),
    ) {
        // Kept: where the commit fails, the refusal is told again.
        let asked = self.asking.subjects.get(&no).cloned();
        self.asking.by_id.remove(&no);
        let is_unknown = code == ErrorCode::LicenseNotFound;
        if is_unknown && self.drop_name(now, no, hardware_id, asked.as_ref()) {
            return;
        }
        let Some(license) = self.book.license(no) else {
            return;
        };
        // A user can hold several licences, and a key may open another by now: of which one was that?
        let may_be_of_another = asked.is_some_and(|asked| asked.license_id.is_none());
        let is_news = license.accepts(hardware_id) && !is_unknown;
        if may_be_of_another && is_news {
            self.asking.by_id.insert(no);
            if let Some(license) = self.book.licenses.get_mut(&no) {
                license.refresh_at = now.mono;
            }
            return;
        }
        self.refused(now, no, hardware_id, (code, asked_at));
    }

    /// The server refuses a licence, or one device of it. It is asked again slowly, and on demand.
    pub(super) fn block(&mut self, now: Moment, no: LicenseNo, hardware_id: &str, code: ErrorCode) {
        if code == ErrorCode::LicenseNotFound && self.drop_name(now, no, hardware_id, None) {
            return;
        }
        let first = self.book.license(no).map(|it| self.book.first_of(it).no);
        let no = first.unwrap_or(no);
        let Some(license) = self.book.license_mut(no) else {
            return;
        };
        if matches!(code, ErrorCode::DeviceNotFound | ErrorCode::Blacklisted) {
            license.devices.insert(hardware_id.to_owned(), Some(code));
        } else {
            license.blocked = Some(code);
        }
        self.probe_later(now, no);
    }

    fn probe_later(&mut self, now: Moment, no: LicenseNo) {
        let base = self.policy.sync_interval.saturating_mul(PROBE_INTERVALS);
        let max = self.policy.refresh_interval.max(base);
        if let Some(license) = self.book.licenses.get_mut(&no) {
            license.probe.grow(now.mono, base, max, &mut self.random);
        }
    }

    /// The server knows no such licence under a name. Where another key or user opens it, that is asked instead. Returns
    /// whether there is one.
    pub(super) fn drop_name(
        &mut self,
        now: Moment,
        no: LicenseNo,
        hardware_id: &str,
        asked: Option<&Subject>,
    ) -> bool {
        let Some(license) = self.book.license(no) else {
            return false;
        };
        let first = self.book.first_of(license).no;
        let used = match asked {
            Some(asked) => asked.holder.clone(),
            None => self.book.subject_of(license, hardware_id).holder,
        };
        let names = || self.book.names_of(first).map(|(name, _)| name);
        if names().all(|name| name.holder == used) {
            return false;
        }
        let closed: Vec<Name> = names()
            .filter(|name| name.holder == used)
            .cloned()
            .collect();
        if closed.is_empty() {
            // It opens the licence no more, and the device has no other name: asked for slowly.
            self.probe_later(now, first);
            return true;
        }
        self.close_names(now, first, &closed);
        if let Some(license) = self.book.licenses.get_mut(&no) {
            license.refresh_at = now.mono;
        }
        true
    }

    /// What an answer says of the name that asked: it opens this licence, and is a request without an id for it. An answer
    /// that may be old moves nothing.
    pub(super) fn point(&mut self, now: Moment, found: &LicenseFound, no: LicenseNo) {
        let subject = &found.subject;
        let id = found.body.counter.id;
        if subject.license_id.is_some_and(|asked| asked != id) {
            return;
        }
        let name = Name::of(subject);
        let mut opens = self.book.opens(&name).cloned().unwrap_or_default();
        let former = opens.default.filter(|former| *former != no);
        opens.licenses.insert(no);
        let is_moved = subject.license_id.is_none() && (found.is_fresh || former.is_none());
        if is_moved {
            opens.default = Some(no);
        }
        self.rename(now, no, |book| book.set_name(&name, opens));
        let (Some(former), Holder::LicenseKey(_)) = (former, &name.holder) else {
            return;
        };
        if is_moved {
            // A key opens one licence at a time.
            self.unname(now, former, &name);
        } else if let Some(license) = self.book.licenses.get_mut(&former) {
            license.refresh_at = now.mono;
        }
    }

    /// A name no longer opens a licence; a key does so on no device.
    fn unname(&mut self, now: Moment, no: LicenseNo, name: &Name) {
        let is_key = matches!(name.holder, Holder::LicenseKey(_));
        let closed: Vec<Name> = self
            .book
            .names_of(no)
            .map(|(known, _)| known)
            .filter(|known| {
                let is_there = is_key || known.hardware_id == name.hardware_id;
                known.product == name.product && known.holder == name.holder && is_there
            })
            .cloned()
            .collect();
        self.close_names(now, no, &closed);
    }

    fn close_names(&mut self, now: Moment, no: LicenseNo, closed: &[Name]) {
        for name in closed {
            tracing::warn!(
                license = no.0,
                product = name.product,
                holder = ?name.holder,
                hardware_id = name.hardware_id,
                "a name no longer opens a licence"
            );
        }
        self.rename(now, no, |book| {
            for name in closed {
                book.close_name(name, no);
            }
        });
        self.lose_devices(now, no);
    }

    /// A licence that no name opens on a device is as good as refused there: asked for slowly, and what is owed waits.
    fn lose_devices(&mut self, now: Moment, no: LicenseNo) {
        let Some(license) = self.book.license(no) else {
            return;
        };
        let named: BTreeSet<&str> = self
            .book
            .names_of(no)
            .map(|(name, _)| name.hardware_id.as_str())
            .collect();
        let lost: Vec<String> = license
            .devices
            .iter()
            .filter(|(device, refused)| refused.is_none() && !named.contains(device.as_str()))
            .map(|(device, _)| device.clone())
            .collect();
        for device in lost {
            self.lose_device(now, no, device);
        }
    }

    fn lose_device(&mut self, now: Moment, no: LicenseNo, device: String) {
        if let Some(license) = self.book.license_mut(no) {
            let code = ErrorCode::LicenseNotFound;
            license.devices.insert(device, Some(code));
        }
        self.probe_later(now, no);
        self.schedule_refresh(now, no);
    }

    /// Changes names of a licence. Batches that were sent under another name than they would be now are not the same bytes
    /// any more: their keys say nothing, and those that were certainly not counted go on under another id.
    fn rename(&mut self, now: Moment, no: LicenseNo, change: impl FnOnce(&mut Book)) {
        let sent_as = |core: &Self| -> Vec<(BatchNo, Option<Holder>)> {
            let Some(license) = core.book.license(no) else {
                return Vec::new();
            };
            let accounts = core.book.same_id(license);
            accounts
                .flat_map(|license| core.book.account_numbers_of(license.no))
                .flat_map(|account| core.book.any_batches_of(account))
                .filter(|batch| batch.sealed.is_some())
                .map(|batch| {
                    let request = core.book.request_of(batch);
                    (batch.no, request.map(|request| request.subject.holder))
                })
                .collect()
        };
        let before = sent_as(self);
        change(&mut self.book);
        let after = sent_as(self);
        for ((batch, before), (_, after)) in before.into_iter().zip(after) {
            if before == after {
                continue;
            }
            let found = self.book.batch(batch);
            let sealed = found.and_then(|batch| batch.sealed.as_ref());
            // Refused, it may have been counted all the same.
            let is_clear = sealed.is_some_and(|sealed| sealed.refused_at.is_none());
            match found.map(|batch| batch.state) {
                Some(BatchState::Sealed) if is_clear => self.reseal(now, batch),
                _ => {
                    if let Some(sealed) = self.sealed_mut(batch) {
                        sealed.peer = None;
                    }
                }
            }
        }
    }

    /// Whether a request that is refused so may be for another licence by now: it names none by id, and the one that it was
    /// for is gone, or gone from the device. The server is asked, while it can be.
    pub fn may_be_another(&self, subject: &Subject, code: ErrorCode) -> bool {
        let is_gone = matches!(code, ErrorCode::LicenseNotFound | ErrorCode::DeviceNotFound);
        is_gone && subject.license_id.is_none() && self.link.is_up()
    }

    /// The account of a counter that a reading is about: the one with a batch that may have been counted, where an older
    /// version made several.
    pub(super) fn told_account(&self, no: AccountNo) -> AccountNo {
        let Some(account) = self.book.accounts.get(&no) else {
            return no;
        };
        let twins = self.book.twins_of(account);
        let mut accounts = std::iter::once(account).chain(twins);
        let doubtful = accounts.find(|account| self.is_doubtful(account.no));
        doubtful.map_or(no, |account| account.no)
    }

    /// Whether a batch of an account is under way, or may have been counted.
    pub(super) fn is_doubtful(&self, no: AccountNo) -> bool {
        let mut batches = self.book.any_batches_of(no);
        batches.any(|batch| matches!(batch.state, BatchState::Sent | BatchState::Unknown { .. }))
    }

    /// Accounts of one counter stand as one of them does.
    pub(super) fn tell_twins(&mut self, no: AccountNo) {
        let Some(account) = self.book.accounts.get(&no) else {
            return;
        };
        let twins: Vec<AccountNo> = self.book.twins_of(account).iter().map(|it| it.no).collect();
        let told = (
            account.standing,
            account.heard_at,
            account.stale,
            account.shared,
        );
        for twin in twins {
            if let Some(twin) = self.book.account_mut(twin) {
                (twin.standing, twin.heard_at, twin.stale, twin.shared) = told;
                twin.watch.fell_at = None;
            }
        }
    }

    /// The licences of the same id as one, itself among them.
    pub(super) fn licenses_of_id(&self, no: LicenseNo) -> Vec<LicenseNo> {
        let license = self.book.license(no);
        let same = license.map(|license| self.book.same_id(license));
        same.into_iter().flatten().map(|it| it.no).collect()
    }

    /// A licence was forgotten: no name opens it.
    pub(super) fn forget_names(&mut self, no: LicenseNo) {
        let names: Vec<Name> = self
            .book
            .names_of(no)
            .map(|(name, _)| name.clone())
            .collect();
        for name in names {
            self.book.close_name(&name, no);
        }
        for no in self.licenses_of_id(no) {
            if let Some(license) = self.book.license_mut(no) {
                license.devices.clear();
                license.blocked = None;
            }
        }
    }
}
