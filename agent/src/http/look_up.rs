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
    core::{event::KeyEcho, link::NetworkMode, outcome::LookUpOutcome},
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

/// Asks the server for a licence and makes it known.
///
/// # Errors
///
/// The server's own refusal, or `limits_unknown` where it cannot be asked.
pub(super) async fn look_up(api: &Api, subject: &Subject) -> Result<()> {
    let unknown = |why: String| {
        let message = format!(
            "this agent does not know this licence on this device yet, and cannot ask: {why}; \
             nothing was recorded"
        );
        Refused::new(ErrorCode::LimitsUnknown, message)
    };
    let _waiting = api.look_ups.waiting.take()?;
    let _one_at_a_time = api.look_ups.turn.lock().await;
    let mode = api.ledger.ask(|core, _| core.link().mode()).await?;
    if mode == NetworkMode::Offline {
        return Err(unknown("the network is switched off".to_owned()));
    }
    let asked_at = api.clocks.reading().mono;
    let Ok((outcome, key)) = tokio::time::timeout(PATIENCE, ask(&api.client, subject)).await else {
        return Err(unknown(
            "the licence server did not answer in time".to_owned(),
        ));
    };
    match outcome {
        LookUpOutcome::Found(found) => {
            api.ledger.learn(*found, asked_at, key).await?;
            Ok(())
        }
        LookUpOutcome::Refused(code, message) => Err(Refused::new(code, message)),
        LookUpOutcome::RefusedCredentials(code) => Err(unknown(format!(
            "the licence server refuses this agent's credentials ({})",
            code.as_str()
        ))),
        LookUpOutcome::Unreached(why) | LookUpOutcome::Invalid(why, _) => Err(unknown(why)),
        LookUpOutcome::Throttled(_) => {
            Err(unknown("the licence server has no time for it".to_owned()))
        }
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
