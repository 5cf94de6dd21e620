//! What stands between agent and server, served on a port: it takes a request and gives an answer, or cuts the
//! connection.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use anyhow::Context as _;
use tokio::{
    io::BufReader,
    net::{TcpListener, TcpStream},
    runtime::{Builder, Handle},
    sync::oneshot,
};

use super::message::{Message, Unread};

/// How long a hop waits for the next one. Longer than anything takes on one machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of a request.
pub(super) enum Passed {
    /// It is answered.
    Answer(Message),
    /// The connection is closed without a byte.
    Close,
    /// The connection is reset without a byte.
    Reset,
}

/// Something that stands between agent and server.
pub(super) trait Hop: Send + Sync + 'static {
    /// Takes a request.
    fn pass(&self, request: Message) -> impl Future<Output = Passed> + Send;
}

/// The hops of one chain, on a thread of their own; they end with it.
pub(super) struct Hops {
    handle: Handle,
    _stop: oneshot::Sender<()>,
}

impl Hops {
    /// A thread without a hop yet.
    pub(super) fn start() -> tally_tests::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::spawn(move || {
            // Ends with an error when the sender is gone: that is what it waits for.
            let _ = runtime.block_on(stopped);
        });
        Ok(Self {
            handle,
            _stop: stop,
        })
    }

    /// Serves a hop on a port that the system picks.
    pub(super) fn serve(&self, hop: Arc<impl Hop>) -> tally_tests::Result<SocketAddr> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no free port")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _inside = self.handle.enter();
        let listener = TcpListener::from_std(listener)?;
        self.handle.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(connection(stream, Arc::clone(&hop)));
            }
        });
        Ok(address)
    }
}

async fn connection(stream: TcpStream, hop: Arc<impl Hop>) {
    // It is slower without, not wrong.
    let _ = stream.set_nodelay(true);
    let mut stream = BufReader::new(stream);
    while let Ok(request) = Message::read(&mut stream).await {
        match hop.pass(request).await {
            Passed::Answer(answer) => {
                if answer.write(stream.get_mut()).await.is_err() {
                    return;
                }
            }
            Passed::Close => return,
            Passed::Reset => {
                // Closed instead of reset where it fails: cut all the same.
                let _ = stream.get_ref().set_zero_linger();
                return;
            }
        }
    }
}

/// Passes a request on, over a connection of its own.
pub(super) async fn forward(to: SocketAddr, request: &Message) -> Option<Message> {
    let mut stream = connect(to).await.ok()?;
    request.write(stream.get_mut()).await.ok()?;
    answer(&mut stream).await.ok()
}

/// Opens a connection to the next hop.
pub(super) async fn connect(to: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

/// Waits for the answer of the next hop.
pub(super) async fn answer(stream: &mut BufReader<TcpStream>) -> Result<Message, Unread> {
    let answer = tokio::time::timeout(PATIENCE, Message::read(stream));
    answer.await.unwrap_or(Err(Unread::Later))
}
