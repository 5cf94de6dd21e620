//! Answers to requests with an `Idempotency-Key`, remembered in the commit of what they answer, so that
//! an application may retry over any crash.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, params};
use tally_shared::wire::{ApiError, ErrorCode};

use crate::core::{Recorded, book::AppNo, chain::Hash, clock::Moment};

/// A request's `Idempotency-Key`, and what it may be used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestKey {
    /// The key, as the application sent it.
    pub key: String,
    /// A digest of the request.
    pub fingerprint: Hash,
}

/// An answer to an application, as it is sent and as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// Whether this is the stored answer of an earlier request.
    pub replayed: bool,
}

impl Answer {
    /// The answer to a granted consumption.
    pub(super) fn granted(recorded: &Recorded) -> Self {
        match serde_json::to_string(&recorded.answer) {
            Ok(body) => Self {
                status: 200,
                body,
                replayed: false,
            },
            Err(error) => {
                Self::refused(&ApiError::new(ErrorCode::InternalError, error.to_string()))
            }
        }
    }

    /// The answer that carries an error.
    pub fn refused(error: &ApiError) -> Self {
        // Two texts and a number: this cannot fail, and an empty body would be no answer of the contract.
        let body = serde_json::to_string(&error.body()).unwrap_or_default();
        Self {
            status: error.code.status(),
            body,
            replayed: false,
        }
    }
}

/// The remembered answer, and the digest of the request that it answered.
pub(super) fn find(
    connection: &Connection,
    app: AppNo,
    key: &str,
) -> rusqlite::Result<Option<(Hash, Answer)>> {
    connection
        .prepare_cached(
            "SELECT fingerprint, status, answer FROM answers WHERE app = ?1 AND key = ?2",
        )?
        .query_row(params![app.0, key], |row| {
            let answer = Answer {
                status: row.get(1)?,
                body: row.get(2)?,
                replayed: true,
            };
            Ok((Hash(row.get(0)?), answer))
        })
        .optional()
}

/// Remembers an answer, within a transaction, and forgets those that are older than `kept`.
///
/// Only proven times count: a clock that leaps ahead must not make an application's retry a second
/// consumption. An answer from a time that was not proven is as old as the next proven time.
pub(super) fn remember(
    connection: &Connection,
    (now, kept): (Moment, Duration),
    (app, key): (AppNo, &str),
    (fingerprint, answer): &(Hash, Answer),
) -> rusqlite::Result<()> {
    let at = now.time.as_millis();
    connection
        .prepare_cached("INSERT OR REPLACE INTO answers VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
        .execute(params![
            app.0,
            key,
            fingerprint.0,
            answer.status,
            answer.body,
            at,
            now.proven
        ])?;
    if !now.proven {
        return Ok(());
    }
    // A few at a time, so that no single request pays for all.
    connection
        .prepare_cached(
            "UPDATE answers SET at = ?1, proven = 1 WHERE (app, key) IN
             (SELECT app, key FROM answers WHERE NOT proven LIMIT 2)",
        )?
        .execute([at])?;
    let kept = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
    connection
        .prepare_cached(
            "DELETE FROM answers WHERE (app, key) IN
             (SELECT app, key FROM answers WHERE proven AND at < ?1 ORDER BY at LIMIT 2)",
        )?
        .execute([at.saturating_sub(kept)])
        .map(|_| ())
}
