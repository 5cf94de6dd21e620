//! The network: what becomes of what the agent sent, and how the server's answers look.

use std::time::Duration;

use tally_agent::core::{
    book::{BatchNo, LicenseNo},
    event::{Event, KeyEcho},
    outcome::{LicenseFound, LookUpOutcome, SendOutcome},
};
use tally_shared::{
    period::Period,
    time::Timestamp,
    units::Total,
    wire::{Counter, LicenseBody, Subject},
};

use crate::{
    server::{Reply, Request},
    setup::Setup,
    world::World,
};

/// The only licence.
pub(crate) const LICENSE: LicenseNo = LicenseNo(1);

/// What the agent asked the server, and the answer when it is on its way back.
#[derive(Clone, Debug)]
pub(crate) enum Exchange {
    /// To count a batch.
    Send(Request, Option<Reply>),
    /// To tell the total.
    LookUp(Subject, Option<i64>),
}

/// A request that the agent gave up on, and that may still arrive.
#[derive(Clone, Debug)]
pub(crate) struct Stray {
    pub(crate) request: Request,
    /// Since when the agent has no longer been waiting for its answer.
    pub(crate) since: Duration,
}

impl World<'_> {
    pub(crate) fn arrive(&mut self) {
        let time = self.outside.now.time;
        let server = &mut self.outside.server;
        match &mut self.exchange {
            Some(Exchange::Send(request, reply)) => *reply = Some(server.add(time, request)),
            Some(Exchange::LookUp(_, total)) => *total = Some(server.total(time)),
            None => {}
        }
    }

    pub(crate) fn answer(&mut self) {
        match self.exchange.take() {
            Some(Exchange::Send(request, Some(reply))) => {
                let outcome = match reply.total {
                    Some(total) => {
                        let counter = counter(self.setup, total);
                        SendOutcome::Applied(counter.standing(Timestamp::default()).into())
                    }
                    None => SendOutcome::RefusedLimit,
                };
                self.tell(Event::Answered {
                    batch: request.batch,
                    outcome,
                    key: reply.key,
                });
            }
            Some(Exchange::LookUp(subject, Some(total))) => {
                let found = Box::new(found(self.setup, total));
                self.tell(Event::LookedUp {
                    license: LICENSE,
                    hardware_id: subject.hardware_id,
                    outcome: LookUpOutcome::Found(found),
                    key: self.outside.server.echo(),
                });
            }
            other => self.exchange = other,
        }
    }

    pub(crate) fn lose(&mut self) {
        let lost = "lost".to_owned();
        match self.exchange.take() {
            Some(Exchange::Send(request, reply)) => {
                let batch = request.batch;
                if reply.is_none() {
                    let since = self.outside.now.mono;
                    self.outside.strays.push(Stray { request, since });
                }
                self.answered(batch, SendOutcome::Unknown(lost, None));
            }
            Some(Exchange::LookUp(subject, _)) => {
                self.looked_up(subject, LookUpOutcome::Invalid(lost, None));
            }
            None => {}
        }
    }

    pub(crate) fn refuse(&mut self) {
        let refused = "connection refused".to_owned();
        match self.exchange.take() {
            Some(Exchange::Send(request, _)) => {
                self.answered(request.batch, SendOutcome::Unreached(refused));
            }
            Some(Exchange::LookUp(subject, _)) => {
                self.looked_up(subject, LookUpOutcome::Unreached(refused));
            }
            None => {}
        }
    }

    fn answered(&mut self, batch: BatchNo, outcome: SendOutcome) {
        self.tell(Event::Answered {
            batch,
            outcome,
            key: KeyEcho::NoAnswer,
        });
    }

    fn looked_up(&mut self, subject: Subject, outcome: LookUpOutcome) {
        self.tell(Event::LookedUp {
            license: LICENSE,
            hardware_id: subject.hardware_id,
            outcome,
            key: KeyEcho::NoAnswer,
        });
    }
}

/// How the agent's device names the licence.
pub(crate) fn subject() -> Subject {
    Subject::by_key("p", "K", "h")
}

/// The licence as the server describes it.
pub(crate) fn found(setup: &Setup, total: i64) -> LicenseFound {
    LicenseFound {
        subject: subject(),
        body: body(setup, total),
        is_fresh: true,
    }
}

fn body(setup: &Setup, total: i64) -> LicenseBody {
    LicenseBody {
        counter: counter(setup, total),
        license_type: "consumption".to_owned(),
        license_active: true,
        license_enabled: true,
        is_expired: false,
        validity_period: None,
        allow_grace_period: false,
        grace_period: 0,
        product_features: Vec::new(),
        license_signature: String::new(),
        other: serde_json::Map::new(),
    }
}

fn counter(setup: &Setup, total: i64) -> Counter {
    Counter {
        id: 1,
        max_consumptions: setup.max,
        total_consumptions: Total::new(total),
        allow_unlimited_consumptions: false,
        allow_negative_consumptions: false,
        allow_overages: false,
        max_overages: 0,
        reset_consumption: setup.turns,
        consumption_period: setup.turns.then_some(Period::Daily),
    }
}
