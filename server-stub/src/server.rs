//! A running stub: what it is started with, and an orderly end.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tally_shared::signature::Signer;

use crate::{
    api::{
        self,
        state::{Parts, Shared},
    },
    control,
    doors::{self, Door},
    engine::clock::Clock,
    keys::{self, KeyFileError},
    private_file,
    seed::{Mistake, Seed},
    store::{OpenError, Store},
};

/// How long running requests may take to end when the stub stops.
const GRACE: Duration = Duration::from_secs(5);

/// What a stub is started with.
#[derive(Clone, Debug)]
pub struct StubConfig {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where to serve the lab and the control surface besides, out of reach of the network's states: with it,
    /// a network that is gone refuses connections; without it, it resets those that carry the License API.
    pub control: Option<SocketAddr>,
    /// Where to keep everything; `None` keeps it in memory.
    pub data_dir: Option<PathBuf>,
    /// What there is at the first start. A data folder that holds a database already wins over it.
    pub seed: Seed,
    /// Whether `Idempotency-Key` is heeded.
    pub idempotency: bool,
    /// Names under which the control surface is served, besides localhost and addresses.
    pub allowed_hosts: Vec<String>,
}

/// The licence server, to be started.
#[derive(Debug)]
pub struct Stub;

/// A licence server that runs until [`RunningStub::shutdown`], or until it is dropped.
pub struct RunningStub {
    addr: SocketAddr,
    control: Option<SocketAddr>,
    shared: Arc<Shared>,
}

/// A stub that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The seed contradicts itself.
    #[error("the seed cannot be used")]
    Seed(#[from] Mistake),
    /// The data folder cannot be made.
    #[error("cannot use the data folder")]
    DataDir(#[source] io::Error),
    /// The signing key cannot be made or read.
    #[error("cannot use the signing key")]
    Key(#[from] KeyFileError),
    /// The database cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Stub {
    /// Starts a stub inside the current Tokio runtime; when this returns, it accepts requests.
    pub async fn start(config: StubConfig) -> Result<RunningStub, StartError> {
        let Some(control) = config.control else {
            let listener = doors::bind(config.listen).await?;
            let addr = doors::address(&listener, config.listen)?;
            let shared = Arc::new(open(config, addr)?);
            let router = api::router(Arc::clone(&shared));
            let all = doors::accept(listener, router, Arc::clone(&shared), Door::Only);
            shared.tasks.spawn(all);
            return Ok(RunningStub::new(addr, None, shared));
        };
        let clients = doors::bind_and_keep(config.listen).await?;
        let addr = doors::address(&clients.0, config.listen)?;
        let testers = doors::bind(control).await?;
        let control = doors::address(&testers, control)?;
        let shared = Arc::new(open(config, addr)?);
        let router = api::control_router(Arc::clone(&shared));
        let testers = doors::accept(testers, router, Arc::clone(&shared), Door::Testers);
        shared.tasks.spawn(testers);
        let router = api::router(Arc::clone(&shared));
        let clients = doors::accept_clients(clients, router, Arc::clone(&shared));
        shared.tasks.spawn(clients);
        Ok(RunningStub::new(addr, Some(control), shared))
    }
}

/// A flapping network comes and goes by itself.
async fn live(shared: Arc<Shared>) {
    let changed = || control::tell_network(&shared);
    shared.network.live(shared.stopping.clone(), changed).await;
}

impl RunningStub {
    fn new(addr: SocketAddr, control: Option<SocketAddr>, shared: Arc<Shared>) -> Self {
        shared.tasks.spawn(live(Arc::clone(&shared)));
        Self {
            addr,
            control,
            shared,
        }
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its base URL, such as `http://127.0.0.1:7412`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The base URL of the control surface and of the lab.
    pub fn control_url(&self) -> String {
        format!("http://{}", self.control.unwrap_or(self.addr))
    }

    /// Everything, for what is in this program.
    pub(crate) const fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The key that verifies its answers, in PEM.
    pub fn public_key(&self) -> &str {
        &self.shared.public_key
    }

    /// Stops accepting, lets running requests end (delayed ones are answered at once), and closes the
    /// database, so that another stub can be started on the same folder and port.
    pub async fn shutdown(self) {
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        if tokio::time::timeout(GRACE, self.shared.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(grace = ?GRACE, "some requests did not end in time");
        }
    }
}

impl Drop for RunningStub {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
    }
}

fn open(config: StubConfig, addr: SocketAddr) -> Result<Shared, StartError> {
    let seed = config.seed.complete()?;
    let data_dir = config.data_dir.as_deref();
    if let Some(data_dir) = data_dir {
        private_file::create_folder(data_dir).map_err(StartError::DataDir)?;
    }
    let database = data_dir.map(|folder| folder.join("stub.sqlite3"));
    let clock = Clock::new(0);
    let mut store = Store::open(database.as_deref(), &seed, clock.now())?;
    clock.set_offset(store.clock_offset_ms(database.as_deref())?);
    let signer = match data_dir {
        Some(folder) => keys::read_or_make(&folder.join("stub_private_key.pem"))?,
        None => Signer::generate().map_err(KeyFileError::Make)?,
    };
    Ok(Shared::new(Parts {
        public_key: signer.public_pem().map_err(KeyFileError::Make)?,
        store,
        clock,
        signer,
        idempotency: config.idempotency,
        allowed_hosts: config.allowed_hosts,
        addr,
    }))
}
