//! Licences. Read with their totals brought to the present: where a period has turned, they are zero.

use rusqlite::{OptionalExtension as _, Row, named_params};
use tally_shared::{
    time::Timestamp,
    wire::{Holder, Subject},
};

use super::{Tx, from_json, to_json};
use crate::engine::state::{DeviceState, License};

/// A licence's row in the database.
#[derive(Debug)]
pub(super) struct LicenseRow {
    pub(super) product: String,
    pub(super) license_key: Option<String>,
    pub(super) username: Option<String>,
    pub(super) as_of_ms: i64,
    pub(super) document: String,
}

impl Tx<'_> {
    /// The licence that a request names. Of several that a user holds, the one whose id it has; without an id, the first
    /// of those on which its device is active, and else the first of all.
    pub(crate) fn find_license(
        &self,
        subject: &Subject,
        now: Timestamp,
    ) -> rusqlite::Result<Option<License>> {
        let query = match subject.holder {
            Holder::LicenseKey(_) => {
                "SELECT as_of_ms, document FROM licenses
                 WHERE product = :product AND license_key = :holder AND (:id IS NULL OR id = :id)
                 ORDER BY id"
            }
            Holder::Username(_) => {
                "SELECT as_of_ms, document FROM licenses
                 WHERE product = :product AND username = :holder AND (:id IS NULL OR id = :id)
                 ORDER BY id"
            }
        };
        let parameters = named_params! {
            ":product": subject.product,
            ":holder": subject.holder.value(),
            ":id": subject.license_id,
        };
        let mut statement = self.transaction.prepare_cached(query)?;
        let held = statement.query_map(parameters, |row| read(row, now))?;
        let mut first = None;
        for license in held {
            let license = license?;
            if license.device(&subject.hardware_id) == Some(DeviceState::Active) {
                return Ok(Some(license));
            }
            first = first.or(Some(license));
        }
        Ok(first)
    }

    /// The licence of that id.
    pub(crate) fn license(&self, id: i64, now: Timestamp) -> rusqlite::Result<Option<License>> {
        self.transaction
            .prepare_cached("SELECT as_of_ms, document FROM licenses WHERE id = :id")?
            .query_row(named_params! { ":id": id }, |row| read(row, now))
            .optional()
    }

    /// Every licence, by id.
    pub(crate) fn licenses(&self, now: Timestamp) -> rusqlite::Result<Vec<License>> {
        self.transaction
            .prepare_cached("SELECT as_of_ms, document FROM licenses ORDER BY id")?
            .query_map([], |row| read(row, now))?
            .collect()
    }

    /// Adds or replaces a licence, whose totals are right at `now`; the others of its pool get the pool as it has it.
    pub(crate) fn put_license(&self, license: &License, now: Timestamp) -> rusqlite::Result<()> {
        if let Some(pool) = &license.pool {
            for mut other in self.licenses(now)? {
                let shares = other.pool.as_ref().is_some_and(|it| it.id == pool.id);
                if shares && other.id != license.id {
                    other.pool = Some(pool.clone());
                    self.put_row(&other, now)?;
                }
            }
        }
        self.put_row(license, now)
    }

    fn put_row(&self, license: &License, now: Timestamp) -> rusqlite::Result<()> {
        self.note_license(license.id, now)?;
        let row = LicenseRow {
            product: license.product.clone(),
            license_key: license.license_key.clone(),
            username: license.username.clone(),
            as_of_ms: now.as_millis(),
            document: to_json(license)?,
        };
        self.write_row(license.id, &row)
    }

    /// Writes a licence's row as it stands here, and notes nothing.
    pub(super) fn write_row(&self, id: i64, row: &LicenseRow) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO licenses
                 (id, product, license_key, username, as_of_ms, document)
                 VALUES (:id, :product, :license_key, :username, :as_of_ms, :document)",
            )?
            .execute(named_params! {
                ":id": id,
                ":product": row.product,
                ":license_key": row.license_key,
                ":username": row.username,
                ":as_of_ms": row.as_of_ms,
                ":document": row.document,
            })
            .map(drop)
    }
}

impl Tx<'_> {
    /// Removes a licence; says whether it was there.
    pub(crate) fn remove_license(&self, id: i64, now: Timestamp) -> rusqlite::Result<bool> {
        self.note_license(id, now)?;
        self.remove_row(id)
    }

    pub(super) fn remove_row(&self, id: i64) -> rusqlite::Result<bool> {
        let removed = self
            .transaction
            .prepare_cached("DELETE FROM licenses WHERE id = :id")?
            .execute(named_params! { ":id": id })?;
        Ok(removed > 0)
    }
}

fn read(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<License> {
    let mut license: License = from_json(row.get_ref("document")?.as_str()?)?;
    license.carry(Timestamp::from_millis(row.get("as_of_ms")?), now);
    Ok(license)
}
