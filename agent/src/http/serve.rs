//! The sockets: accepting connections, and serving HTTP/1.1 on each on a thread of its own choice, within
//! limits of size, number and time. Nobody's slowness is another's.

use std::{
    future::poll_fn,
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
};
use tokio_rustls::server::TlsStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Api,
    connection::{Connections, Place, Source, Watched},
    front::Front,
    tls::Tls,
};
use crate::workers::Workers;

/// The longest head of a request, its line included. More is answered with 431.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// The most that one connection buffers.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// When the system has no more connections to give, it is asked again after this time.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// How many connections the system keeps until they are accepted. With few, those of a burst are lost,
/// and come again only after a second.
const BACKLOG: u32 = 1024;

/// What connections get that cannot even be let in.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\
    Connection: close\r\nContent-Length: 0\r\n\r\n";

/// Where connections come from.
pub(crate) trait Listen: Send + 'static {
    /// A connection that belongs to no thread yet.
    type Accepted: Send + 'static;
    /// A connection of the thread that serves it.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Whether other devices can reach it.
    const IS_PUBLIC: bool;

    /// Waits for the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Accepted, Source)>> + Send;

    /// Makes a connection the calling thread's.
    fn adopt(accepted: Self::Accepted) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// A port that other devices can reach.
pub(crate) struct TlsListener {
    listener: TcpListener,
    tls: Arc<Tls>,
}

impl TlsListener {
    /// Serves a port by TLS.
    pub(crate) const fn new(listener: TcpListener, tls: Arc<Tls>) -> Self {
        Self { listener, tls }
    }
}

/// Listens on a TCP port.
///
/// # Errors
///
/// What the system says.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
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

/// Serves requests.
pub(crate) struct Server {
    api: Api,
    front: Front,
    http: http1::Builder,
    connections: Arc<Connections>,
    workers: Workers,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    /// Serves on the workers; connections are tracked, and finish what they do at `stop`.
    pub(crate) fn new(
        api: &Api,
        workers: Workers,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let mut http = http1::Builder::new();
        // Times are kept by `Connection`, without a timer for each request; the date is the front's. Answers are short:
        // head and body in one piece take the system less than two pieces.
        http.header_read_timeout(None)
            .auto_date_header(false)
            .max_header_size(HEAD_BYTES_MAX)
            .writev(false)
            .max_buf_size(BUFFER_BYTES_MAX);
        Arc::new(Self {
            api: api.clone(),
            front: Front::new(api),
            http,
            connections: Arc::clone(&api.connections),
            workers,
            tasks,
            stop,
        })
    }

    /// Accepts connections until it is stopped.
    pub(crate) async fn serve<L: Listen>(self: Arc<Self>, listener: L) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => {
                    self.connections.call_off();
                    return;
                }
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((accepted, source)) if self.is_welcome(source) => {
                    self.let_in::<L>(accepted, source);
                }
                // Hung up on.
                Ok(_) => {}
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// On the socket, the agent's own user, and the one who may do everything anyway. The folder's mode
    /// keeps others out already; this holds where somebody has opened the folder.
    fn is_welcome(&self, source: Source) -> bool {
        let is_welcome = match source {
            Source::Address(_) => true,
            #[cfg(unix)]
            Source::User(user) => user == 0 || user == rustix::process::geteuid().as_raw(),
        };
        if !is_welcome {
            let now = self.api.clocks.mono();
            let what = "the socket of another user";
            self.api.strangers.turn_away(source, now, what);
        }
        is_welcome
    }

    fn let_in<L: Listen>(self: &Arc<Self>, accepted: L::Accepted, source: Source) {
        let Some(place) = self.connections.enter(source, L::IS_PUBLIC) else {
            self.tasks.spawn(refuse::<L>(accepted));
            return;
        };
        let (handle, seat) = self.workers.assign();
        let serving = Arc::clone(self).adopt::<L>(accepted, place);
        let serving = async move {
            serving.await;
            drop(seat);
        };
        self.tasks.spawn_on(serving, handle);
    }

    async fn adopt<L: Listen>(self: Arc<Self>, accepted: L::Accepted, place: Place) {
        let adopted = tokio::time::timeout(self.api.limits().head_time, L::adopt(accepted));
        let adopted = tokio::select! {
            adopted = adopted => adopted,
            () = place.connection().called_off() => return,
        };
        match adopted {
            Ok(Ok(stream)) => self.connection(stream, place).await,
            Ok(Err(error)) => tracing::debug!(%error, "cannot serve a connection"),
            Err(_) => tracing::debug!("a handshake took too long"),
        }
    }

    async fn connection<S>(self: Arc<Self>, stream: S, place: Place)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connection = place.connection();
        let io = TokioIo::new(Watched::new(stream, Arc::clone(connection)));
        let service = service_fn(|request| self.front.answer(connection, request));
        let mut http = pin!(self.http.serve_connection(io, service));
        let mut overdue = pin!(connection.overdue(|| self.api.limits()));
        loop {
            tokio::select! {
                biased;
                ended = http.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended");
                    }
                    return;
                }
                () = connection.called_off() => {
                    if connection.is_pushed_out() && !connection.is_working() {
                        return;
                    }
                    http.as_mut().graceful_shutdown();
                }
                () = overdue.as_mut() => return,
            }
        }
    }
}

impl Listen for TcpListener {
    type Accepted = std::net::TcpStream;
    type Stream = TcpStream;

    const IS_PUBLIC: bool = false;

    async fn accept(&self) -> io::Result<(Self::Accepted, Source)> {
        let (stream, address) = Self::accept(self).await?;
        // Answers are small and complete: waiting to fill a packet would only delay them.
        stream.set_nodelay(true)?;
        Ok((stream.into_std()?, Source::Address(address.ip())))
    }

    async fn adopt(accepted: Self::Accepted) -> io::Result<Self::Stream> {
        TcpStream::from_std(accepted)
    }
}

impl Listen for TlsListener {
    type Accepted = (std::net::TcpStream, Arc<Tls>);
    type Stream = TlsStream<TcpStream>;

    const IS_PUBLIC: bool = true;

    async fn accept(&self) -> io::Result<(Self::Accepted, Source)> {
        let (stream, source) = Listen::accept(&self.listener).await?;
        Ok(((stream, Arc::clone(&self.tls)), source))
    }

    async fn adopt((stream, tls): Self::Accepted) -> io::Result<Self::Stream> {
        tls.accept(TcpStream::from_std(stream)?).await
    }
}

#[cfg(unix)]
impl Listen for tokio::net::UnixListener {
    type Accepted = std::os::unix::net::UnixStream;
    type Stream = tokio::net::UnixStream;

    const IS_PUBLIC: bool = false;

    async fn accept(&self) -> io::Result<(Self::Accepted, Source)> {
        let (stream, _) = Self::accept(self).await?;
        let user = stream.peer_cred()?.uid();
        Ok((stream.into_std()?, Source::User(user)))
    }

    async fn adopt(accepted: Self::Accepted) -> io::Result<Self::Stream> {
        tokio::net::UnixStream::from_std(accepted)
    }
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

/// Says that there is no room, as far as the client takes it without waiting. Where a handshake comes
/// first, there is nothing to say.
async fn refuse<L: Listen>(accepted: L::Accepted) {
    if L::IS_PUBLIC {
        return;
    }
    if let Ok(mut stream) = L::adopt(accepted).await {
        let write = poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, FULL));
        // It is refused whether or not it can be told.
        let _ = tokio::time::timeout(Duration::ZERO, write).await;
    }
}
