//! Licences. Read with their totals brought to the present: where a period has turned, they are zero.

use rusqlite::{OptionalExtension as _, Row, named_params};
use tally_shared::{
    time::Timestamp,
    wire::{Holder, Subject},
};

use super::{Tx, from_json, to_json};
use crate::engine::state::License;

impl Tx<'_> {
    /// The licence that a request names; of several that a user holds, the first by id.
    pub(crate) fn find_license(
        &self,
        subject: &Subject,
        now: Timestamp,
    ) -> rusqlite::Result<Option<License>> {
        let query = match subject.holder {
            Holder::LicenseKey(_) => {
                "SELECT as_of_ms, document FROM licenses
                 WHERE product = :product AND license_key = :holder AND (:id IS NULL OR id = :id)
                 ORDER BY id LIMIT 1"
            }
            Holder::Username(_) => {
                "SELECT as_of_ms, document FROM licenses
                 WHERE product = :product AND username = :holder AND (:id IS NULL OR id = :id)
                 ORDER BY id LIMIT 1"
            }
        };
        let parameters = named_params! {
            ":product": subject.product,
            ":holder": subject.holder.value(),
            ":id": subject.license_id,
        };
        self.0
            .prepare_cached(query)?
            .query_row(parameters, |row| read(row, now))
            .optional()
    }

    /// The licence of that id.
    pub(crate) fn license(&self, id: i64, now: Timestamp) -> rusqlite::Result<Option<License>> {
        self.0
            .prepare_cached("SELECT as_of_ms, document FROM licenses WHERE id = :id")?
            .query_row(named_params! { ":id": id }, |row| read(row, now))
            .optional()
    }

    /// Every licence, by id.
    pub(crate) fn licenses(&self, now: Timestamp) -> rusqlite::Result<Vec<License>> {
        self.0
            .prepare_cached("SELECT as_of_ms, document FROM licenses ORDER BY id")?
            .query_map([], |row| read(row, now))?
            .collect()
    }

    /// Adds or replaces a licence, whose totals are right at `now`.
    pub(crate) fn put_license(&self, license: &License, now: Timestamp) -> rusqlite::Result<()> {
        self.0
            .prepare_cached(
                "INSERT OR REPLACE INTO licenses
                 (id, product, license_key, username, as_of_ms, document)
                 VALUES (:id, :product, :license_key, :username, :as_of_ms, :document)",
            )?
            .execute(named_params! {
                ":id": license.id,
                ":product": license.product,
                ":license_key": license.license_key,
                ":username": license.username,
                ":as_of_ms": now.as_millis(),
                ":document": to_json(license)?,
            })
            .map(drop)
    }
}

fn read(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<License> {
    let mut license: License = from_json(row.get_ref("document")?.as_str()?)?;
    license.carry(Timestamp::from_millis(row.get("as_of_ms")?), now);
    Ok(license)
}
