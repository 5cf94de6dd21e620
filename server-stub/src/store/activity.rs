//! The activity log: appended to; only a store that goes back loses rows of it.

use rusqlite::named_params;
use tally_shared::{
    time::Timestamp,
    units::{Total, Units},
};

use super::{Tx, from_json, to_json};
use crate::engine::activity::Activity;

impl Tx<'_> {
    /// Appends a granted request, and says at which place.
    pub(crate) fn add_activity(&self, activity: Activity) -> rusqlite::Result<Activity> {
        self.transaction
            .prepare_cached(
                "INSERT INTO activity (license_id, feature, event, units, total, hardware_id, at_ms)
                 VALUES (:license_id, :feature, :event, :units, :total, :hardware_id, :at_ms)",
            )?
            .execute(named_params! {
                ":license_id": activity.license_id,
                ":feature": activity.feature,
                ":event": to_json(&activity.event)?,
                ":units": activity.units.get(),
                ":total": activity.total.get(),
                ":hardware_id": activity.hardware_id,
                ":at_ms": activity.at.as_millis(),
            })?;
        let seq = self.transaction.last_insert_rowid();
        self.note_activity(seq);
        Ok(Activity { seq, ..activity })
    }

    /// The log, oldest first; of one licence, where one is given.
    pub(crate) fn activity(&self, license_id: Option<i64>) -> rusqlite::Result<Vec<Activity>> {
        self.transaction
            .prepare_cached(
                "SELECT seq, license_id, feature, event, units, total, hardware_id, at_ms FROM activity
                 WHERE :license_id IS NULL OR license_id = :license_id ORDER BY seq",
            )?
            .query_map(named_params! { ":license_id": license_id }, |row| {
                Ok(Activity {
                    seq: row.get("seq")?,
                    license_id: row.get("license_id")?,
                    feature: row.get("feature")?,
                    event: from_json(row.get_ref("event")?.as_str()?)?,
                    units: Units::new(row.get("units")?),
                    total: Total::new(row.get("total")?),
                    hardware_id: row.get("hardware_id")?,
                    at: Timestamp::from_millis(row.get("at_ms")?),
                })
            })?
            .collect()
    }
}
