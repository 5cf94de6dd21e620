//! How an answer leaves: its headers, and what a fault does to it on the way.

use axum::response::Response;
use hyper::header::{CONNECTION, DATE, HeaderName, RETRY_AFTER};
use tally_shared::wire::{ApiError, ErrorCode, error::ErrorBody};

use super::{
    execute::{Echo, Executed},
    incoming::Incoming,
    reply,
    state::Shared,
};
use crate::{
    engine::answer::Answer,
    faults::{
        inject::Scissors,
        plan::Strike,
        spec::{Action, Refusal},
    },
};

/// What a captive portal says in the server's place.
const GARBAGE: &str = "<!doctype html><title>Welcome</title><p>Please log in to use this network.";

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// An answer that is ready to be sent.
pub(super) struct Delivery {
    response: Response,
    /// After how many bytes it ends too early.
    bytes_max: Option<usize>,
    /// Whether the connection is reset.
    lost: bool,
    /// True where nothing is sent for as long as the client waits.
    is_silent: bool,
}

impl Delivery {
    /// Puts the headers on an answer. Without an answer, the connection is closed.
    pub(super) fn new(
        shared: &Shared,
        incoming: &Incoming,
        executed: Option<&Executed>,
        strike: &Strike,
    ) -> Self {
        let bytes_max = match strike.action {
            Some(Action::DropBefore | Action::DropAfter | Action::Late(_) | Action::BlackHole) => {
                Some(0)
            }
            Some(Action::Truncate(bytes)) => Some(bytes),
            Some(_) | None => None,
        };
        let mut response = match (executed, strike.action) {
            (None, _) => Response::default(),
            // Whoever answers in the server's place knows nothing of its headers.
            (Some(_), Some(Action::Garbage)) => reply::text("text/html", GARBAGE.to_owned()),
            (Some(executed), _) => contract_answer(incoming, executed),
        };
        let skew_ms = strike.skew_seconds.saturating_mul(1000);
        let date = shared.clock.now().plus_millis(skew_ms);
        reply::set(&mut response, DATE, &date.to_http_date());
        if let Some(Action::Status(_, Some(seconds)) | Action::RefuseAfter(_, Some(seconds))) =
            strike.action
        {
            reply::set(&mut response, RETRY_AFTER, &seconds.to_string());
        }
        Self {
            response,
            bytes_max,
            lost: false,
            is_silent: strike.action == Some(Action::BlackHole),
        }
    }

    /// No answer: the network lost the request, or what was answered.
    pub(super) fn lost() -> Self {
        Self {
            response: Response::default(),
            bytes_max: Some(0),
            lost: true,
            is_silent: false,
        }
    }

    /// True where nothing is sent and the connection stays open.
    pub(super) const fn is_silent(&self) -> bool {
        self.is_silent
    }

    /// The response, its connection cut where it is to be.
    pub(super) fn cut_by(mut self, scissors: &Scissors) -> Response {
        if let Some(bytes_max) = self.bytes_max {
            scissors.cut_after(bytes_max);
            reply::set(&mut self.response, CONNECTION, "close");
        }
        if self.lost {
            scissors.reset();
        }
        self.response
    }
}

/// What a fault does to the answer itself.
pub(super) fn spoil(executed: &mut Executed, action: Action) {
    match action {
        Action::Garbage => {
            executed.answer = Answer {
                status: 200,
                body: GARBAGE.into(),
                signature: None,
            };
        }
        Action::BadSignature => {
            if let Some(signature) = &mut executed.answer.signature {
                // Still Base64 of the right length: only verifying it tells.
                let other = if signature.starts_with('A') { "B" } else { "A" };
                signature.replace_range(..1, other);
            }
        }
        Action::RefuseAfter(refusal, _) => {
            executed.answer = match refusal {
                Refusal::Status(status) => ordered_error(status),
                Refusal::Code(code) => Answer::refused(&ApiError::new(code, "ordered by a tester")),
            };
            // Whoever refuses in the server's place knows nothing of its keys.
            executed.echo = Echo::Nothing;
        }
        _ => {}
    }
}

/// The answer that a fault or a limit of the rate gives in the server's place.
pub(super) fn ordered_error(status: u16) -> Answer {
    let code = match status {
        429 => ErrorCode::RateLimited.as_str(),
        500 => ErrorCode::InternalError.as_str(),
        501.. => ErrorCode::Unavailable.as_str(),
        // None of the contract's: clients must expect codes that they do not know.
        _ => "ordered_error",
    };
    let body = ErrorBody {
        status,
        code: code.to_owned(),
        message: "ordered by a tester".to_owned(),
    };
    Answer {
        status,
        ..Answer::control(&body)
    }
}

fn contract_answer(incoming: &Incoming, executed: &Executed) -> Response {
    let mut response = reply::answer(&executed.answer);
    if executed.echo == Echo::Nothing {
        return response;
    }
    if let Some(key) = incoming.idempotency_key() {
        response.headers_mut().insert(IDEMPOTENCY_KEY, key.clone());
    }
    if let Echo::LookedUp { replayed } = executed.echo {
        let replayed = if replayed { "true" } else { "false" };
        reply::set(&mut response, IDEMPOTENCY_REPLAYED, replayed);
    }
    response
}
