//! Consumption pools: several licences draw from one counter, and what fits is the smaller of both.

use tally_shared::{
    limits::{Limits, OverageSetting, Refusal, Request, Standing, decide},
    time::Timestamp,
    units::Units,
    wire::PoolCounter,
};

use super::{Account, Batch, BatchState, Book, Hold, Pool};

impl Pool {
    /// A pool, as an answer described it at that time.
    pub fn of(pool: &PoolCounter, as_of: Timestamp) -> Self {
        Self {
            id: pool.id.unwrap_or_default(),
            name: pool.name.clone().unwrap_or_default(),
            standing: pool.standing(as_of),
        }
    }
}

impl Book {
    /// The pool of an account, by the newest word on it, whichever of its licences that was about.
    pub(in crate::core) fn pool_of(&self, account: &Account) -> Option<&Pool> {
        self.newest_pool(account.pool.as_ref()?.id)
    }

    fn newest_pool(&self, id: i64) -> Option<&Pool> {
        let pools = self.accounts.values().filter_map(|it| it.pool.as_ref());
        pools
            .filter(|pool| pool.id == id)
            .max_by_key(|pool| pool.standing.as_of)
    }

    /// A pool as it was told now, to a question of that time. Where something was heard of it since, by another of its
    /// licences, the server may have made this answer before: its total stands for no less than was heard.
    pub(in crate::core) fn told_pool(&self, told: Pool, asked: Timestamp) -> Pool {
        let heard = self
            .newest_pool(told.id)
            .filter(|heard| heard.standing.as_of > asked);
        let heard = heard.map(|heard| heard.standing.total_at(told.standing.as_of));
        let total = heard.map_or(told.standing.total, |heard| heard.max(told.standing.total));
        let standing = Standing {
            total,
            ..told.standing
        };
        Pool { standing, ..told }
    }

    /// What is granted of a pool in its current period and not in its total. `counts` says of which batches.
    fn pending_of(
        &self,
        pool: &Pool,
        now: Timestamp,
        counts: impl Fn(&Batch) -> bool,
    ) -> Option<Units> {
        self.accounts
            .values()
            .filter(|account| account.pool.as_ref().is_some_and(|it| it.id == pool.id))
            .flat_map(|account| self.any_batches_of(account.no))
            .filter(|batch| counts(batch))
            .filter(|batch| {
                let period = self.lanes.get(&batch.lane).and_then(|lane| lane.key.period);
                period.is_none() || period >= pool.standing.period_start(now)
            })
            .try_fold(Units::ZERO, |sum, batch| sum.checked_add(batch.units))
    }

    /// Decides units of an account by its pool; gives the pool as it stands with them.
    ///
    /// # Errors
    ///
    /// A [`Refusal`], as the server's would be.
    pub(in crate::core) fn decide_by_pool(
        &self,
        account: &Account,
        units: Units,
        now: Timestamp,
    ) -> Result<Option<PoolCounter>, Refusal> {
        let Some(pool) = self.pool_of(account) else {
            return Ok(None);
        };
        let pending = self.pending_of(pool, now, |_| true);
        let request = Request {
            units,
            setting: OverageSetting::default(),
        };
        let pending = pending.ok_or(Refusal::Overflow)?;
        let grant = decide(&pool.standing, pending, &request, now)?;
        let (id, name) = (pool.id, pool.name.as_str());
        let told = PoolCounter::new(id, name, &pool.standing, grant.total);
        Ok(Some(told))
    }

    /// Decides units of an account where the server lately refused some although its total left room: only what it is
    /// believed to take is granted, as long as any of them wait.
    ///
    /// # Errors
    ///
    /// A [`Refusal`], as the server's would be.
    pub(in crate::core) fn decide_by_refusals(
        &self,
        account: &Account,
        pending: Units,
        units: Units,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let is_held = |batch: &Batch| matches!(batch.state, BatchState::Held(Hold::Limit { .. }));
        let (Some(room), true) = (account.watch.believed_room, units > Units::ZERO) else {
            return Ok(());
        };
        if !self.any_batches_of(account.no).any(is_held) {
            return Ok(());
        }
        let total = account.standing.total_at(now);
        let believed = Standing {
            limits: Limits {
                max_consumptions: total.get().saturating_add(room),
                allow_unlimited_consumptions: false,
                allow_overages: false,
                ..account.standing.limits
            },
            ..account.standing
        };
        let request = Request {
            units,
            setting: OverageSetting::default(),
        };
        decide(&believed, pending, &request, now).map(|_| ())
    }

    /// How many units of a batch fit now, by its account and by the pool; `None` where there is no bound. Nothing of the
    /// account is under way; what other accounts of the pool send takes room.
    pub(in crate::core) fn room_for(
        &self,
        account: &Account,
        batch: &Batch,
        now: Timestamp,
    ) -> Option<i64> {
        let own = Standing {
            limits: account.standing.limits.with(self.setting_of(batch)),
            ..account.standing
        };
        smaller(own.room(Units::ZERO, now), self.room_of_pool(account, now))
    }

    /// How many units the server's totals leave of an account.
    pub(in crate::core) fn room_left(&self, account: &Account, now: Timestamp) -> Option<i64> {
        let own = account.standing.room(Units::ZERO, now);
        smaller(own, self.room_of_pool(account, now))
    }

    fn room_of_pool(&self, account: &Account, now: Timestamp) -> Option<i64> {
        let pool = self.pool_of(account)?;
        let of_others = self.pending_of(pool, now, |batch| {
            batch.account != account.no && !matches!(batch.state, BatchState::Held(_))
        });
        // More than fits in 64 bits leaves nothing.
        of_others.map_or(Some(0), |pending| pool.standing.room(pending, now))
    }
}

/// The smaller of two rooms; one without a bound is the larger.
fn smaller(one: Option<i64>, other: Option<i64>) -> Option<i64> {
    one.into_iter().chain(other).min()
}
