//! What the agent and the server say to each other.

use tally_agent::{
    core::{
        book::BatchState,
        clock::Dated,
        command::Command,
        event::{Event, KeyEcho},
        outcome::{Exchange, LicenseFound, LookUpOutcome, SendOutcome, of_look_up, of_send},
    },
    ledger::engine::{Job, lock},
};
use tally_shared::wire::ErrorCode;

use super::{
    network::{Heard, LATEST, Message, Purpose, TIMEOUT},
    server::Instant,
    trace::{show_command, show_heard},
    truth::{Seen, Unheard},
    world::{Failure, World},
};

/// The time, in milliseconds, after which a second reading confirms a total that fell: two settle waits, and both readings on
/// their way.
const CONFIRMED_AFTER: Instant = 2 * LATEST + 2 * TIMEOUT;

impl World {
    /// The agent's orders leave it.
    ///
    /// # Errors
    ///
    /// Where it asks too much.
    pub(super) fn carry_out(&mut self, commands: Vec<Command>) -> Result<(), Failure> {
        for command in commands {
            self.note(|| format!("-> {}", show_command(&command)));
            let Some(purpose) = self.purpose_of(command) else {
                continue;
            };
            let Some(engine) = self.device.engine() else {
                continue;
            };
            let mono = engine.now().mono;
            let trusts_keys = engine.core().keeps_keys();
            let dated = lock(&engine.clock()).corrected(mono);
            let holder = match &purpose {
                Purpose::Send { request, .. } => request.subject.holder.value(),
                Purpose::LookUp { subject, .. } => subject.holder.value(),
            };
            self.pace.ask(self.now, holder)?;
            // Where no keys are kept, or none is sent, a request that arrives twice without a kind of trouble that says
            // so is beyond any client.
            let has_key = !matches!(&purpose, Purpose::Send { key: None, .. });
            let may_repeat = self.server.keeps_keys && has_key;
            let message = Message {
                purpose,
                process: self.process,
                life: self.life.lineage.life(),
                credentials: self.credentials,
                trusts_keys,
                sent_at: self.now,
                mono,
                dated,
            };
            self.network.send(message, may_repeat, &mut self.random);
        }
        Ok(())
    }

    fn purpose_of(&mut self, command: Command) -> Option<Purpose> {
        let (batch, key, request) = match command {
            Command::Send {
                batch,
                key,
                request,
                ..
            } => (batch, key, request),
            Command::LookUp { license, subject } => {
                return Some(Purpose::LookUp { license, subject });
            }
            Command::FindPrefix { .. } => return None,
        };
        let book = self.device.engine()?.core().book();
        let found = book.batch(batch)?;
        let id = found.sealed.as_ref()?.id.to_string();
        let mut licenses = book.licenses();
        let license = licenses.find(|license| {
            let mut accounts = book.accounts_of(license.no);
            accounts.any(|account| account.no == found.account)
        })?;
        let (means, rows) = (license.id, self.rows_of(found));
        let heard = self.life.heard.get(&(means, request.feature.clone()));
        let heard = heard.copied().unwrap_or(0);
        let mut accounts = book.accounts_of(license.no);
        let is_shared = accounts.any(|account| account.no == found.account && account.shared);
        self.unseen_since.entry(id).or_insert(heard);
        Some(Purpose::Send {
            batch,
            key: key.map(|key| key.id.to_string()),
            request,
            rows,
            means,
            unheard: Unheard {
                since: heard,
                is_shared,
            },
        })
    }

