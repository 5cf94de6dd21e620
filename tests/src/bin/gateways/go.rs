//! A gateway with the rule of Go's `net/http` for sending a request again by itself.
//!
//! The rule, as it stands in Go's source since 1.12 (`src/net/http/transport.go`: `Transport.roundTrip`,
//! `persistConn.shouldRetryRequest`, `persistConn.readLoop`; `src/net/http/request.go`: `Request.isReplayable`):
//!
//! * A request is tried again where its connection had answered a request before (it was *reused*), never where it was
//!   fresh, and where
//!   * nothing of it was written, and its body can be had again (`GetBody`); or
//!   * it is *replayable*, and the connection ended or failed before the first byte of the answer
//!     (`transportReadFromServerError`, `errServerClosedIdle`). Once a byte has come, it is not tried again.
//! * Replayable is `GET`, `HEAD`, `OPTIONS` and `TRACE`, and any other method with the header `Idempotency-Key` or
//!   `X-Idempotency-Key`; and in both cases the body must be none, or one that can be had again.
//! * The next try takes another connection, reused or fresh. There is no bound but that a fresh one ends it.
//!
//! The gateway reads a request whole and makes a new one of it (`http.NewRequest` with a `bytes.Reader`), as gateways
//! do that look at bodies: so each body can be had again. What its client says in headers is passed on.

use std::{net::SocketAddr, sync::Mutex};

use tokio::{io::BufReader, net::TcpStream};

use super::{
    hop::{Hop, Passed, answer, connect},
    message::{Message, Unread},
};

/// How many connections may be idle: `MaxIdleConnsPerHost`, which gateways raise.
const IDLE_MAX: usize = 64;

/// A gateway that sends a request again where Go would.
pub(super) struct GoGateway {
    server: SocketAddr,
    idle: Mutex<Vec<BufReader<TcpStream>>>,
}

/// How a try failed.
enum Failed {
    /// Nothing was written.
    Unwritten,
    /// The connection ended before the first byte of the answer.
    Unanswered,
    /// It failed later.
    Later,
}

impl GoGateway {
    /// A gateway before a server.
    pub(super) fn new(server: SocketAddr) -> Self {
        Self {
            server,
            idle: Mutex::default(),
        }
    }

    async fn round_trip(&self, request: &Message) -> Option<Message> {
        loop {
            let reused = self.take_idle();
            let is_reused = reused.is_some();
            let mut connection = match reused {
                Some(connection) => connection,
                None => connect(self.server).await.ok()?,
            };
            match exchange(&mut connection, request).await {
                Ok(answer) => {
                    self.put_idle(connection);
                    return Some(answer);
                }
                Err(failed) if is_reused && is_tried_again(&failed, request) => {}
                Err(_) => return None,
            }
        }
    }

    /// The connection that was idle for the shortest time and that the server has not closed since.
    fn take_idle(&self) -> Option<BufReader<TcpStream>> {
        let mut idle = self.idle.lock().ok()?;
        loop {
            let connection = idle.pop()?;
            let mut byte = [0];
            // An idle connection has nothing to say: whatever can be read, its end too, makes it unusable.
            let state = connection.get_ref().try_read(&mut byte);
            if state.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock) {
                return Some(connection);
            }
        }
    }

    fn put_idle(&self, connection: BufReader<TcpStream>) {
        if let Ok(mut idle) = self.idle.lock()
            && idle.len() < IDLE_MAX
        {
            idle.push(connection);
        }
    }
}

async fn exchange(
    connection: &mut BufReader<TcpStream>,
    request: &Message,
) -> Result<Message, Failed> {
    let written = request.write(connection.get_mut()).await;
    written.map_err(|_| Failed::Unwritten)?;
    answer(connection).await.map_err(|unread| match unread {
        Unread::BeforeFirstByte => Failed::Unanswered,
        Unread::Later => Failed::Later,
    })
}

/// Go's rule, for a connection that was reused and a body that can be had again.
fn is_tried_again(failed: &Failed, request: &Message) -> bool {
    match failed {
        Failed::Unwritten => true,
        Failed::Unanswered => is_replayable(request),
        Failed::Later => false,
    }
}

fn is_replayable(request: &Message) -> bool {
    matches!(request.method(), "GET" | "HEAD" | "OPTIONS" | "TRACE")
        || request.header("Idempotency-Key").is_some()
        || request.header("X-Idempotency-Key").is_some()
}

impl Hop for GoGateway {
    async fn pass(&self, request: Message) -> Passed {
        let answer = self.round_trip(&request).await;
        Passed::Answer(answer.unwrap_or_else(Message::bad_gateway))
    }
}
