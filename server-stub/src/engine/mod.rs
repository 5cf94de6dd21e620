//! The licence server's state and decisions: one request is one transaction.

pub mod checks;
pub mod store;

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use aws_lc_rs::digest::{SHA256, digest};
use rusqlite::{Connection, TransactionBehavior};
use serde::Serialize;
use tally_shared::{
    limits::decide,
    signature::{KeyError, Signer},
    time::Timestamp,
    units::{Total, Units},
    wire::{AddConsumption, ApiError, CheckLicense, ConsumptionEvent, ErrorCode},
};

use self::store::StoredAnswer;
use crate::seed::{ApiKey, License, Seed, SeedError};

/// The licence server.
pub struct Engine {
    connection: Mutex<Connection>,
    signer: Signer,
    keeps_keys: bool,
    /// Idempotency keys of requests that are still running, with the API key they belong to.
    running: Mutex<BTreeSet<(String, String)>>,
}

/// Why the engine cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The storage failed.
    #[error("the stub's storage failed")]
    Storage(#[from] rusqlite::Error),
    /// A stored value cannot be read.
    #[error("the stub's storage holds what cannot be read")]
    Malformed(#[from] serde_json::Error),
    /// The signing key cannot be used.
    #[error("the stub's signing key cannot be used")]
    Key(#[from] KeyError),
    /// The licence cannot be as it says.
    #[error(transparent)]
    Seed(#[from] SeedError),
    /// There is no such licence.
    #[error("there is no licence {0}")]
    NoLicense(i64),
}

/// A License API request after authentication.
pub enum Call {
    /// `add_consumption` or `add_feature_consumption`.
    Add(Box<AddConsumption>),
    /// `check_license`.
    Check(CheckLicense),
}

/// An answer of the License API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
    /// The header `LicenseSignature`, on a 200.
    pub signature: Option<String>,
    /// Whether this is the stored answer of an earlier request.
    pub replayed: bool,
    /// Whether this request changed a total.
    pub applied: bool,
}

/// A request that sent an `Idempotency-Key`; the key counts as in use until this is dropped.
pub struct Running<'a> {
    engine: &'a Engine,
    owner: (String, String),
}

/// What the activity log keeps of a granted request.
#[derive(Clone, Debug, Serialize)]
pub struct Activity {
    /// The licence.
    pub license_id: i64,
    /// The feature, if it was one's.
    pub feature: Option<String>,
    /// The event's name in the contract.
    pub event: &'static str,
    /// The units.
    pub units: Units,
    /// The total after them.
    pub total: Total,
    /// The device.
    pub hardware_id: String,
    /// When, by the stub's clock.
    pub at: Timestamp,
}

impl Engine {
    /// Opens the storage: a file, or memory. The seed fills a new one; an existing one keeps what it
    /// has.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub fn open(
        file: Option<&Path>,
        signer: Signer,
        seed: &Seed,
        keeps_keys: bool,
    ) -> Result<Self, EngineError> {
        let mut connection = match file {
            Some(path) => Connection::open(path)?,
            None => Connection::open_in_memory()?,
        };
        store::prepare(
            &mut connection,
            seed,
            Timestamp::from_system_time(SystemTime::now()),
        )?;
        Ok(Self {
            connection: Mutex::new(connection),
            signer,
            keeps_keys,
            running: Mutex::default(),
        })
    }

    /// The time by the stub's own clock.
    ///
    /// # Errors
    ///
    /// [`EngineError::Storage`].
    pub fn now(&self) -> Result<Timestamp, EngineError> {
        Ok(store::now(&self.lock())?)
    }

    /// Sets the stub's clock ahead of, or behind, the system's.
    ///
    /// # Errors
    ///
    /// [`EngineError::Storage`].
    pub fn set_clock(&self, offset_ms: i64) -> Result<(), EngineError> {
        Ok(store::set_clock_offset(&self.lock(), offset_ms)?)
    }

    /// How far the stub's clock is ahead of the system's, in milliseconds.
    ///
    /// # Errors
    ///
    /// [`EngineError::Storage`].
    pub fn clock_offset(&self) -> Result<i64, EngineError> {
        Ok(store::clock_offset(&self.lock())?)
    }

    /// The key pair of that API key.
    ///
    /// # Errors
    ///
    /// [`EngineError::Storage`].
    pub fn api_key(&self, api_key: &str) -> Result<Option<ApiKey>, EngineError> {
        Ok(store::api_key(&self.lock(), api_key)?)
    }

    /// The public key that verifies answers, in PEM.
    ///
    /// # Errors
    ///
    /// [`EngineError::Key`].
    pub fn public_key(&self) -> Result<String, EngineError> {
        Ok(self.signer.public_pem()?)
    }

    /// Whether idempotency keys are kept.
    pub const fn keeps_keys(&self) -> bool {
        self.keeps_keys
    }

    /// Marks an idempotency key as in use.
    ///
    /// # Errors
    ///
    /// `idempotency_key_in_use` where another request uses it.
    pub fn claim(&self, api_key: &str, key: &str) -> Result<Running<'_>, ApiError> {
        let owner = (api_key.to_owned(), key.to_owned());
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.insert(owner.clone()) {
            return Ok(Running {
                engine: self,
                owner,
            });
        }
        Err(ApiError::new(
            ErrorCode::IdempotencyKeyInUse,
            "a request with this Idempotency-Key is still running",
        ))
    }

    /// Answers a request, in one transaction. `key` is its `Idempotency-Key` with what it may be used
    /// for: the request's path and body.
    ///
    /// # Errors
    ///
    /// [`EngineError`]; then nothing is changed.
    pub fn answer(
        &self,
        call: Result<Call, ApiError>,
        key: Option<(&Running<'_>, &[u8])>,
    ) -> Result<Reply, EngineError> {
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let fingerprint = key.map(|(_, request)| digest(&SHA256, request).as_ref().to_vec());
        if let (Some((running, _)), Some(fingerprint)) = (key, &fingerprint)
            && let Some(stored) = store::stored_answer(&tx, &running.owner)?
        {
            return Ok(stored.reply_to(fingerprint));
        }
        let now = store::now(&tx)?;
        let decided = match call {
            Ok(Call::Add(request)) => self.add(&tx, now, &request)?,
            Ok(Call::Check(request)) => self.check(&tx, now, &request)?,
            Err(error) => Err(error),
        };
        let reply = match decided {
            Ok(reply) => reply,
            Err(error) => Reply::refused(&error),
        };
        if let (Some((running, _)), Some(fingerprint)) = (key, fingerprint) {
            store::store_answer(&tx, &running.owner, &StoredAnswer::new(&reply, fingerprint))?;
        }
        tx.commit()?;
        Ok(reply)
    }

    fn add(
        &self,
        connection: &Connection,
        now: Timestamp,
        request: &AddConsumption,
    ) -> Result<Result<Reply, ApiError>, EngineError> {
        let found = checks::find(connection, now, &request.subject, Some(request))?;
        let mut license = match found {
            Ok(license) => license,
            Err(error) => return Ok(Err(error)),
        };
        let (total, body) = match consume(&mut license, now, request) {
            Ok(done) => done,
            Err(error) => return Ok(Err(error)),
        };
        store::put_license(connection, &license, now)?;
        store::add_activity(
            connection,
            &Activity {
                license_id: license.id,
                feature: request.feature.clone(),
                event: ConsumptionEvent::as_str(request.event),
                units: request.units,
                total,
                hardware_id: request.subject.hardware_id.clone(),
                at: now,
            },
        )?;
        Ok(Ok(Reply {
            applied: true,
            ..self.signed(body?)?
        }))
    }

    fn check(
        &self,
        connection: &Connection,
        now: Timestamp,
        request: &CheckLicense,
    ) -> Result<Result<Reply, ApiError>, EngineError> {
        let license = match checks::find(connection, now, &request.subject, None)? {
            Ok(license) => license,
            Err(error) => return Ok(Err(error)),
        };
        let mut body = license.body(now);
        body.license_signature = self
            .signer
            .sign_license(&request.subject, license.validity_period)?;
        Ok(Ok(self.signed(serde_json::to_string(&body)?)?))
    }

    fn signed(&self, body: String) -> Result<Reply, EngineError> {
        let signature = Some(self.signer.sign(body.as_bytes())?);
        Ok(Reply {
            status: 200,
            body,
            signature,
            replayed: false,
            applied: false,
        })
    }

    /// All licences, with their current totals.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub fn licenses(&self) -> Result<Vec<License>, EngineError> {
        let connection = self.lock();
        let now = store::now(&connection)?;
        store::licenses(&connection, now)
    }

    /// A licence, with its current totals.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoLicense`].
    pub fn license(&self, id: i64) -> Result<License, EngineError> {
        let connection = self.lock();
        let now = store::now(&connection)?;
        store::license(&connection, now, id)?.ok_or(EngineError::NoLicense(id))
    }

    /// Replaces a licence, its totals included.
    ///
    /// # Errors
    ///
    /// [`EngineError::NoLicense`], or [`EngineError::Seed`] for what no licence can be.
    pub fn replace_license(&self, id: i64, mut license: License) -> Result<License, EngineError> {
        license.id = id;
        license.check()?;
        let mut connection = self.lock();
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let now = store::now(&tx)?;
        store::license(&tx, now, id)?.ok_or(EngineError::NoLicense(id))?;
        store::put_license(&tx, &license, now)?;
        tx.commit()?;
        Ok(license)
    }

    /// The activity log, oldest first.
    ///
    /// # Errors
    ///
    /// [`EngineError`].
    pub fn activity(&self, license_id: Option<i64>) -> Result<Vec<serde_json::Value>, EngineError> {
        store::activity(&self.lock(), license_id)
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic inside a transaction rolled it back: the connection is as it was.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Consumes from a licence, or from its feature; gives the new total and the answer's body.
fn consume(
    license: &mut License,
    now: Timestamp,
    request: &AddConsumption,
) -> Result<(Total, serde_json::Result<String>), ApiError> {
    let refused = |refusal: tally_shared::limits::Refusal| {
        let code = ErrorCode::from_refusal(refusal, request.feature.is_some());
        ApiError::new(code, refusal.to_string())
    };
    let id = license.id;
    if let Some(code) = &request.feature {
        let feature = checks::feature(license, code)?;
        let grant = decide(&feature.standing(now), Units::ZERO, &request.request(), now);
        feature.total_consumptions = grant.map_err(refused)?.total;
        let counter = feature.counter(id);
        return Ok((counter.total_consumptions, serde_json::to_string(&counter)));
    }
    let grant = decide(&license.standing(now), Units::ZERO, &request.request(), now);
    let grant = grant.map_err(refused)?;
    license.total_consumptions = grant.total;
    license.allow_overages = grant.limits.allow_overages;
    license.max_overages = grant.limits.max_overages;
    Ok((grant.total, serde_json::to_string(&license.counter(now))))
}

impl Reply {
    /// The answer that carries an error.
    pub fn refused(error: &ApiError) -> Self {
        Self {
            status: error.code.status(),
            // Two texts and a number: this cannot fail.
            body: serde_json::to_string(&error.body()).unwrap_or_default(),
            signature: None,
            replayed: false,
            applied: false,
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut running = self
            .engine
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        running.remove(&self.owner);
    }
}
