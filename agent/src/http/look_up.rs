//! A licence, a device or a feature that the agent does not know: the server is asked, if it can be.

use std::{
    collections::BTreeMap,
    sync::{Mutex as SyncMutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Mutex;

use tally_shared::wire::{ApiError, ErrorCode, Subject};

use super::{Api, answer::Result, slots::Slots};
use crate::{
    core::{book::Name, event::KeyEcho, link::LinkState, outcome::LookUpOutcome},
    sync::client::Client,
};

/// How long an application waits for it at most; what the agent knows it answers at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many may wait for their turn. More are refused at once.
const WAITING_MAX: usize = 64;

/// How long a "no" to a name is remembered the first time; then twice that, and so on, up to the refresh interval.
const NO_MIN: Duration = Duration::from_secs(5);

/// Number of names of which a "no" is remembered. Beyond it, those whose time is over are forgotten, or else all.
const NO_NAMES_MAX: usize = 1024;

/// Why a licence is not known although the server answered.
pub(super) const TOLD_OF_ANOTHER: &str =
    "the licence server told of another licence than the one of that id";

/// One unknown licence is asked for at a time, so that a flood of them stays a trickle.
pub(super) struct LookUps {
    turn: Mutex<()>,
    waiting: Slots,
    refused: SyncMutex<BTreeMap<(Name, Option<i64>), No>>,
}

/// A name that was asked for, and what the server said.
#[derive(Clone)]
struct No {
    until: Duration,
    wait: Duration,
    error: ApiError,
}

impl Default for LookUps {
    fn default() -> Self {
        Self {
            turn: Mutex::new(()),
            waiting: Slots::new(WAITING_MAX),
            refused: SyncMutex::default(),
        }
    }
}

impl LookUps {
    /// What was said of a name lately.
    fn said(&self, subject: &Subject, now: Duration) -> Option<ApiError> {
        let refused = self.lock();
        let no = refused.get(&(Name::of(subject), subject.license_id))?;
        (now < no.until).then(|| no.error.clone())
    }

    fn remember(&self, subject: &Subject, now: Duration, longest: Duration, error: &ApiError) {
        let mut refused = self.lock();
        if refused.len() >= NO_NAMES_MAX {
            refused.retain(|_, no| now < no.until);
        }
        if refused.len() >= NO_NAMES_MAX {
            refused.clear();
        }
        let key = (Name::of(subject), subject.license_id);
        let former = refused.get(&key).map(|no| no.wait);
        let wait = former.map_or(NO_MIN, |wait| wait.saturating_mul(2));
        let wait = wait.min(longest.max(NO_MIN));
        let error = error.clone();
        let until = now.saturating_add(wait);
        refused.insert(key, No { until, wait, error });
    }

    fn forget(&self, subject: &Subject) {
        self.lock().remove(&(Name::of(subject), subject.license_id));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Name, Option<i64>), No>> {
        // A panic cannot leave it half-changed: each change is one call.
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What asking the server for a licence came to.
pub(super) enum Asked {
    /// It is known.
    Known,
    /// The server refuses it.
    Refused(ErrorCode, String),
    /// The server told of another licence than was asked for by its id.
    Another,
    /// The server could not be asked, or did not say.
    NotTold(String),
}

/// Asks the server for a licence that an application wants to use, and makes it known. A name that the agent knows, and whose
/// licence is gone, may open another by now: it is asked for again, though not at each request of an application.
///
/// # Errors
///
/// The server's own refusal, or `limits_unknown` where it cannot be asked.
pub(super) async fn look_up_again(api: &Api, subject: &Subject) -> Result<()> {
    let now = api.clocks.mono();
    if let Some(error) = api.look_ups.said(subject, now) {
        return Err(error.into());
    }
    let asked = ask_for(api, subject).await?;
    if matches!(asked, Asked::Known) {
        api.look_ups.forget(subject);
    }
    let is_another = matches!(asked, Asked::Another);
    let is_refused = matches!(asked, Asked::Refused(..));
    let name = subject.clone();
    let known = api.ledger.ask(move |core, _| {
        let is_known = core.book().find(&name).is_some();
        (is_known, core.refresh_interval())
    });
    let (is_known, longest) = known.await?;
    let Err(error) = made_known(asked) else {
        return Ok(());
    };
    if is_another || (is_refused && is_known) {
        api.look_ups.remember(subject, now, longest, &error);
    }
    Err(error.into())
}

/// As [`look_up_again`], for somebody who asks for nothing else: the server is asked now.
///
/// # Errors
///
/// As [`look_up_again`].
pub(super) async fn look_up(api: &Api, subject: &Subject) -> Result<()> {
    let asked = ask_for(api, subject).await?;
    api.look_ups.forget(subject);
    Ok(made_known(asked)?)
}

fn made_known(asked: Asked) -> std::result::Result<(), ApiError> {
    let unknown = |why: &str| {
        let message = format!(
            "this agent does not know this licence on this device yet, and cannot ask: {why}; \
             nothing was recorded"
        );
        Err(ApiError::new(ErrorCode::LimitsUnknown, message))
    };
    match asked {
        Asked::Known => Ok(()),
        Asked::Refused(code, message) => Err(ApiError::new(code, message)),
        Asked::Another => unknown(TOLD_OF_ANOTHER),
        Asked::NotTold(why) => unknown(&why),
    }
}

/// Asks the server for a licence and makes it known.
///
/// # Errors
///
/// Where too many wait for their turn, or what the server said cannot be written.
pub(super) async fn ask_for(api: &Api, subject: &Subject) -> Result<Asked> {
    let not_told = |why: &str| Ok(Asked::NotTold(why.to_owned()));
    let _waiting = api.look_ups.waiting.take()?;
    let _one_at_a_time = api.look_ups.turn.lock().await;
    match api.ledger.ask(|core, _| core.link().state()).await? {
        LinkState::Offline => return not_told("the network is switched off"),
        LinkState::OtherServer => {
            return not_told(
                "what is owed was recorded for another licence server than this one \
                 (`tally status` says what to type)",
            );
        }
        LinkState::Online | LinkState::Unreachable | LinkState::Refused => {}
    }
    let asked_at = api.clocks.reading().mono;
    let Ok((outcome, key)) = tokio::time::timeout(PATIENCE, ask(&api.client, subject)).await else {
        return not_told("the licence server did not answer in time");
    };
    match outcome {
        LookUpOutcome::Found(found) => match api.ledger.learn(*found, asked_at, key).await? {
            Some(_) => Ok(Asked::Known),
            None => Ok(Asked::Another),
        },
        LookUpOutcome::Refused(code, message) => Ok(Asked::Refused(code, message)),
        LookUpOutcome::RefusedCredentials(code) => Ok(Asked::NotTold(format!(
            "the licence server refuses this agent's credentials ({})",
            code.as_str()
        ))),
        LookUpOutcome::Unreached(why) | LookUpOutcome::Invalid(why, _) => Ok(Asked::NotTold(why)),
        LookUpOutcome::Throttled(_) => not_told("the licence server has no time for it"),
    }
}

/// A refused date has corrected the clock: once more, with the right one.
async fn ask(client: &Client, subject: &Subject) -> (LookUpOutcome, KeyEcho) {
    let first = client.look_up(subject).await;
    if first.0 == LookUpOutcome::RefusedCredentials(ErrorCode::DateHeaderDiff) {
        return client.look_up(subject).await;
    }
    first
}
