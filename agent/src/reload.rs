//! Taking up changed settings while the agent runs: those that can be, all of them or none. What cannot be is
//! named, and stays as it is until a restart.

use std::sync::Arc;

use crate::{
    config::Config,
    core::{chain, event::Event},
    http::Api,
    ledger::writer::Ledger,
    sync::client::{Client, ClientError},
    telemetry::LogSettings,
};

/// What takes up changed settings.
pub struct Reloader {
    in_force: Config,
    api: Api,
    ledger: Ledger,
    client: Arc<Client>,
    /// The chain's key, by which servers and credentials are told apart.
    key: chain::Key,
}

/// What other settings came to. Certificates and keys in files are read again each time, and not named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What holds from here on.
    pub taken_up: Vec<&'static str>,
    /// What holds after a restart.
    pub needs_restart: Vec<&'static str>,
}

impl Reloader {
    /// For an agent that runs by these settings.
    pub const fn new(
        in_force: Config,
        api: Api,
        ledger: Ledger,
        client: Arc<Client>,
        key: chain::Key,
    ) -> Self {
        Self {
            in_force,
            api,
            ledger,
            client,
            key,
        }
    }

    /// What is logged.
    pub const fn log(&self) -> &LogSettings {
        &self.in_force.log
    }

    /// Goes on by these settings.
    ///
    /// # Errors
    ///
    /// [`ClientError`] where the licence server cannot be spoken to by them; then nothing is changed.
    pub async fn apply(&mut self, given: Config) -> Result<Changes, ClientError> {
        let old = &self.in_force;
        let needs_restart = needs_restart(old, &given);
        let new = Config {
            listen: old.listen,
            tls: old.tls.clone(),
            data_dir: old.data_dir.clone(),
            // The credentials of another server are for that one.
            server: if given.server.url == old.server.url {
                given.server
            } else {
                old.server.clone()
            },
            log: LogSettings {
                filter: given.log.filter,
                ..old.log.clone()
            },
            policy: given.policy,
            keeping: given.keeping,
            limits: given.limits,
        };
        let changes = Changes {
            taken_up: taken_up(old, &new),
            needs_restart,
        };
        let peer = new.server.peer(&self.key);
        // In this order: a batch that the core seals under the former credentials is not sent under the new ones.
        self.client.set(new.server.clone(), peer.clone())?;
        self.ledger.set(new.policy, new.keeping, peer).await;
        self.api.set_limits(new.limits);
        self.in_force = new;
        // What the server refused for the old credentials is tried with the new ones now.
        self.ledger.tell(Event::Nudge).await;
        Ok(changes)
    }
}

fn taken_up(old: &Config, new: &Config) -> Vec<&'static str> {
    let (policy, given) = (&old.policy, &new.policy);
    let (keeping, kept) = (&old.keeping, &new.keeping);
    let (server, other) = (&old.server, &new.server);
    named([
        ("sync_interval", policy.sync_interval != given.sync_interval),
        ("settle_wait", policy.settle_wait != given.settle_wait),
        (
            "refresh_interval",
            policy.refresh_interval != given.refresh_interval,
        ),
        ("undecidable", policy.undecidable != given.undecidable),
        ("late_usage", policy.late_usage != given.late_usage),
        ("retention", keeping.rows != kept.rows),
        ("idempotency_retention", keeping.answers != kept.answers),
        ("limits", old.limits != new.limits),
        (
            "server.api_key",
            server.api_key.expose() != other.api_key.expose(),
        ),
        (
            "server.shared_key",
            server.shared_key.expose() != other.shared_key.expose(),
        ),
        (
            "server.request_timeout",
            server.request_timeout != other.request_timeout,
        ),
        ("log.level", old.log.filter != new.log.filter),
    ])
}

fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    named([
        ("listen", old.listen != new.listen),
        (
            "listen_public, tls_cert, tls_key or public_names",
            old.tls != new.tls,
        ),
        ("data_dir", old.data_dir != new.data_dir),
        (
            "server.url, and with it all of [server]",
            old.server.url != new.server.url,
        ),
        ("log.file", old.log.file != new.log.file),
        ("log.days", old.log.days != new.log.days),
    ])
}

fn named<const N: usize>(settings: [(&'static str, bool); N]) -> Vec<&'static str> {
    let changed = settings.into_iter().filter(|(_, is_changed)| *is_changed);
    changed.map(|(name, _)| name).collect()
}
