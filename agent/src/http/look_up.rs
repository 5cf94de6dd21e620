//! A licence, a device or a feature that the agent does not know: the server is asked, if it can be.

use std::time::Duration;

use tokio::sync::Mutex;

use tally_shared::wire::{ErrorCode, Subject};

use super::{
    Api,
    answer::{Refused, Result},
    slots::Slots,
};
use crate::{
    core::{event::KeyEcho, link::LinkState, outcome::LookUpOutcome},
    sync::client::Client,
};

/// How long an application waits for it at most; what the agent knows it answers at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many may wait for their turn. More are refused at once.
const WAITING_MAX: usize = 64;

/// One unknown licence is asked for at a time, so that a flood of them stays a trickle.
pub(super) struct LookUps {
    turn: Mutex<()>,
    waiting: Slots,
}

impl Default for LookUps {
    fn default() -> Self {
        Self {
            turn: Mutex::new(()),
            waiting: Slots::new(WAITING_MAX),
        }
    }
}

/// What asking the server for a licence came to.
pub(super) enum Asked {
    /// It is known.
    Known,
    /// The server refuses it.
    Refused(ErrorCode, String),
    /// The server could not be asked, or did not say.
    NotTold(String),
}

/// Asks the server for a licence that an application wants to use, and makes it known.
///
/// # Errors
///
/// The server's own refusal, or `limits_unknown` where it cannot be asked.
pub(super) async fn look_up(api: &Api, subject: &Subject) -> Result<()> {
    match ask_for(api, subject).await? {
        Asked::Known => Ok(()),
        Asked::Refused(code, message) => Err(Refused::new(code, message)),
        Asked::NotTold(why) => {
            let message = format!(
                "this agent does not know this licence on this device yet, and cannot ask: {why}; \
                 nothing was recorded"
            );
            Err(Refused::new(ErrorCode::LimitsUnknown, message))
        }
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
        LookUpOutcome::Found(found) => {
            api.ledger.learn(*found, asked_at, key).await?;
            Ok(Asked::Known)
        }
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
