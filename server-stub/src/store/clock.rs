//! How far the stub's clock is from the system's; a restart does not turn it back.

use rusqlite::named_params;

use super::Tx;

impl Tx<'_> {
    /// The stored offset.
    pub(crate) fn clock_offset_ms(&self) -> rusqlite::Result<i64> {
        self.transaction
            .prepare_cached("SELECT offset_ms FROM clock WHERE id = 1")?
            .query_row([], |row| row.get(0))
    }

    /// Stores the offset.
    pub(crate) fn set_clock_offset_ms(&self, offset_ms: i64) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("UPDATE clock SET offset_ms = :offset_ms WHERE id = 1")?
            .execute(named_params! { ":offset_ms": offset_ms })
            .map(drop)
    }
}
