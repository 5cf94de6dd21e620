//! The first answer under each idempotency key, kept until a tester has them forgotten.

use bytes::Bytes;
use rusqlite::{OptionalExtension as _, named_params};

use super::Tx;
use crate::engine::{
    answer::Answer,
    idempotency::{Fingerprint, ScopedKey},
};

impl Tx<'_> {
    /// The stored answer, and the fingerprint of the request that it answered.
    pub(crate) fn answer(
        &self,
        key: &ScopedKey,
    ) -> rusqlite::Result<Option<(Fingerprint, Answer)>> {
        self.transaction
            .prepare_cached(
                "SELECT fingerprint, status, body, signature FROM answers
                 WHERE api_key = :api_key AND idempotency_key = :key",
            )?
            .query_row(
                named_params! { ":api_key": key.api_key, ":key": key.key },
                |row| {
                    let answer = Answer {
                        status: row.get("status")?,
                        body: Bytes::from(row.get::<_, Vec<u8>>("body")?),
                        signature: row.get("signature")?,
                    };
                    Ok((row.get("fingerprint")?, answer))
                },
            )
            .optional()
    }

    /// Stores the first answer.
    pub(crate) fn add_answer(
        &self,
        key: &ScopedKey,
        fingerprint: &Fingerprint,
        answer: &Answer,
    ) -> rusqlite::Result<()> {
        self.transaction
            .prepare_cached(
                "INSERT INTO answers
                 (api_key, idempotency_key, fingerprint, status, body, signature)
                 VALUES (:api_key, :key, :fingerprint, :status, :body, :signature)",
            )?
            .execute(named_params! {
                ":api_key": key.api_key,
                ":key": key.key,
                ":fingerprint": fingerprint,
                ":status": answer.status,
                ":body": answer.body.as_ref(),
                ":signature": answer.signature,
            })?;
        self.note_answer(key);
        Ok(())
    }

    /// Forgets every answer, and the keys with them; says how many there were.
    pub(crate) fn forget_answers(&self) -> rusqlite::Result<usize> {
        self.transaction
            .prepare_cached("DELETE FROM answers")?
            .execute([])
    }
}
