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
    requests::{Caller, Entry},
    state::{Shared, UnderWay},
};
use crate::{
    control,
    engine::{activity::Activity, answer::Answer},
    faults::{
        inject::Scissors,
        plan::{Strike, Target},
        spec::Action,
    },
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
        Ok(delivery) => {
            if delivery.is_silent() {
                // Ends before, where the client hangs up.
                shared.stopping.cancelled().await;
            }
            delivery.cut_by(&scissors)
        }
        Err(panic) => {
            tracing::error!(error = &panic as &dyn std::error::Error, "request panicked");
            reply::refused(&ApiError::new(ErrorCode::InternalError, "the stub failed"))
        }
    }
}

async fn answer(shared: Arc<Shared>, incoming: Incoming) -> Delivery {
    let under_way = shared.under_way();
    let incoming = Arc::new(incoming);
    let caller = Caller::of(&incoming);
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
        strike(&shared, &incoming, meeting, &caller)
    };
    let state = (meeting != Meeting::Pass || is_lost).then(|| shared.network.report().state.name());
    let logged = Logged {
        shared: &shared,
        incoming: &incoming,
        caller,
        fault: strike.last,
        network: state,
    };
    go_back(&shared, &strike).await;
    let mut executed = match (meeting, strike.action) {
        _ if is_lost => None,
        (Meeting::Portal, _) => Some(Executed::unapplied(delivery::ordered_error(503))),
        (_, Some(Action::DropBefore | Action::BlackHole | Action::Late(_))) => None,
        (_, Some(Action::Status(status, _))) => {
            Some(Executed::unapplied(delivery::ordered_error(status)))
        }
        (_, Some(Action::Duplicate)) => {
            // The key is free again before the second one comes.
            logged
                .tell(Some(&carry_out(&shared, &incoming, 0).await))
                .await;
            Some(carry_out(&shared, &incoming, 0).await)
        }
        _ => Some(carry_out(&shared, &incoming, strike.stale_ms).await),
    };
    if let (Some(action), Some(executed)) = (strike.action, &mut executed) {
        delivery::spoil(executed, action);
    }
    let entry = logged.tell(executed.as_ref()).await;
    if let Some(Action::Late(late_ms)) = strike.action {
        let late = land(
            Arc::clone(&shared),
            Arc::clone(&incoming),
            entry,
            late_ms,
            under_way,
        );
        shared.tasks.spawn(late);
    }
    pause(&shared, half + Duration::from_millis(strike.delay_ms)).await;
    // The idempotency key is in use until here, where `executed` ends.
    if is_lost || !shared.network.is_reachable() {
        return Delivery::lost();
    }
    Delivery::new(&shared, &incoming, executed.as_ref(), &strike)
}

/// A request that was cut off arrives after all; a stub that stops before has not got it.
async fn land(
    shared: Arc<Shared>,
    incoming: Arc<Incoming>,
    mut entry: Entry,
    late_ms: u64,
    under_way: UnderWay,
) {
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(late_ms)) => {}
        () = shared.stopping.cancelled() => return,
    }
    let executed = carry_out(&shared, &incoming, 0).await;
    entry.answered(&executed);
    shared.requests().replace(&entry);
    shared.live.tell("request", &entry);
    tell_activity(&shared, executed.activity.as_ref()).await;
    drop(under_way);
}

/// Carries out the faults that strike the store, before a request is served.
async fn go_back(shared: &Arc<Shared>, strike: &Strike) {
    let (requests, forget) = (strike.roll_back, strike.forget_keys);
    if requests == 0 && !forget {
        return;
    }
    let gone = shared.blocking(move |shared| {
        let mut store = shared.store();
        if requests > 0 {
            store.roll_back(requests)?;
        }
        if forget {
            let tx = store.begin()?;
            tx.forget_answers()?;
            tx.commit()?;
        }
        Ok(())
    });
    // A failure was logged, and the request is served all the same.
    if gone.await.is_ok() && requests > 0 {
        // Rows that were told of are gone: whoever listens reads everything again.
        shared.live.tell("missed", &serde_json::json!({}));
    }
}

/// What strikes a request: the network answers in the server's place, or a fault that was ordered.
fn strike(shared: &Shared, incoming: &Incoming, meeting: Meeting, caller: &Caller) -> Strike {
    let by_network = |action| Strike {
        action: Some(action),
        ..Strike::default()
    };
    match meeting {
        Meeting::Portal => by_network(Action::Garbage),
        Meeting::Refused(status, retry_after) => by_network(Action::Status(status, retry_after)),
        Meeting::Pass | Meeting::Late(_) | Meeting::Lost => {
            let target = Target {
                endpoint: incoming.endpoint,
                hardware_id: caller.hardware_id.as_deref(),
                api_key: caller.api_key.as_deref(),
                keyed: incoming.idempotency_key().is_some(),
            };
            let mut faults = shared.faults();
            let strike = faults.strike(&target);
            if strike.last.is_some() {
                shared.live.tell("faults", &faults.report());
            }
            strike
        }
    }
}

/// A request that is being answered, for the log.
struct Logged<'a> {
    shared: &'a Arc<Shared>,
    incoming: &'a Incoming,
    caller: Caller,
    fault: Option<Action>,
    network: Option<&'static str>,
}

impl Logged<'_> {
    /// Logs what came of the request, and tells whoever listens of it and of what it changed.
    async fn tell(&self, executed: Option<&Executed>) -> Entry {
        let shared = self.shared;
        let caller = self.caller.clone();
        let mut entry = Entry::new(self.incoming, caller, self.fault, self.network);
        if let Some(executed) = executed {
            entry.answered(executed);
        }
        let entry = shared.requests().add(entry, shared.clock.now());
        if entry.network.is_some() {
            control::tell_network(shared);
        }
        shared.live.tell("request", &entry);
        tell_activity(shared, executed.and_then(|it| it.activity.as_ref())).await;
        entry
    }
}

async fn tell_activity(shared: &Arc<Shared>, activity: Option<&Activity>) {
    let Some(activity) = activity else { return };
    shared.live.tell("activity", activity);
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

async fn carry_out(shared: &Arc<Shared>, incoming: &Arc<Incoming>, stale_ms: u64) -> Executed {
    let incoming = Arc::clone(incoming);
    let executed = shared.blocking(move |shared| execute(shared, &incoming, stale_ms));
    let refused = |refusal| Executed::unapplied(Answer::refused(&refusal));
    executed.await.unwrap_or_else(refused)
}
