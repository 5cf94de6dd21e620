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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    };

    use super::{GoGateway, Hop, Message, Passed};
    use crate::hop::Hops;

    /// A server that answers the first request, and from then on closes each connection that a request comes over.
    #[derive(Default)]
    struct Closing {
        asked: AtomicU64,
    }

    impl Hop for Closing {
        async fn pass(&self, _: Message) -> Passed {
            match self.asked.fetch_add(1, Relaxed) {
                0 => Passed::Answer(answer()),
                _ => Passed::Close,
            }
        }
    }

    fn answer() -> Message {
        Message {
            start: "HTTP/1.1 200 OK".to_owned(),
            headers: vec![("Content-Length".to_owned(), "0".to_owned())],
            body: Vec::new(),
        }
    }

    fn request(method: &str, header: Option<&str>) -> Message {
        let headers = header.map(|name| (name.to_owned(), "key".to_owned()));
        Message {
            start: format!("{method} / HTTP/1.1"),
            headers: headers.into_iter().collect(),
            body: Vec::new(),
        }
    }

    /// How many requests reach a server that answered once over a connection and closes it at the next.
    fn reached(method: &str, header: Option<&str>) -> u64 {
        let hops = Hops::start().unwrap();
        let server = Arc::new(Closing::default());
        let gateway = GoGateway::new(hops.serve(Arc::clone(&server)).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            gateway.pass(request("GET", None)).await;
            let Passed::Answer(answer) = gateway.pass(request(method, header)).await else {
                panic!("a gateway answers");
            };
            assert!(answer.start.contains("502"), "{}", answer.start);
        });
        server.asked.load(Relaxed) - 1
    }

    #[test]
    fn a_post_is_sent_again_only_with_a_key() {
        assert_eq!(reached("POST", None), 1);
        assert_eq!(reached("POST", Some("Content-Type")), 1);
        assert_eq!(reached("POST", Some("idempotency-key")), 2);
        assert_eq!(reached("POST", Some("X-Idempotency-Key")), 2);
    }

    #[test]
    fn a_look_up_is_sent_again_and_a_fresh_connection_ends_it() {
        assert_eq!(reached("GET", None), 2);
    }
}
