//! Splitting at the limit: the longest prefix of a batch's rows that fits is sent, the rest is held.

use tally_shared::units::Units;

use crate::core::{
    Core,
    book::{Account, Batch, BatchNo, BatchState, Hold},
    clock::Moment,
    command::Command,
    event::Prefix,
};

impl Core {
    pub(super) fn split(
        &mut self,
        now: Moment,
        no: BatchNo,
        room: Option<i64>,
        prefix: Option<Prefix>,
    ) {
        self.drop_edited_setting_of_held(no);
        let Some(old) = self.book.batch(no).cloned() else {
            return;
        };
        if !matches!(old.state, BatchState::Held(Hold::Limit { .. })) {
            return;
        }
        let Some(prefix) = prefix else {
            self.nothing_fits(now, &old, room);
            return;
        };
        let (Some(next), Some(rest)) = (prefix.next, old.rows.checked_sub(prefix.rows)) else {
            self.reseal(now, no);
            return;
        };
        self.book.end_batch(now, no, BatchState::Superseded);
        let first = Batch {
            last: prefix.last,
            last_hash: prefix.hash,
            rows: prefix.rows,
            units: prefix.units,
            ..old.renewed()
        };
        self.book.add_batch(|no| Batch { no, ..first });
        let rest = Batch {
            first: next,
            rows: rest,
            // In range: both are sums of the same rows.
            units: old.units.checked_sub(prefix.units).unwrap_or(Units::ZERO),
            state: BatchState::Held(Hold::Limit { room_seen: None }),
            sealed: None,
            ..old
        };
        self.book.add_batch(|no| Batch { no, ..rest });
    }

    /// Asks how much fits of each account's oldest batch that is held for the limit, where that may have
    /// changed. Later ones wait for it: what was granted first is counted first.
    pub(super) fn find_prefixes(&self, now: Moment) -> Vec<Command> {
        let calm = self
            .book
            .accounts
            .values()
            .filter(|account| self.is_calm(now, account));
        calm.filter_map(|account| self.find_prefix(now, account))
            .collect()
    }

    /// Not even a batch's first row fits. Where the server's total leaves room for it all the same, what the refusals before
    /// made the agent believe is put to the test now and then.
    fn nothing_fits(&mut self, now: Moment, batch: &Batch, room: Option<i64>) {
        let account = self.book.accounts.get(&batch.account);
        let left = account
            .filter(|account| account.watch.believed_room.is_some())
            .map(|account| self.book.room_for(account, batch, now.time));
        if left.is_some_and(|left| left.is_none_or(|left| batch.units.get() <= left)) {
            self.reseal(now, batch.no);
            return;
        }
        if left.is_some() {
            self.forget_contradiction(batch.account);
        }
        self.hold(now, batch.no, Hold::Limit { room_seen: room });
    }

    fn find_prefix(&self, now: Moment, account: &Account) -> Option<Command> {
        let watch = &account.watch;
        if watch.believed_room.is_some() && now.mono < watch.contradicted.until {
            return None;
        }
        let batch = self.held_for_limit(account)?;
        let BatchState::Held(Hold::Limit { room_seen }) = batch.state else {
            return None;
        };
        if batch.is_unproven() {
            return None;
        }
        let left = self.book.room_for(account, batch, now.time);
        let room = left.into_iter().chain(watch.believed_room).min();
        let news = watch.believed_room.is_some()
            || room.is_none_or(|room| room > 0 && room_seen.is_none_or(|seen| room > seen));
        news.then_some(Command::FindPrefix {
            batch: batch.no,
            lane: batch.lane,
            first: batch.first,
            last: batch.last,
            room,
        })
    }

    /// Whether nothing of an account is under way or about to be, and its total is the server's. What waits for a device that
    /// the server refuses is not about to be.
    pub(super) fn is_calm(&self, now: Moment, account: &Account) -> bool {
        let license = self.book.license(account.license);
        let is_accepted = |batch: &Batch| {
            let lane = self.book.lane(batch.lane);
            license
                .zip(lane)
                .is_some_and(|(license, lane)| license.accepts(&lane.key.hardware_id))
        };
        account.refused.is_none()
            && !Self::total_is_stale(now, account)
            && self
                .book
                .any_batches_of(account.no)
                .all(|batch| match batch.state {
                    BatchState::Held(_) => true,
                    // Rows that were refused once are sent at once; others wait for company.
                    BatchState::Open if batch.refusals == 0 => true,
                    BatchState::Open | BatchState::Sealed => !is_accepted(batch),
                    _ => false,
                })
    }
}
