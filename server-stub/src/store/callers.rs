//! API keys and products. Products are set by the seed, and only read afterwards.

use rusqlite::{OptionalExtension as _, named_params};

use super::{Tx, from_json, to_json};
use crate::seed::ApiKey;

impl Tx<'_> {
    /// The API key of that name.
    pub(crate) fn api_key(&self, name: &str) -> rusqlite::Result<Option<ApiKey>> {
        self.transaction
            .prepare_cached("SELECT shared_key, state FROM api_keys WHERE api_key = :name")?
            .query_row(named_params! { ":name": name }, |row| {
                Ok(ApiKey {
                    api_key: name.to_owned(),
                    shared_key: row.get(0)?,
                    state: from_json(row.get_ref(1)?.as_str()?)?,
                })
            })
            .optional()
    }

    /// Every API key, by name.
    pub(crate) fn api_keys(&self) -> rusqlite::Result<Vec<ApiKey>> {
        self.transaction
            .prepare_cached("SELECT api_key, shared_key, state FROM api_keys ORDER BY api_key")?
            .query_map([], |row| {
                Ok(ApiKey {
                    api_key: row.get(0)?,
                    shared_key: row.get(1)?,
                    state: from_json(row.get_ref(2)?.as_str()?)?,
                })
            })?
            .collect()
    }

    /// Removes an API key; says whether it was there.
    pub(crate) fn remove_api_key(&self, name: &str) -> rusqlite::Result<bool> {
        let removed = self
            .transaction
            .prepare_cached("DELETE FROM api_keys WHERE api_key = :name")?
            .execute(named_params! { ":name": name })?;
        Ok(removed > 0)
    }

    /// Adds an API key, or puts it in the place of the one of its name.
    pub(crate) fn put_api_key(&self, key: &ApiKey) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO api_keys (api_key, shared_key, state)
                 VALUES (:api_key, :shared_key, :state)",
            )?
            .execute(named_params! {
                ":api_key": key.api_key,
                ":shared_key": key.shared_key,
                ":state": to_json(&key.state)?,
            })
            .map(drop)
    }

    /// Whether there is a product of that code.
    pub(crate) fn has_product(&self, code: &str) -> rusqlite::Result<bool> {
        self.transaction
            .prepare_cached("SELECT 1 FROM products WHERE code = :code")?
            .exists(named_params! { ":code": code })
    }

    /// The codes of all products.
    pub(crate) fn products(&self) -> rusqlite::Result<Vec<String>> {
        self.transaction
            .prepare_cached("SELECT code FROM products ORDER BY code")?
            .query_map([], |row| row.get(0))?
            .collect()
    }

    /// Adds a product.
    pub(super) fn add_product(&self, code: &str) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached("INSERT INTO products VALUES (:code)")?
            .execute(named_params! { ":code": code })
            .map(drop)
    }
}
