//! A running stub: its listener and its connections.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tally_shared::signature::{KeyError, Signer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;

use crate::{
    api,
    engine::{Engine, EngineError},
    faults::cut::Cuttable,
    seed::Seed,
};

/// How long a stop waits for connections.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// What a stub runs with.
#[derive(Clone, Debug)]
pub struct StubConfig {
    /// Where it listens; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where it keeps its state; in memory where `None`.
    pub data_dir: Option<PathBuf>,
    /// What it starts with.
    pub seed: Seed,
    /// Whether it keeps idempotency keys, unlike the production service.
    pub keeps_keys: bool,
}

/// Why a stub cannot start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
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
    /// The data directory cannot be used.
    #[error("cannot use the data directory {path}; give another with --data-dir")]
    DataDir {
        /// The folder, or the file in it.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The signing key cannot be used.
    #[error("cannot use the signing key {path}; remove it to have a new one made")]
    Key {
        /// The file.
        path: PathBuf,
        /// Why.
        source: KeyError,
    },
    /// The storage cannot be used.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A stub that is ready to run.
pub struct Stub {
    listener: TcpListener,
    addr: SocketAddr,
    router: Router,
}

/// A stub that runs in this process, until it is stopped or dropped.
pub struct RunningStub {
    addr: SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Stub {
    /// Opens the storage and the port.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn build(config: StubConfig) -> Result<Self, StartError> {
        let failed = |source| StartError::Listen {
            listen: config.listen,
            source,
        };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let signer = open_signer(config.data_dir.as_ref())?;
        let file = config.data_dir.map(|folder| folder.join("stub.db"));
        let engine = Engine::open(file.as_deref(), signer, &config.seed, config.keeps_keys)?;
        Ok(Self {
            listener,
            addr,
            router: api::router(Arc::new(engine)),
        })
    }

    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `shutdown` completes.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        tracker.spawn(serve(stream, self.router.clone(), stop.clone()));
                    }
                    // Such as too many open files: what is open may be closed meanwhile.
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a connection");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                },
            }
        }
        stop.cancel();
        tracker.close();
        if tokio::time::timeout(DRAIN_MAX, tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("stopped with requests unanswered");
        }
    }

    /// Runs in the background of this process.
    pub fn spawn(self) -> RunningStub {
        let stop = CancellationToken::new();
        let addr = self.addr;
        let task = tokio::spawn(self.run_until(stop.clone().cancelled_owned()));
        RunningStub { addr, stop, task }
    }
}

impl RunningStub {
    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its address, as clients are configured with.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Stops it, and waits until it has.
    pub async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::warn!(%error, "the stub did not end by itself");
        }
    }
}

async fn serve(stream: TcpStream, router: Router, stop: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let (stream, scissors) = Cuttable::new(stream);
    let service = router.map_request(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(scissors.clone());
        request
    });
    let connection = http1::Builder::new()
        // The stub dates its answers by its own clock.
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that went away, or a cut that a fault ordered.
        tracing::debug!(%error, "a connection broke");
    }
}

fn open_signer(data_dir: Option<&PathBuf>) -> Result<Signer, StartError> {
    let Some(folder) = data_dir else {
        let in_memory = |source| StartError::Key {
            path: "in memory".into(),
            source,
        };
        return Signer::generate().map_err(in_memory);
    };
    let path = folder.join("private_key.pem");
    let unusable = |source| StartError::Key {
        path: path.clone(),
        source,
    };
    let unwritable = |source| StartError::DataDir {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(|source| StartError::DataDir {
        path: folder.clone(),
        source,
    })?;
    match std::fs::read_to_string(&path) {
        Ok(text) => Signer::from_pem(&text).map_err(unusable),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let signer = Signer::generate().map_err(unusable)?;
            let pem = signer.to_pem().map_err(unusable)?;
            write_private(&path, pem.as_bytes()).map_err(unwritable)?;
            Ok(signer)
        }
        Err(error) => Err(unwritable(error)),
    }
}

fn write_private(path: &PathBuf, content: &[u8]) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(content)
}
