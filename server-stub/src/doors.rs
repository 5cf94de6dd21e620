//! The sockets and their connections: where clients come in through the network, and where testers do.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::Request, response::Response};
use hyper::{
    body::Incoming,
    header::{DATE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tower::ServiceExt as _;

use crate::{
    api::{endpoint::Endpoint, state::Shared},
    faults::inject::CutStream,
    server::StartError,
};

/// How long to wait when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who comes in through a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Everybody: only what carries the License API is cut when the network goes.
    Only,
    /// Clients, through the network: closed while it is gone.
    Clients,
    /// Testers, whatever the network does.
    Testers,
}

/// Listens.
pub(crate) async fn bind(addr: SocketAddr) -> Result<TcpListener, StartError> {
    let listening = TcpListener::bind(addr).await;
    listening.map_err(|source| StartError::Listen { addr, source })
}

/// Where a socket listens; `asked` is where it was meant to.
pub(crate) fn address(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, StartError> {
    let addr = listener.local_addr();
    addr.map_err(|source| StartError::Listen {
        addr: asked,
        source,
    })
}

/// Listens, and keeps the port for as long as the second socket lives, also while nobody listens: otherwise the
/// system could give it to another program, or to the other end of some connection. The second socket is bound and
/// does not listen, so connections are refused. Where a system knows no such pair, there is none.
pub(crate) async fn bind_and_keep(
    addr: SocketAddr,
) -> Result<(TcpListener, Option<TcpSocket>), StartError> {
    let listening = |source| StartError::Listen { addr, source };
    let keeper = keep_port(addr).map_err(listening)?;
    let kept = keeper.local_addr().map_err(listening)?;
    if let Ok(listener) = TcpListener::bind(kept).await {
        return Ok((listener, Some(keeper)));
    }
    drop(keeper);
    Ok((bind(kept).await?, None))
}

/// Accepts connections until the stub stops.
pub(crate) async fn accept(listener: TcpListener, router: Router, shared: Arc<Shared>, door: Door) {
    let Ok(addr) = listener.local_addr() else {
        tracing::error!("a socket without an address");
        return;
    };
    let mut listener = listener;
    loop {
        accept_while_open(listener, &router, &shared, door).await;
        let Some(again) = reopened(addr, &shared).await else {
            return;
        };
        listener = again;
    }
}

/// Accepts clients' connections while the network leads to the stub, until it stops.
pub(crate) async fn accept_clients(
    (listener, keeper): (TcpListener, Option<TcpSocket>),
    router: Router,
    shared: Arc<Shared>,
) {
    accept(listener, router, shared, Door::Clients).await;
    drop(keeper);
}

/// Accepts connections; returns when the stub stops, or the door is to be closed.
async fn accept_while_open(
    listener: TcpListener,
    router: &Router,
    shared: &Arc<Shared>,
    door: Door,
) {
    let mut network = shared.network.watch();
    let mut gone = pin!(async move {
        match door {
            // The sender lives as long as the stub, so this ends with the network only.
            Door::Clients => drop(network.wait_for(|reachable| !reachable).await),
            Door::Only | Door::Testers => std::future::pending().await,
        }
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = gone.as_mut() => return,
            () = shared.stopping.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let serving = serve(stream, router.clone(), Arc::clone(shared), door);
                shared.tasks.spawn(serving);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Waits until the network is back, and listens again; `None` where the stub stops.
async fn reopened(addr: SocketAddr, shared: &Shared) -> Option<TcpListener> {
    let mut network = shared.network.watch();
    tokio::select! {
        _ = network.wait_for(|reachable| *reachable) => {}
        () = shared.stopping.cancelled() => return None,
    }
    loop {
        match TcpListener::bind(addr).await {
            Ok(listener) => return Some(listener),
            // A child that is just being started may still have the old socket for an instant.
            Err(error) => tracing::debug!(%error, %addr, "cannot listen again yet"),
        }
        tokio::select! {
            () = tokio::time::sleep(ACCEPT_PAUSE) => {}
            () = shared.stopping.cancelled() => return None,
        }
    }
}

/// A socket that is bound and does not listen.
fn keep_port(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

async fn serve(stream: TcpStream, router: Router, shared: Arc<Shared>, door: Door) {
    // Only a matter of speed, so a socket that refuses it is served all the same.
    let _ = stream.set_nodelay(true);
    let stream = CutStream::new(stream);
    let scissors = stream.scissors();
    let through_network = AtomicBool::new(door == Door::Clients);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        if Endpoint::of_path(request.uri().path()).is_some() {
            through_network.store(door != Door::Testers, Ordering::Relaxed);
        }
        request.extensions_mut().insert(scissors.clone());
        answer(router.clone(), request.map(Body::new), &shared)
    });
    // No time-outs: a connection ends here only where a client, a fault or the network ends it.
    let connection = http1::Builder::new()
        .auto_date_header(false)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = lost(&shared, &through_network) => {
            scissors.reset();
            return;
        }
        () = shared.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Waits until the network goes while the connection leads through it.
async fn lost(shared: &Shared, through_network: &AtomicBool) {
    let mut network = shared.network.watch();
    // The sender lives as long as the stub, so neither wait fails.
    while network.wait_for(|reachable| !reachable).await.is_ok() {
        if through_network.load(Ordering::Relaxed) {
            return;
        }
        if network.wait_for(|reachable| *reachable).await.is_err() {
            break;
        }
    }
    std::future::pending::<()>().await;
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
