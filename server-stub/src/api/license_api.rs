//! The License API: a request from its arrival to its answer, with whatever fault strikes it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

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
    control,
    engine::{activity::Activity, answer::Answer},
    faults::{inject::Scissors, plan::Strike, spec::Action},
    network::weather::Meeting,
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
    let _under_way = shared.under_way();
    let incoming = Arc::new(incoming);
    let hardware_id = incoming.hardware_id();
    let meeting = shared.network.meet(Instant::now());
    let half = match meeting {
        Meeting::Late(time) => time / 2,
        _ => Duration::ZERO,
    };
    pause(&shared, half).await;
    let is_lost = meeting == Meeting::Lost || !shared.network.is_reachable();
    let strike = if is_lost {
        Strike::default()
    } else {
        strike(&shared, &incoming, meeting, hardware_id.as_deref())
    };
    let mut executed = match (meeting, strike.action) {
        _ if is_lost => None,
        (Meeting::Portal, _) => Some(Executed::unapplied(delivery::ordered_error(503))),
        (_, Some(Action::DropBefore)) => None,
        (_, Some(Action::Status(status, _))) => {
            Some(Executed::unapplied(delivery::ordered_error(status)))
        }
        _ => Some(carry_out(&shared, &incoming).await),
    };
    if let (Some(action), Some(executed)) = (strike.action, &mut executed) {
        delivery::spoil(&mut executed.answer, action);
    }
    let state = (meeting != Meeting::Pass || is_lost).then(|| shared.network.report().state.name());
    let entry = Entry::new(
        &incoming,
        executed.as_ref(),
        hardware_id,
        strike.last,
        state,
    );
    let activity = executed.as_ref().and_then(|it| it.activity.clone());
    tell(&shared, entry, activity).await;
    pause(&shared, half + Duration::from_millis(strike.delay_ms)).await;
    // The idempotency key is in use until here, where `executed` ends.
    if is_lost || !shared.network.is_reachable() {
        return Delivery::lost();
    }
    Delivery::new(&shared, &incoming, executed.as_ref(), &strike)
}

/// What strikes a request: the network answers in the server's place, or a fault that was ordered.
fn strike(
    shared: &Shared,
    incoming: &Incoming,
    meeting: Meeting,
    hardware_id: Option<&str>,
) -> Strike {
    let by_network = |action| Strike {
        action: Some(action),
        ..Strike::default()
    };
    match meeting {
        Meeting::Portal => by_network(Action::Garbage),
        Meeting::Refused(status, retry_after) => by_network(Action::Status(status, retry_after)),
        Meeting::Pass | Meeting::Late(_) | Meeting::Lost => {
            let path = incoming.endpoint.path();
            let mut faults = shared.faults();
            let strike = faults.strike(path, hardware_id);
            if strike.last.is_some() {
                shared.live.tell("faults", &faults.report());
            }
            strike
        }
    }
}

/// Logs a request, and tells whoever listens of it and of what it changed.
async fn tell(shared: &Arc<Shared>, entry: Entry, activity: Option<Activity>) {
    let entry = shared.requests().add(entry, shared.clock.now());
    if entry.network.is_some() {
        control::tell_network(shared);
    }
    shared.live.tell("request", &entry);
    let Some(activity) = activity else { return };
    shared.live.tell("activity", &activity);
    // A failure was logged, and is the listeners' loss only.
    let _ = control::tell_licenses(shared).await;
}

async fn pause(shared: &Shared, time: Duration) {
    if !time.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = shared.stopping.cancelled() => {}
        }
    }
}

async fn carry_out(shared: &Arc<Shared>, incoming: &Arc<Incoming>) -> Executed {
    let incoming = Arc::clone(incoming);
    let executed = shared.blocking(move |shared| execute(shared, &incoming));
    let refused = |refusal| Executed::unapplied(Answer::refused(&refusal));
    executed.await.unwrap_or_else(refused)
}
