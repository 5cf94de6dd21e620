//! A running stub: the socket, the connections, and an orderly end.

use std::{
    convert::Infallible, io, net::SocketAddr, path::PathBuf, pin::pin, sync::Arc, time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response};
use hyper::{
    body::Incoming,
    header::{DATE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tally_shared::signature::Signer;
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt as _;

use crate::{
    api::{
        self,
        state::{Parts, Shared},
    },
    engine::clock::Clock,
    faults::inject::CutStream,
    keys::{self, KeyFileError},
    private_file,
    seed::{Mistake, Seed},
    store::{OpenError, Store},
};

/// How long running requests may take to end when the stub stops.
const GRACE: Duration = Duration::from_secs(5);
/// How long to wait when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a stub is started with.
#[derive(Clone, Debug)]
pub struct StubConfig {
    /// Where to listen; port 0 picks a free one.
    pub listen: SocketAddr,
    /// Where to keep everything; `None` keeps it in memory.
    pub data_dir: Option<PathBuf>,
    /// What there is at the first start. A data folder that holds a database already wins over it.
    pub seed: Seed,
    /// Whether `Idempotency-Key` is heeded.
    pub idempotency: bool,
}

/// The licence server, to be started.
#[derive(Debug)]
pub struct Stub;

/// A licence server that runs until [`RunningStub::shutdown`], or until it is dropped.
pub struct RunningStub {
    addr: SocketAddr,
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
        let listen = config.listen;
        let listening = |source| StartError::Listen {
            addr: listen,
            source,
        };
        let listener = TcpListener::bind(listen).await.map_err(listening)?;
        let addr = listener.local_addr().map_err(listening)?;
        let shared = Arc::new(open(config)?);
        let router = api::router(Arc::clone(&shared));
        shared
            .tasks
            .spawn(accept(listener, router, Arc::clone(&shared)));
        Ok(RunningStub { addr, shared })
    }
}

impl RunningStub {
    /// Where it listens.
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its base URL, such as `http://127.0.0.1:7412`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
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

fn open(config: StubConfig) -> Result<Shared, StartError> {
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
    }))
}

async fn accept(listener: TcpListener, router: Router, shared: Arc<Shared>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopping.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = serve(stream, router.clone(), Arc::clone(&shared));
                shared.tasks.spawn(serving);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, router: Router, shared: Arc<Shared>) {
    // Only a matter of speed, so a socket that refuses it is served all the same.
    let _ = stream.set_nodelay(true);
    let stream = CutStream::new(stream);
    let scissors = stream.scissors();
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(scissors.clone());
        answer(router.clone(), request.map(Body::new), &shared)
    });
    // No time-outs: a connection ends here only where a client or a fault ends it.
    let connection = http1::Builder::new()
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Every answer carries the stub's own time, whoever made it.
async fn answer(router: Router, request: Request, shared: &Shared) -> Result<Response, Infallible> {
    let mut response = router.oneshot(request).await?;
    let date = shared.clock.now().to_http_date();
    if let Ok(date) = HeaderValue::from_str(&date) {
        response.headers_mut().entry(DATE).or_insert(date);
    }
    Ok(response)
}
