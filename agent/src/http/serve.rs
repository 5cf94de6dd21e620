//! The sockets: accepting connections and serving HTTP/1.1 on each, within limits of size, number and
//! time. Nobody's slowness is another's: a connection is a task of its own, and none waits for another.

use std::{future::poll_fn, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Api,
    connection::{Connections, Place, Source, Watched},
    front::Front,
    tls::Tls,
};
use crate::config::limits::Limits;

/// The longest head of a request, its line included. More is answered with 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The most that one connection buffers.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// How long to wait where the system has no more sockets to give.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections the system keeps until they are accepted. With few, those of a burst are lost,
/// and come again only after a second.
const BACKLOG: u32 = 1024;

/// What connections get that cannot even be let in.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 0\r\n\r\n";

/// Listens on a TCP port.
///
/// # Errors
///
/// What the system says.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    // As everywhere: an agent that was stopped a moment ago does not keep the next one from its port.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What serves connections. Cheap to clone.
#[derive(Clone)]
pub struct Server(Arc<Inner>);

struct Inner {
    api: Api,
    front: Front,
    connections: Arc<Connections>,
    limits: Limits,
    http: http1::Builder,
}

/// Where connections come from.
pub enum Listener {
    /// A TCP port that only this device can reach.
    Tcp(TcpListener),
    /// A TCP port that other devices can reach.
    Tls(TcpListener, Arc<Tls>),
    /// A Unix socket.
    #[cfg(unix)]
    Unix(tokio::net::UnixListener),
}

impl Server {
    /// Serves the agent's routes, within its limits.
    pub fn new(api: &Api) -> Self {
        let limits = api.limits;
        let mut http = http1::Builder::new();
        // Times are kept by `Connection`, without a timer for each request; the date is the front's.
        http.header_read_timeout(None)
            .auto_date_header(false)
            .max_header_size(HEAD_BYTES_MAX)
            .max_buf_size(BUFFER_BYTES_MAX);
        Self(Arc::new(Inner {
            api: api.clone(),
            front: Front::new(api.clone(), super::router(api.clone())),
            connections: Arc::new(Connections::new(limits.connections)),
            limits,
            http,
        }))
    }

    /// Accepts connections until `stop`, and serves each as a task of `tasks`.
    pub async fn serve(self, listener: Listener, tasks: TaskTracker, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok(Accepted::Tcp(stream, source)) => {
                    self.let_in(stream, source, &tasks, &stop);
                }
                Ok(Accepted::Tls(stream, source, tls)) => {
                    self.let_in_by_tls(stream, source, tls, &tasks, &stop);
                }
                #[cfg(unix)]
                Ok(Accepted::Unix(stream, user)) => {
                    if self.may_use_socket(user) {
                        self.let_in(stream, Source::User(user), &tasks, &stop);
                    }
                }
                // One connection's own trouble.
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The agent's own user, and the one who may do everything anyway. The folder's mode keeps others
    /// out already; this holds where somebody has opened the folder.
    #[cfg(unix)]
    fn may_use_socket(&self, user: u32) -> bool {
        let is_allowed = user == 0 || user == rustix::process::geteuid().as_raw();
        if !is_allowed {
            let (api, source) = (&self.0.api, Source::User(user));
            let what = "the socket of another user";
            api.strangers.turn_away(source, api.clocks.mono(), what);
        }
        is_allowed
    }

    fn let_in<S>(&self, stream: S, source: Source, tasks: &TaskTracker, stop: &CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.0.connections.enter(source, false) {
            Some(place) => {
                let work = self.clone().run(stream, place, stop.clone());
                tasks.spawn(work);
            }
            None => {
                tasks.spawn(refuse(stream));
            }
        }
    }

    fn let_in_by_tls(
        &self,
        stream: TcpStream,
        source: Source,
        tls: Arc<Tls>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) {
        // Without a handshake there is nothing to say to those who find no room.
        let Some(place) = self.0.connections.enter(source, true) else {
            return;
        };
        let (server, stop) = (self.clone(), stop.clone());
        tasks.spawn(async move {
            let shaken = tokio::time::timeout(server.0.limits.head_time, tls.accept(stream));
            let shaken = tokio::select! {
                shaken = shaken => shaken,
                () = place.connection().pushed_out() => return,
                () = stop.cancelled() => return,
            };
            match shaken {
                Ok(Ok(stream)) => server.run(stream, place, stop).await,
                Ok(Err(error)) => tracing::debug!(%error, ?source, "no handshake"),
                Err(_) => tracing::debug!(?source, "the handshake took too long"),
            }
        });
    }

    async fn run<S>(self, stream: S, place: Place, stop: CancellationToken)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connection = place.connection();
        let io = TokioIo::new(Watched::new(stream, Arc::clone(connection)));
        let service = service_fn(|request| self.0.front.answer(connection, request));
        let mut http = pin!(self.0.http.serve_connection(io, service));
        let mut overdue = pin!(connection.overdue(&self.0.limits));
        let mut is_stopping = false;
        loop {
            tokio::select! {
                biased;
                ended = http.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, source = ?connection.source(), "connection ended");
                    }
                    return;
                }
                () = stop.cancelled(), if !is_stopping => {
                    is_stopping = true;
                    http.as_mut().graceful_shutdown();
                }
                () = connection.pushed_out() => {
                    if !connection.is_working() {
                        return;
                    }
                    http.as_mut().graceful_shutdown();
                }
                () = overdue.as_mut() => return,
            }
        }
    }
}

/// What was accepted.
enum Accepted {
    Tcp(TcpStream, Source),
    Tls(TcpStream, Source, Arc<Tls>),
    #[cfg(unix)]
    Unix(tokio::net::UnixStream, u32),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Self::Tcp(listener) => {
                let (stream, source) = accept_tcp(listener).await?;
                Ok(Accepted::Tcp(stream, source))
            }
            Self::Tls(listener, tls) => {
                let (stream, source) = accept_tcp(listener).await?;
                Ok(Accepted::Tls(stream, source, Arc::clone(tls)))
            }
            #[cfg(unix)]
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred()?.uid();
                Ok(Accepted::Unix(stream, user))
            }
        }
    }
}

async fn accept_tcp(listener: &TcpListener) -> io::Result<(TcpStream, Source)> {
    let (stream, address) = listener.accept().await?;
    // Answers are small and complete: waiting to fill a packet would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    Ok((stream, Source::Address(address.ip())))
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotConnected
    )
}

/// Says that there is no room, as far as the client takes it without waiting.
async fn refuse(mut stream: impl AsyncWrite + Unpin) {
    let write = poll_fn(|cx| std::pin::Pin::new(&mut stream).poll_write(cx, FULL));
    // It is refused whether or not it can be told.
    let _ = tokio::time::timeout(Duration::ZERO, write).await;
}
