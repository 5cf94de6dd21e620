//! The License API: a request from its arrival to its answer, with whatever fault strikes it.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{Request, State},
    response::Response,
};
use tally_shared::wire::{ApiError, ErrorCode};

use super::{
    delivery::{self, Delivery},
    endpoint::Endpoint,
    execute::{Executed, execute},
    incoming::Incoming,
    reply,
    requests::Entry,
    state::Shared,
};
use crate::{
    engine::answer::Answer,
    faults::{inject::Scissors, spec::Action},
};

/// Answers a request of the License API.
pub(super) async fn handle(
    State(shared): State<Arc<Shared>>,
    Extension(scissors): Extension<Scissors>,
    request: Request,
) -> Response {
    let Some(endpoint) = Endpoint::of_path(request.uri().path()) else {
        return reply::refused(&ApiError::new(ErrorCode::NotFound, "no such path"));
    };
    let Some(incoming) = Incoming::read(endpoint, request).await else {
        let message = "the connection ended within the body";
        return reply::refused(&ApiError::new(ErrorCode::ValidationError, message));
    };
    // A task of its own: the server carries on when the client hangs up.
    let answering = shared.tasks.spawn(answer(Arc::clone(&shared), incoming));
    match answering.await {
        Ok(delivery) => delivery.cut_by(&scissors),
        Err(panic) => {
            tracing::error!(error = &panic as &dyn std::error::Error, "request panicked");
            reply::refused(&ApiError::new(ErrorCode::InternalError, "the stub failed"))
        }
    }
}

async fn answer(shared: Arc<Shared>, incoming: Incoming) -> Delivery {
    let incoming = Arc::new(incoming);
    let hardware_id = incoming.hardware_id();
    let path = incoming.endpoint.path();
    let strike = shared.faults().strike(path, hardware_id.as_deref());
    let mut executed = match strike.action {
        Some(Action::DropBefore) => None,
        Some(Action::Status(status, _)) => {
            Some(Executed::unapplied(delivery::ordered_error(status)))
        }
        Some(_) | None => Some(carry_out(&shared, &incoming).await),
    };
    if let (Some(action), Some(executed)) = (strike.action, &mut executed) {
        delivery::spoil(&mut executed.answer, action);
    }
    let entry = Entry::new(&incoming, executed.as_ref(), hardware_id, strike.last);
    shared.requests().add(entry, shared.clock.now());
    if strike.delay_ms > 0 {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(strike.delay_ms)) => {}
            () = shared.stopping.cancelled() => {}
        }
    }
    // The idempotency key is in use until here, where `executed` ends.
    Delivery::new(&shared, &incoming, executed.as_ref(), &strike)
}

async fn carry_out(shared: &Arc<Shared>, incoming: &Arc<Incoming>) -> Executed {
    let incoming = Arc::clone(incoming);
    let executed = shared.blocking(move |shared| execute(shared, &incoming));
    let refused = |refusal| Executed::unapplied(Answer::refused(&refusal));
    executed.await.unwrap_or_else(refused)
}
