//! One request, one transaction: the licence's change, the activity row and the answer kept for its
//! idempotency key are on disk together, or none of them is.

use tally_shared::{
    time::Timestamp,
    wire::{ApiError, ErrorCode, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX},
};

use super::{auth, error::Failure, incoming::Incoming, order, state::Shared};
use crate::{
    engine::{
        activity::Activity,
        answer::Answer,
        idempotency::{Claim, Fingerprint, ScopedKey, fingerprint},
    },
    store::Tx,
};

/// A request that was carried out.
#[derive(Debug)]
pub(super) struct Executed {
    /// What to answer.
    pub(super) answer: Answer,
    /// The row of the activity log, where it changed the licence.
    pub(super) activity: Option<Activity>,
    /// Whether the answer is that of an earlier request under the same idempotency key.
    pub(super) replayed: bool,
    /// Keeps the idempotency key in use until the answer is on its way.
    pub(super) claim: Option<Claim>,
}

/// How a request stands to those before it under its idempotency key.
enum Turn {
    /// There is no key, or nothing of it to heed.
    Unkeyed,
    /// It is the first.
    First(Claim, Fingerprint),
    /// It was answered before.
    Replay(Answer),
}

/// Carries out a request. Blocks for as long as others use the database.
///
/// # Errors
///
/// A refusal that is not kept under the idempotency key: who sent it is not known, the key is another
/// request's, or the stub failed.
pub(super) fn execute(shared: &Shared, incoming: &Incoming) -> Result<Executed, Failure> {
    let mut store = shared.store();
    let now = shared.clock.now();
    let tx = store.begin()?;
    let api_key = auth::authenticate(&tx, &incoming.headers, incoming.endpoint, now)?;
    let first = match turn(shared, &tx, incoming, api_key.api_key)? {
        Turn::Unkeyed => None,
        Turn::First(claim, fingerprint) => Some((claim, fingerprint)),
        Turn::Replay(answer) => {
            let replayed = true;
            return Ok(Executed {
                replayed,
                ..Executed::unapplied(answer)
            });
        }
    };
    let mut executed = run(shared, &tx, incoming, now)?;
    if let Some((claim, fingerprint)) = first {
        tx.add_answer(claim.key(), &fingerprint, &executed.answer)?;
        executed.claim = Some(claim);
    }
    tx.commit()?;
    Ok(executed)
}

/// A refusal is an answer too: it is kept under the idempotency key like any other.
fn run(
    shared: &Shared,
    tx: &Tx<'_>,
    incoming: &Incoming,
    now: Timestamp,
) -> Result<Executed, Failure> {
    match order::answer(tx, incoming, &shared.signer, now) {
        Ok((answer, activity)) => Ok(Executed {
            activity,
            ..Executed::unapplied(answer)
        }),
        Err(Failure::Refused(refusal)) => Ok(Executed::unapplied(Answer::refused(&refusal))),
        Err(failure) => Err(failure),
    }
}

fn turn(
    shared: &Shared,
    tx: &Tx<'_>,
    incoming: &Incoming,
    api_key: String,
) -> Result<Turn, Failure> {
    if !shared.idempotency || !incoming.endpoint.changes() {
        return Ok(Turn::Unkeyed);
    }
    let Some(key) = key(incoming)? else {
        return Ok(Turn::Unkeyed);
    };
    let endpoint = incoming.endpoint;
    let ours = fingerprint(endpoint.method(), endpoint.path(), incoming.body()?);
    let key = ScopedKey { api_key, key };
    let claim = shared
        .running
        .claim(key, ours)
        .map_err(|theirs| if theirs == ours { in_use() } else { reused() })?;
    match tx.answer(claim.key())? {
        None => Ok(Turn::First(claim, ours)),
        Some((theirs, answer)) if theirs == ours => Ok(Turn::Replay(answer)),
        Some(_) => Err(reused().into()),
    }
}

fn key(incoming: &Incoming) -> Result<Option<String>, ApiError> {
    let mut values = incoming.headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key)
            if (1..=IDEMPOTENCY_KEY_BYTES_MAX).contains(&key.len()) && values.next().is_none() =>
        {
            Ok(Some(key.to_owned()))
        }
        Ok(_) | Err(_) => Err(ApiError::new(
            ErrorCode::ValidationError,
            format!(
                "the `{IDEMPOTENCY_KEY}` header must come once, \
                 with 1 to {IDEMPOTENCY_KEY_BYTES_MAX} ASCII characters"
            ),
        )),
    }
}

fn reused() -> ApiError {
    let message = format!("another request was sent under this `{IDEMPOTENCY_KEY}`");
    ApiError::new(ErrorCode::IdempotencyKeyReused, message)
}

fn in_use() -> ApiError {
    let message = format!("a request under this `{IDEMPOTENCY_KEY}` is still running");
    ApiError::new(ErrorCode::IdempotencyKeyInUse, message)
}

impl Executed {
    /// An answer to a request that changed nothing.
    pub(super) const fn unapplied(answer: Answer) -> Self {
        Self {
            answer,
            activity: None,
            replayed: false,
            claim: None,
        }
    }
}
