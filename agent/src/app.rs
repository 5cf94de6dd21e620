//! A running agent, put together from its configuration.

#[cfg(unix)]
mod socket;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rand::Rng as _;
use tally_shared::signature::{KeyError, Signer};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    admin_token::{self, TokenError},
    apps::{self, Apps},
    config::{Config, paths::DataDir},
    core::chain,
    deps::Clocks,
    file_system,
    http::{
        self, Api,
        serve::{self, Server, TlsListener},
        tls::{Tls, TlsError},
    },
    instance,
    ledger::{
        Ended, LedgerError,
        engine::{Engine, Opening},
        evidence::{self, Evidence, MarkFile},
        files::Files,
        recovery::{self, Guard, RecoveryError},
        storage::ReserveFile,
        writer::{self, Ledger},
    },
    owner,
    private_file::{self, NotPrivate, Who},
    reload::Reloader,
    sync::{
        client::{Client, ClientError},
        driver,
    },
    waiting::{WaitingError, WaitingList},
    workers::Workers,
};

/// How long a stop waits for requests of applications to be answered.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// How long it then waits for the licence server's answers. What is not answered by then is unknown,
/// and is resolved after the next start.
const EXCHANGES_MAX: Duration = Duration::from_secs(2);

/// Why the agent cannot start, or stopped by itself. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The data directory cannot be used.
    #[error(
        "cannot use the data directory {path}; \
         give another with --data-dir, or make this one writable for this user"
    )]
    DataDir {
        /// The folder, or the file in it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Another agent runs on the data directory.
    #[error("another tally runs on {path}; stop it first, or give this one another --data-dir")]
    Running {
        /// The folder.
        path: PathBuf,
    },
    /// The port is taken, or not allowed.
    #[error(
        "cannot listen on {listen}; \
         another program may use the port: give another with --listen, or 127.0.0.1:0 for a free one"
    )]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The socket cannot be made.
    #[error(
        "cannot listen on the socket {path}; \
         its path may be too long (about 100 bytes): give a shorter --data-dir"
    )]
    Socket {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The key that signs answers cannot be used.
    #[error("cannot use the key {path}; remove it and its public key to have new ones made")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The ledger cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The ledger is damaged.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The names of licences that wait cannot be used.
    #[error(transparent)]
    Waiting(#[from] WaitingError),
    /// The admin token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Others can read what is secret, or own it.
    #[error(transparent)]
    NotPrivate(#[from] NotPrivate),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The HTTP client cannot be used.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The system has no thread to give.
    #[error("cannot start the ledger's thread")]
    Thread(#[source] std::io::Error),
    /// The ledger may not be written any more.
    #[error(transparent)]
    Ended(Ended),
    /// The ledger's thread ended by a defect; nothing that was acknowledged is lost.
    #[error("the ledger's thread ended unexpectedly; start tally again")]
    WriterEnded,
}

/// An agent that is ready to run.
pub struct App {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    origin: String,
    #[cfg(unix)]
    socket: socket::Socket,
    api: Api,
    in_force: Config,
    ledger: Ledger,
    writer: writer::Writer,
    client: Arc<Client>,
    key: chain::Key,
    clocks: Arc<dyn Clocks>,
    stopping: CancellationToken,
    _lock: Lock,
}

/// Held while the agent runs; the system gives it back even after a crash.
struct Lock(#[expect(unused, reason = "held, not read")] fd_lock::RwLock<std::fs::File>);

impl App {
    /// Opens everything, inside a Tokio runtime. Nothing is served before [`Self::run_until`].
    ///
    /// # Errors
    ///
    /// [`AppError`].
    pub fn build(config: Config, clocks: Arc<dyn Clocks>) -> Result<Self, AppError> {
        let in_force = config.clone();
        let public_name = config
            .tls
            .as_ref()
            .and_then(|tls| tls.names.first().cloned());
        let tls = config.tls.map(Tls::open).transpose()?.map(Arc::new);
        let data_dir = DataDir::new(config.data_dir);
        let lock = take_data_dir(&data_dir)?;
        check_secrets(&data_dir, private_file::this_user())?;
        // First of all: a salvage takes its time, and nobody shall find an agent meanwhile.
        // The reserve is made once there is a ledger.
        let had_one = data_dir.reserve().exists();
        let guard = open_guard(&data_dir)?;
        let connection = recovery::open(data_dir.path(), had_one, clocks.as_ref(), &guard)?;
        let risky = file_system::risky(data_dir.path());
        if let Some(risky) = risky {
            tracing::warn!(
                file_system = risky.name,
                risk = risky.risk(),
                advice = risky.advice(),
                "the data directory is on a file system that a ledger is not safe on"
            );
        }
        let files = Files::open(&data_dir.ledger(), &data_dir.chain_key());
        let files = files.map_err(|source| AppError::DataDir {
            path: data_dir.ledger(),
            source,
        })?;
        let listen = config.listen;
        let unusable = |source| AppError::Listen { listen, source };
        let listener = serve::listen(listen).map_err(unusable)?;
        #[cfg(unix)]
        let socket = socket::Socket::bind(&data_dir)?;
        let address = listener.local_addr().map_err(unusable)?;
        let origin = match (&tls, public_name) {
            (None, _) => format!("http://{address}"),
            (Some(_), None) => format!("https://{address}"),
            (Some(_), Some(name)) => format!("https://{name}:{}", address.port()),
        };
        let signer = Arc::new(open_signer(&data_dir)?);
        let admin_token = admin_token::read_or_make(&data_dir.admin_token())?;
        if let Err(error) = apps::ensure_default(&data_dir) {
            let error = format!("{:#}", anyhow::Error::from(error));
            tracing::warn!(error, "there is no default application");
        }
        let apps = Apps::open(&data_dir);

        let waiting = WaitingList::open(data_dir.waiting())?;
        crate::fail_point!("start.opened");
        let peer = config.server.peer(&guard.key);
        let engine = Engine::open(Opening {
            connection,
            policy: config.policy,
            keeping: config.keeping,
            random: Box::new(|| rand::rng().next_u64()),
            clocks: Arc::clone(&clocks),
            reserve: Box::new(ReserveFile::new(data_dir.reserve())),
            evidence: Evidence::new(guard.key.clone(), Box::new(MarkFile::new(guard.mark))),
            files,
            instance: instance::read(&data_dir.ledger()),
            server: config.server.name(),
            peer: peer.clone(),
        })?;
        let clock = engine.clock();
        let (ledger, writer) = writer::start(engine).map_err(AppError::Thread)?;
        let client = Client::new(config.server, peer, Arc::clone(&clock), Arc::clone(&clocks))?;
        let client = Arc::new(client);
        let stopping = CancellationToken::new();
        let api = Api::new(http::Parts {
            ledger: ledger.clone(),
            ledger_path: data_dir.ledger(),
            risky,
            waiting,
            apps,
            admin_token,
            signer,
            client: Arc::clone(&client),
            clock,
            clocks: Arc::clone(&clocks),
            limits: config.limits,
            tls: tls.clone(),
            origin: origin.clone(),
            stopping: stopping.clone(),
        });
        crate::fail_point!("start.before-ready");
        Ok(Self {
            listener,
            tls,
            origin,
            #[cfg(unix)]
            socket,
            api,
            in_force,
            ledger,
            writer,
            client,
            key: guard.key,
            clocks,
            stopping,
            _lock: lock,
        })
    }

    /// Where the agent is found, such as `http://127.0.0.1:7411`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Takes up changed settings while the agent runs.
    pub fn reloader(&self) -> Reloader {
        Reloader::new(
            self.in_force.clone(),
            self.api.clone(),
            self.ledger.clone(),
            Arc::clone(&self.client),
            self.key.clone(),
        )
    }

    /// Serves until `shutdown` completes; then stops accepting, finishes what is running, and commits.
    ///
    /// # Errors
    ///
    /// [`AppError::WriterEnded`].
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<(), AppError> {
        let stop_serving = self.stopping;
        let stop_syncing = CancellationToken::new();
        let stop_workers = CancellationToken::new();
        let _stop_workers = stop_workers.clone().drop_guard();
        let (servers, exchanges) = (TaskTracker::new(), TaskTracker::new());
        let workers = Workers::start(&stop_workers).map_err(AppError::Thread)?;
        let server = Server::new(&self.api, workers, servers.clone(), stop_serving.clone());
        match self.tls {
            Some(tls) => {
                let listener = TlsListener::new(self.listener, tls);
                servers.spawn(Arc::clone(&server).serve(listener))
            }
            None => servers.spawn(Arc::clone(&server).serve(self.listener)),
        };
        #[cfg(unix)]
        servers.spawn(server.serve(self.socket.listener));
        servers.spawn(http::licenses::read_waiting(self.api));
        servers.close();
        let driving = tokio::spawn(driver::run(
            self.ledger.clone(),
            self.client,
            self.clocks,
            self.writer.commands,
            exchanges.clone(),
            stop_syncing.clone(),
        ));
        let writer = tokio::task::spawn_blocking(move || self.writer.thread.join());
        tokio::pin!(writer);

        let ended = tokio::select! {
            () = shutdown => None,
            ended = &mut writer => Some(ended),
        };
        stop_serving.cancel();
        if tokio::time::timeout(DRAIN_MAX, servers.wait())
            .await
            .is_err()
        {
            tracing::warn!("stopped with requests unanswered");
        }
        stop_syncing.cancel();
        exchanges.close();
        if tokio::time::timeout(EXCHANGES_MAX, exchanges.wait())
            .await
            .is_err()
        {
            tracing::info!("stopped while the licence server had not answered");
        }
        crate::fail_point!("stop.before-ledger");
        self.ledger.stop();
        driving.abort();
        #[cfg(unix)]
        self.socket.name.remove();
        let (ended, was_asked) = match ended {
            Some(ended) => (ended, false),
            None => (writer.await, true),
        };
        match ended {
            Ok(Ok(Some(ended))) => Err(AppError::Ended(ended)),
            Ok(Ok(None)) if was_asked => Ok(()),
            _ => Err(AppError::WriterEnded),
        }
    }
}

/// Accepts the recovery of a damaged ledger, where no agent runs.
///
/// # Errors
///
/// [`AppError::Running`], or that there is nothing to accept.
pub fn accept_recovery(
    data_dir: &DataDir,
    clocks: &dyn Clocks,
) -> Result<recovery::Report, AppError> {
    let report = {
        let _lock = take_data_dir(data_dir)?;
        let guard = open_guard(data_dir)?;
        recovery::accept(data_dir.path(), clocks, &guard)?
    };
    // Root's commands leave a service what it can read.
    owner::hand_over(data_dir.path()).map_err(|source| AppError::DataDir {
        path: data_dir.path().to_owned(),
        source,
    })?;
    Ok(report)
}

/// Refuses a data directory that others than this user and root own or can look into, or a file in it that they own, or
/// whose content they could take with them by another name. Applications' keys that others own are not used, and stop
/// no start.
///
/// # Errors
///
/// [`NotPrivate`], for the first that is found.
pub fn check_secrets(data_dir: &DataDir, user: u32) -> Result<(), NotPrivate> {
    let check = |path: &Path| private_file::check_for(path, Who::Owner, user);
    check(data_dir.path())?;
    let of_apps = std::fs::read_dir(data_dir.apps()).into_iter().flatten();
    let of_apps = of_apps.filter_map(|entry| Some(entry.ok()?.path()));
    let of_apps = of_apps.chain([data_dir.apps()]);
    for path in of_apps {
        match check(&path) {
            Err(NotPrivate::Owner { .. }) | Ok(()) => {}
            Err(too_open) => return Err(too_open),
        }
    }
    [
        data_dir.admin_token(),
        data_dir.chain_key(),
        data_dir.private_key(),
    ]
    .iter()
    .try_for_each(|path| check(path))
}

fn open_guard(data_dir: &DataDir) -> Result<Guard, LedgerError> {
    Ok(Guard {
        key: evidence::open_key(&data_dir.chain_key())?,
        mark: data_dir.mark(),
    })
}

/// Whether an agent runs on an existing data directory.
///
/// # Errors
///
/// [`AppError::DataDir`].
pub fn is_running(data_dir: &DataDir) -> Result<bool, AppError> {
    match as_owner(data_dir, take_data_dir) {
        Ok(_lock) => Ok(false),
        Err(AppError::Running { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Refuses links in a data directory that another user owns, whose ledger root is about to use.
///
/// # Errors
///
/// [`AppError::DataDir`].
pub fn refuse_links(data_dir: &DataDir) -> Result<(), AppError> {
    owner::refuse_links(data_dir.path()).map_err(|source| AppError::DataDir {
        path: data_dir.path().to_owned(),
        source,
    })
}

fn as_owner<T>(
    data_dir: &DataDir,
    work: impl FnOnce(&DataDir) -> Result<T, AppError>,
) -> Result<T, AppError> {
    let work = |reached: &Path| work(&DataDir::new(reached.to_owned()));
    owner::as_owner_of(data_dir.path(), work).map_err(|source| AppError::DataDir {
        path: data_dir.path().to_owned(),
        source,
    })?
}

fn take_data_dir(data_dir: &DataDir) -> Result<Lock, AppError> {
    let failed = |path: PathBuf| move |source| AppError::DataDir { path, source };
    private_file::create_folder(data_dir.path()).map_err(failed(data_dir.path().to_owned()))?;
    let path = data_dir.lock();
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(false);
    private_file::follow_no_link(&mut options);
    let file = options.open(&path).map_err(failed(path.clone()))?;
    let mut lock = fd_lock::RwLock::new(file);
    match lock.try_write() {
        // Leaking the guard keeps the lock for as long as the file is open.
        Ok(guard) => std::mem::forget(guard),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
            return Err(AppError::Running {
                path: data_dir.path().to_owned(),
            });
        }
        Err(source) => return Err(AppError::DataDir { path, source }),
    }
    Ok(Lock(lock))
}

fn open_signer(data_dir: &DataDir) -> Result<Signer, AppError> {
    let path = data_dir.private_key();
    let unusable = |source| AppError::Key {
        path: path.clone(),
        source,
    };
    let unwritable = |path: PathBuf| move |source| AppError::DataDir { path, source };
    let signer = match std::fs::read_to_string(&path) {
        Ok(text) => Signer::from_pem(&text).map_err(unusable)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let signer = Signer::generate().map_err(unusable)?;
            let pem = signer.to_pem().map_err(unusable)?;
            private_file::create(&path, pem.as_bytes()).map_err(unwritable(path.clone()))?;
            signer
        }
        Err(source) => return Err(AppError::DataDir { path, source }),
    };
    let public = signer.public_pem().map_err(unusable)?;
    let public_path = data_dir.public_key();
    if std::fs::read_to_string(&public_path).ok().as_deref() != Some(public.as_str()) {
        private_file::replace(&public_path, public.as_bytes())
            .map_err(unwritable(public_path.clone()))?;
    }
    Ok(signer)
}
