//! Refusals for the limit that the total does not explain: a pool that nobody tells of, another rule, a replica that is
//! behind. They are tried again ever more slowly, with ever fewer units, until the server counts some or room is made.

use crate::core::{
    Core,
    book::{Account, AccountNo, Batch, BatchNo, BatchState, Hold, Pause},
    clock::Moment,
};

impl Core {
    /// The oldest batch that is held for the limit on a device that the server accepts. Later ones wait for it: what was
    /// granted first is counted first.
    pub(super) fn held_for_limit(&self, account: &Account) -> Option<&Batch> {
        let license = self.book.license(account.license)?;
        let batches = self.book.batches_of(account.no);
        batches.into_iter().find(|batch| {
            let lane = self.book.lane(batch.lane);
            matches!(batch.state, BatchState::Held(Hold::Limit { .. }))
                && lane.is_some_and(|lane| license.accepts(&lane.key.hardware_id))
        })
    }

    /// Looks at the batches that were refused for the limit, once the total was read after that.
    pub(super) fn notice_contradictions(&mut self, now: Moment) {
        let noticed: Vec<(AccountNo, BatchNo, i64, i64)> = self
            .book
            .accounts
            .values()
            .filter(|account| self.is_calm(now, account))
            .filter_map(|account| {
                let batch = self.held_for_limit(account)?;
                let room = self.unexplained(now, account, batch)?;
                Some((account.no, batch.no, room, batch.units.get()))
            })
            .collect();
        for (no, batch, room, units) in noticed {
            self.contradict(now, no, units);
            let hold = BatchState::Held(Hold::Limit {
                room_seen: Some(room),
            });
            // Not kept on disk, but put back with the account where the commit fails.
            self.set_state(batch, hold);
        }
    }

    /// The room that the total leaves for a batch which was refused for the limit, where the total was no higher and the limit
    /// no lower when it was refused.
    fn unexplained(&self, now: Moment, account: &Account, batch: &Batch) -> Option<i64> {
        let sealed = batch.sealed.as_ref().filter(|sealed| sealed.attempts > 0)?;
        if batch.state != BatchState::Held(Hold::Limit { room_seen: None }) {
            return None;
        }
        let (before, standing) = (&sealed.before, &account.standing);
        let setting = self.book.setting_of(batch);
        let cap =
            |limits: tally_shared::limits::Limits| limits.with(setting).cap().unwrap_or(i64::MAX);
        let is_same_period = standing.period_start(before.as_of) == standing.period_start(now.time);
        let is_raised = cap(standing.limits) > cap(before.limits);
        let is_lower = standing.total_at(now.time) < before.total;
        if !is_same_period || is_raised || is_lower {
            return None;
        }
        let room = self.book.room_for(account, batch, now.time);
        let room = room.unwrap_or(i64::MAX);
        (batch.units.get() <= room).then_some(room)
    }

    fn contradict(&mut self, now: Moment, no: AccountNo, units: i64) {
        self.pause_account(now, no);
        let Some(account) = self.book.account_mut(no) else {
            return;
        };
        let watch = &mut account.watch;
        if watch.believed_room.is_none() {
            tracing::warn!(
                account = no.0,
                feature = account.feature,
                units,
                "the server refuses for the limit although its total leaves room: a pool? It is tried again slowly"
            );
        }
        let believed = watch.believed_room.unwrap_or(units).min(units);
        watch.believed_room = Some(believed / 2);
    }

    /// The server has counted, or has made room: the total is believed again.
    pub(super) fn forget_contradiction(&mut self, no: AccountNo) {
        let is_contradicted = |account: &Account| account.watch.believed_room.is_some();
        if !self.book.accounts.get(&no).is_some_and(is_contradicted) {
            return;
        }
        if let Some(account) = self.book.account_mut(no) {
            account.watch.believed_room = None;
            account.watch.contradicted = Pause::default();
        }
        self.look_at_room_anew(no);
    }

    /// What was found too little before says nothing any more of the batches that are held for the limit.
    fn look_at_room_anew(&mut self, no: AccountNo) {
        let held: Vec<BatchNo> = self
            .book
            .batches_of(no)
            .into_iter()
            .filter(|batch| matches!(batch.state, BatchState::Held(Hold::Limit { .. })))
            .map(|batch| batch.no)
            .collect();
        for batch in held {
            self.set_state(batch, BatchState::Held(Hold::Limit { room_seen: None }));
        }
    }

    /// Whether an account waits after a refusal that its total does not explain.
    pub(in crate::core) fn is_contradicted(&self, account: &Account) -> bool {
        account.watch.believed_room.is_some() && self.held_for_limit(account).is_some()
    }
}
