//! Accepting connections, and serving each on a thread of its own choice.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::Service;
use crate::workers::Workers;

/// When the system has no more connections to give, it is asked again after this time.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Where connections come from.
pub(crate) trait Listen: Send + 'static {
    /// A connection that belongs to no thread yet.
    type Accepted: Send + 'static;
    /// A connection of the thread that serves it.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Waits for the next connection.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Accepted>> + Send;

    /// Makes a connection the calling thread's.
    fn adopt(accepted: Self::Accepted) -> io::Result<Self::Stream>;
}

/// Serves requests.
pub(crate) struct Server {
    service: Service,
    workers: Workers,
    connections: TaskTracker,
    stop: CancellationToken,
}

impl Server {
    /// Serves on the workers; connections are tracked, and finish what they do at `stop`.
    pub(crate) fn new(
        service: Service,
        workers: Workers,
        connections: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            service,
            workers,
            connections,
            stop,
        })
    }

    /// Accepts connections until it is stopped.
    pub(crate) async fn serve<L: Listen>(self: Arc<Self>, listener: L) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(accepted) => {
                    let (handle, seat) = self.workers.assign();
                    let serving = self.clone().connection::<L>(accepted);
                    let serving = async move {
                        serving.await;
                        drop(seat);
                    };
                    self.connections.spawn_on(serving, handle);
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    async fn connection<L: Listen>(self: Arc<Self>, accepted: L::Accepted) {
        let stream = match L::adopt(accepted) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "cannot serve a connection");
                return;
            }
        };
        let service = service_fn(|request| {
            let answer = self.service.clone().answer(request);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = self.stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection ended");
        }
    }
}

impl Listen for TcpListener {
    type Accepted = std::net::TcpStream;
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<Self::Accepted> {
        let (stream, _) = Self::accept(self).await?;
        // Answers are small and complete: waiting to fill a packet would only delay them.
        stream.set_nodelay(true)?;
        stream.into_std()
    }

    fn adopt(accepted: Self::Accepted) -> io::Result<Self::Stream> {
        TcpStream::from_std(accepted)
    }
}

#[cfg(unix)]
impl Listen for tokio::net::UnixListener {
    type Accepted = std::os::unix::net::UnixStream;
    type Stream = tokio::net::UnixStream;

    async fn accept(&self) -> io::Result<Self::Accepted> {
        let (stream, _) = Self::accept(self).await?;
        stream.into_std()
    }

    fn adopt(accepted: Self::Accepted) -> io::Result<Self::Stream> {
        tokio::net::UnixStream::from_std(accepted)
    }
}
