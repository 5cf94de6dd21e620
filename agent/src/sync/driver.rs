//! Carries the core's orders out, and wakes it when it asked to be woken.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::client::Client;
use crate::{
    core::{command::Command, event::Event},
    deps::Clocks,
    ledger::{engine::Pulse, writer::Ledger},
};

/// The shortest time between two ticks, so that a defect in the core costs a little and not a core.
const TICK_MIN: Duration = Duration::from_millis(5);

/// Runs until it is cancelled; exchanges under way may go on in `tasks`.
pub async fn run(
    ledger: Ledger,
    client: Arc<Client>,
    clocks: Arc<dyn Clocks>,
    mut commands: mpsc::UnboundedReceiver<Command>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let mut pulse = ledger.pulse();
    loop {
        let wakeup = wakeup(*pulse.borrow_and_update(), clocks.as_ref());
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            Some(command) = commands.recv() => {
                let (ledger, client) = (ledger.clone(), Arc::clone(&client));
                tasks.spawn(async move { carry_out(&ledger, &client, command).await });
            }
            () = sleep_until(wakeup) => ledger.tell(Event::Tick).await,
            changed = pulse.changed() => if changed.is_err() { return },
        }
    }
}

async fn carry_out(ledger: &Ledger, client: &Client, command: Command) {
    match command {
        Command::Send {
            batch,
            key,
            request,
            ..
        } => {
            crate::fail_point!("send.before-request");
            let (outcome, key) = client.send(&request, key).await;
            crate::fail_point!("send.after-answer");
            ledger
                .tell(Event::Answered {
                    batch,
                    outcome,
                    key,
                })
                .await;
        }
        Command::LookUp { license, subject } => {
            let (outcome, key) = client.look_up(&subject).await;
            crate::fail_point!("look-up.after-answer");
            let hardware_id = subject.hardware_id;
            ledger
                .tell(Event::LookedUp {
                    license,
                    hardware_id,
                    outcome,
                    key,
                })
                .await;
        }
        // The ledger's own reader answers these.
        Command::FindPrefix { .. } => {}
    }
}

fn wakeup(pulse: Pulse, clocks: &dyn Clocks) -> Option<Instant> {
    let wait = pulse.wakeup?.saturating_sub(clocks.reading().mono);
    Some(Instant::now() + wait.max(TICK_MIN))
}

async fn sleep_until(wakeup: Option<Instant>) {
    match wakeup {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
