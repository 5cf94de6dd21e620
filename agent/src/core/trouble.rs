//! What the status tells of a licence's trouble: the pool that limits it, a refusal that its total does not explain, and an
//! answer that was lost.

use serde::Serialize;
use tally_shared::{
    time::Timestamp,
    units::{Total, Units},
};

use super::{
    Core,
    book::{Account, BatchState},
    clock::Moment,
};

/// A consumption pool that limits several licences together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PoolStatus {
    /// The server's id of it.
    pub id: i64,
    /// For people.
    pub name: String,
    /// The highest total that is allowed, overage included; `None` without bound.
    pub cap: Option<i64>,
    /// The pool's total that requests are judged by: the server's, and what its licences have granted here and the server has
    /// not counted.
    pub total: Total,
}

/// A batch whose answer was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UnknownBatch {
    /// Its number.
    pub batch: i64,
    /// Its units.
    pub units: Units,
    /// The device.
    pub hardware_id: String,
    /// From when on a person may decide about it: its request can no longer arrive then.
    pub decidable_at: Timestamp,
}

impl Core {
    pub(super) fn pool_status(&self, now: Moment, account: &Account) -> Option<PoolStatus> {
        let pool = self.book().pool_of(account)?;
        let told = self
            .book()
            .decide_by_pool(account, Units::ZERO, now.time)
            .ok();
        let total = told.flatten().and_then(|told| told.total_consumptions);
        Some(PoolStatus {
            id: pool.id,
            name: pool.name.clone(),
            cap: pool.standing.limits.cap(),
            total: total.unwrap_or(pool.standing.total),
        })
    }

    /// How many units an account's total leaves, where the server refuses for the limit all the same.
    pub(super) fn refused_with_room(&self, now: Moment, account: &Account) -> Option<i64> {
        self.is_contradicted(account).then(|| {
            let left = self.book().room_left(account, now.time);
            left.unwrap_or(i64::MAX)
        })
    }

    pub(super) fn unknown_batch(&self, now: Moment, account: &Account) -> Option<UnknownBatch> {
        let mut batches = self.book().any_batches_of(account.no);
        let batch = batches.find(|batch| matches!(batch.state, BatchState::Unknown { .. }))?;
        let until = batch.sealed.as_ref()?.readings.arrives_until;
        let lane = self.book().lane(batch.lane)?;
        Some(UnknownBatch {
            batch: batch.no.0,
            units: batch.units,
            hardware_id: lane.key.hardware_id.clone(),
            decidable_at: now.time.plus(until.saturating_sub(now.mono)),
        })
    }
}
