//! One request, one transaction: the licence's change, the activity row and the answer kept for its
//! idempotency key are on disk together, or none of them is.

use tally_shared::{
    time::Timestamp,
    wire::{ApiError, ErrorCode, IDEMPOTENCY_KEY, IDEMPOTENCY_KEY_BYTES_MAX},
};

use super::{
    auth,
    error::Failure,
    incoming::Incoming,
    order::{self, Asked},
    state::Shared,
};
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
    /// The word of its answer about the idempotency key.
    pub(super) echo: Echo,
    /// Keeps the idempotency key in use until the answer is on its way.
    pub(super) claim: Option<Claim>,
}

/// The word of an answer about the idempotency key that its request came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// Nothing: keys are not kept, or it was not looked up.
    Nothing,
    /// Keys are kept: all that there is to say to a read.
    Kept,
    /// The key was looked up.
    LookedUp {
        /// `Idempotency-Replayed`.
        replayed: bool,
    },
}

/// How a request stands to those before it under its idempotency key.
enum Turn {
    /// There is no key, or nothing of it to heed.
    Unkeyed,
    /// It is the first.
    First(Claim, Fingerprint),
    /// It was answered before.
    Replay(Answer),
    /// The key is another request's, or in use.
    Refused(ApiError),
}

/// Carries out a request. Blocks for as long as others use the database. A read can be answered from the state of
/// `stale_ms` ago.
///
/// # Errors
///
/// A refusal that is not kept under the idempotency key: it came before the key was looked up, or the stub failed.
pub(super) fn execute(
    shared: &Shared,
    incoming: &Incoming,
    stale_ms: u64,
) -> Result<Executed, Failure> {
    let mut store = shared.store();
    let now = shared.clock.now();
    let tx = store.begin()?;
    let api_key = auth::authenticate(&tx, &incoming.headers, incoming.endpoint, now)?;
    let asked = match order::read(incoming) {
        Ok(asked) => asked,
        Err(refusal) if incoming.endpoint.changes() => return Err(refusal.into()),
        Err(refusal) => return Ok(read_answer(shared, incoming, Answer::refused(&refusal))),
    };
    if !incoming.endpoint.changes() {
        let then = now.plus_millis(-i64::try_from(stale_ms).unwrap_or(i64::MAX));
        if then < now {
            // Nothing of it is committed.
            tx.rewind_to(then)?;
        }
        let (answer, _) = run(shared, &tx, &asked, then)?;
        return Ok(read_answer(shared, incoming, answer));
    }
    let first = match turn(shared, &tx, incoming, api_key.api_key)? {
        Turn::Unkeyed => None,
        Turn::First(claim, fingerprint) => Some((claim, fingerprint)),
        Turn::Replay(answer) => return Ok(looked_up(answer, true)),
        Turn::Refused(refusal) => return Ok(looked_up(Answer::refused(&refusal), false)),
    };
    let (answer, activity) = run(shared, &tx, &asked, now)?;
    let mut executed = Executed {
        activity,
        ..Executed::unapplied(answer)
    };
    if let Some((claim, fingerprint)) = first {
        tx.add_answer(claim.key(), &fingerprint, &executed.answer)?;
        executed.claim = Some(claim);
        executed.echo = Echo::LookedUp { replayed: false };
    }
    tx.commit()?;
    Ok(executed)
}

/// A refusal is an answer too: it is kept under the idempotency key like any other.
fn run(
    shared: &Shared,
    tx: &Tx<'_>,
    asked: &Asked,
    now: Timestamp,
) -> Result<(Answer, Option<Activity>), Failure> {
    match order::answer(tx, asked, &shared.signer, now) {
        Err(Failure::Refused(refusal)) => Ok((Answer::refused(&refusal), None)),
        done => done,
    }
}

fn read_answer(shared: &Shared, incoming: &Incoming, answer: Answer) -> Executed {
    let is_kept = shared.keeps_keys() && incoming.idempotency_key().is_some();
    Executed {
        echo: if is_kept { Echo::Kept } else { Echo::Nothing },
        ..Executed::unapplied(answer)
    }
}

fn looked_up(answer: Answer, replayed: bool) -> Executed {
    Executed {
        echo: Echo::LookedUp { replayed },
        ..Executed::unapplied(answer)
    }
}

fn turn(
    shared: &Shared,
    tx: &Tx<'_>,
    incoming: &Incoming,
    api_key: String,
) -> Result<Turn, Failure> {
    if !shared.keeps_keys() {
        return Ok(Turn::Unkeyed);
    }
    let Some(key) = key(incoming)? else {
        return Ok(Turn::Unkeyed);
    };
    let endpoint = incoming.endpoint;
    let ours = fingerprint(endpoint.method(), endpoint.path(), incoming.body()?);
    let key = ScopedKey { api_key, key };
    let claim = match shared.running.claim(key, ours) {
        Ok(claim) => claim,
        Err(theirs) if theirs == ours => return Ok(Turn::Refused(in_use())),
        Err(_) => return Ok(Turn::Refused(reused())),
    };
    Ok(match tx.answer(claim.key())? {
        None => Turn::First(claim, ours),
        Some((theirs, answer)) if theirs == ours => Turn::Replay(answer),
        Some(_) => Turn::Refused(reused()),
    })
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
            echo: Echo::Nothing,
            claim: None,
        }
    }

    /// True where the answer is that of an earlier request under the same idempotency key.
    pub(super) const fn is_replayed(&self) -> bool {
        matches!(self.echo, Echo::LookedUp { replayed: true })
    }
}