    /// An answer reaches the agent, if the process that asked still runs.
    pub(super) fn hear(&mut self, message: &Message, heard: Heard) -> Result<(), Failure> {
        self.note(|| format!("<- {}", show_heard(message, &heard)));
        let Some(engine) = self
            .device
            .engine()
            .filter(|_| message.process == self.process)
        else {
            return Ok(());
        };
        let mut heard = heard;
        if let Exchange::Answer(answer) = &mut heard.exchange
            && answer.is_contractual()
        {
            let mono = engine.now().mono;
            let took = mono.saturating_sub(message.mono);
            let age = heard.cached.and_then(|cached| cached.age);
            let dated = Dated {
                date: heard.date,
                age: age.map_or(0, |age| age.as_secs()),
                is_reading: matches!(message.purpose, Purpose::LookUp { .. }),
                is_accepted: !answer.refuses(ErrorCode::DateHeaderDiff),
            };
            answer.is_fresh = lock(&engine.clock()).hear(dated, took, mono).is_fresh;
        }
        let event = match &message.purpose {
            Purpose::Send {
                batch,
                request,
                means,
                key,
                ..
            } => {
                let outcome = of_send(heard.exchange, request.feature.is_some(), None);
                let key = match &outcome {
                    SendOutcome::Unknown(..) | SendOutcome::Unreached(_) => KeyEcho::NoAnswer,
                    _ if key.is_none() => KeyEcho::Absent,
                    _ => heard.echo,
                };
                if matches!(outcome, SendOutcome::Applied(_)) && key != KeyEcho::Replayed {
                    self.heard_of_counter((*means, request.feature.clone()), heard.made_at);
                }
                Event::Answered {
                    batch: *batch,
                    outcome,
                    key,
                }
            }
            Purpose::LookUp { license, subject } => {
                let outcome = of_look_up(heard.exchange, subject, None);
                let key = match &outcome {
                    LookUpOutcome::Found(_) => heard.echo,
                    _ => KeyEcho::NoAnswer,
                };
                if let LookUpOutcome::Found(found) = &outcome
                    && heard.cached.is_none()
                {
                    self.heard_of(found, heard.made_at);
                }
                let hardware_id = subject.hardware_id.clone();
                Event::LookedUp {
                    license: *license,
                    hardware_id,
                    outcome,
                    key,
                }
            }
        };
        self.turn(vec![Job::Event(event)])
    }

    /// The agent's credentials are replaced while it runs.
    ///
    /// # Errors
    ///
    /// What does not hold.
    pub(super) fn rotate(&mut self) -> Result<(), Failure> {
        self.credentials += 1;
        let (policy, keeping) = self.device.settings();
        let peer = peer_of(self.credentials);
        self.turn(vec![Job::Settings(policy, keeping, peer)])
    }

    /// The agent hears how a licence stood.
    pub(super) fn heard_of(&mut self, found: &LicenseFound, made_at: Instant) {
        let id = found.body.counter.id;
        self.heard_of_counter((id, None), made_at);
        for feature in &found.body.product_features {
            self.heard_of_counter((id, Some(feature.code.clone())), made_at);
        }
    }

    fn heard_of_counter(&mut self, counter: (i64, Option<String>), made_at: Instant) {
        let place = self.place_of(counter.0, counter.1.as_deref());
        if place.is_some_and(|(license, _)| self.life.forgotten.contains(&license)) {
            // What was asked before it was forgotten is not taken in.
            return;
        }
        let is_clear = !self.is_in_doubt(&counter);
        let fallen = self.fallen.iter_mut();
        for fallen in fallen.filter(|fallen| Some(fallen.place) == place && fallen.at <= made_at) {
            let seen = fallen.seen.get_or_insert(Seen {
                said_at: made_at,
                heard_at: self.now,
                is_clear,
                is_confirmed: false,
            });
            seen.is_confirmed |= made_at >= seen.said_at + CONFIRMED_AFTER;
        }
        self.life.heard.insert(counter, made_at);
    }

    /// Whether the agent has a batch of a counter of which it does not know what became.
    fn is_in_doubt(&self, counter: &(i64, Option<String>)) -> bool {
        let Some(engine) = self.device.engine() else {
            return false;
        };
        let book = engine.core().book();
        let licenses = book.licenses().filter(|license| license.id == counter.0);
        let accounts = licenses.flat_map(|license| book.accounts_of(license.no));
        let mut batches = accounts
            .filter(|account| account.feature == counter.1)
            .flat_map(|account| book.batches_of(account.no));
        batches.any(|batch| match batch.state {
            BatchState::Unknown { .. } => true,
            BatchState::Sent => batch.sealed.as_ref().is_some_and(|sealed| sealed.doubtful),
            _ => false,
        })
    }
}

/// What stands for the server and these credentials.
pub(super) fn peer_of(credentials: u32) -> String {
    format!("credentials {credentials}")
}
