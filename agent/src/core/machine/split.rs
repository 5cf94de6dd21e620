//! Splitting at the limit: the longest prefix of a batch's rows that fits is sent, the rest is held.

use tally_shared::{limits::Standing, units::Units};

use crate::core::{
    Core,
    book::{Account, Batch, BatchNo, BatchState, Dropped, Hold},
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
        let Some(old) = self.book.batch(no).cloned() else {
            return;
        };
        if !matches!(old.state, BatchState::Held(Hold::Limit { .. })) {
            return;
        }
        let Some(prefix) = prefix else {
            self.hold(now, no, Hold::Limit { room_seen: room });
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
            dropped: Dropped::default(),
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

    fn find_prefix(&self, now: Moment, account: &Account) -> Option<Command> {
        let (batch, room_seen) =
            self.book
                .batches_of(account.no)
                .into_iter()
                .find_map(|batch| match batch.state {
                    BatchState::Held(Hold::Limit { room_seen }) => Some((batch, room_seen)),
                    _ => None,
                })?;
        let setting = batch.dropped.leave(self.book.lane(batch.lane)?.key.setting);
        let limits = account.standing.limits.with(setting);
        let room = Standing {
            limits,
            ..account.standing
        }
        .room(Units::ZERO, now.time);
        let news = room.is_none_or(|room| room > 0 && room_seen.is_none_or(|seen| room > seen));
        news.then_some(Command::FindPrefix {
            batch: batch.no,
            lane: batch.lane,
            first: batch.first,
            last: batch.last,
            room,
        })
    }

    /// Whether nothing of an account is under way or about to be, and its total is the server's.
    fn is_calm(&self, now: Moment, account: &Account) -> bool {
        !Self::total_is_stale(now, account)
            && self
                .book
                .batches_of(account.no)
                .iter()
                .all(|batch| match batch.state {
                    BatchState::Held(_) => true,
                    // Rows that were refused once and go out again take the room that there is.
                    BatchState::Open => batch.refusals == 0,
                    _ => false,
                })
    }
}
