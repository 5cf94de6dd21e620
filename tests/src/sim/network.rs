//! The network between device and server: requests and answers on their way.

use std::collections::BTreeMap;

use rand::{Rng, RngExt as _};
use tally_agent::core::{
    book::{BatchNo, LicenseNo},
    event::KeyEcho,
    outcome::Exchange,
};
use tally_shared::{
    time::Timestamp,
    wire::{AddConsumption, Subject},
};

use super::{
    plan::Weather,
    server::{Answer, Instant, Server, raw},
};

/// When the agent gives up on an answer.
const TIMEOUT: Instant = 30_000;

/// How long a request may be under way after the agent gave up on it. The agent waits this long before
/// it looks (`--settle-wait`): that is the one thing it must be told about its network.
pub(super) const LATEST: Instant = 30_000;

/// Why a request was sent.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// To send a batch.
    Send {
        /// Which.
        batch: BatchNo,
        /// Its id.
        key: String,
        /// Whether the request carries it as its key.
        is_keyed: bool,
        /// The request.
        request: Box<AddConsumption>,
    },
    /// To read a licence.
    LookUp {
        /// Which.
        license: LicenseNo,
        /// How it is named.
        subject: Subject,
    },
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// Why it was sent.
    pub(super) purpose: Purpose,
    /// By which process.
    pub(super) process: u64,
    /// When.
    pub(super) sent_at: Instant,
    dated: Timestamp,
    is_answered: bool,
}

/// What the agent hears of a request.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// What came back.
    pub(super) exchange: Exchange,
    /// What it says of the key.
    pub(super) echo: KeyEcho,
    /// The `Date`, where there is one.
    pub(super) date: Option<Timestamp>,
    /// When the server made it.
    pub(super) made_at: Instant,
}

enum Arrival {
    Request { message: usize, answers: bool },
    Answer { message: usize, heard: Heard },
}

/// The network.
pub(super) struct Network {
    /// How likely each trouble is.
    pub(super) weather: Weather,
    messages: Vec<Message>,
    arrivals: BTreeMap<(Instant, usize), Arrival>,
    number: usize,
}

impl Network {
    /// A network without trouble.
    pub(super) fn new() -> Self {
        Self {
            weather: Weather {
                slowness: 50,
                ..Weather::default()
            },
            messages: Vec::new(),
            arrivals: BTreeMap::new(),
            number: 0,
        }
    }

    /// When something arrives next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.arrivals.keys().next().map(|(at, _)| *at)
    }

    /// Sends a request.
    pub(super) fn send(
        &mut self,
        now: Instant,
        (purpose, process, dated): (Purpose, u64, Timestamp),
        may_repeat: bool,
        random: &mut impl Rng,
    ) {
        let message = self.messages.len();
        self.messages.push(Message {
            purpose,
            process,
            sent_at: now,
            dated,
            is_answered: false,
        });
        let weather = self.weather;
        let mut roll = |percent: u8| random.random_range(0..100) < percent;
        if roll(weather.unreached) {
            let exchange = Exchange::NotSent("no route".to_owned());
            return self.hear(now + 5, message, exchange);
        }
        if roll(weather.lost_before) {
            let exchange = Exchange::NoAnswer("timed out".to_owned());
            return self.hear(now + TIMEOUT, message, exchange);
        }
        let (is_late, is_twice) = (roll(weather.late), may_repeat && roll(weather.twice));
        let way = random.random_range(1..=weather.slowness.max(1));
        if is_late {
            let given_up = now + random.random_range(1..1000);
            let exchange = Exchange::NoAnswer("the connection broke".to_owned());
            self.hear(given_up, message, exchange);
            let at = given_up + random.random_range(0..LATEST);
            self.arrive(
                at,
                Arrival::Request {
                    message,
                    answers: false,
                },
            );
            return;
        }
        self.arrive(
            now + way,
            Arrival::Request {
                message,
                answers: true,
            },
        );
        if is_twice {
            let at = now + way + random.random_range(0..TIMEOUT);
            self.arrive(
                at,
                Arrival::Request {
                    message,
                    answers: false,
                },
            );
        }
    }

    /// What arrives at this instant: at the server, which answers, or at the agent.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        server: &mut Server,
        random: &mut impl Rng,
    ) -> Option<(Message, Heard)> {
        let (_, arrival) = self.arrivals.pop_first()?;
        match arrival {
            Arrival::Request { message, answers } => {
                let asked = self.messages[message].clone();
                self.reach_server(now, (message, &asked), answers, server, random);
                None
            }
            Arrival::Answer { message, heard } => {
                let asked = &mut self.messages[message];
                let is_first = !std::mem::replace(&mut asked.is_answered, true);
                is_first.then(|| (asked.clone(), heard))
            }
        }
    }

    fn reach_server(
        &mut self,
        now: Instant,
        (no, message): (usize, &Message),
        answers: bool,
        server: &mut Server,
        random: &mut impl Rng,
    ) {
        let weather = self.weather;
        let mut roll = |percent: u8| random.random_range(0..100) < percent;
        let at = now + 1;
        let from_gateway = |status: u16, text: &str| Exchange::Answer(raw(status, text.to_owned()));
        if answers && roll(weather.throttled) {
            return self.hear(at, no, from_gateway(429, "slow down"));
        }
        if answers && roll(weather.gateway) && roll(50) {
            return self.hear(at, no, from_gateway(503, "no upstream"));
        }
        let answer = match &message.purpose {
            Purpose::Send {
                key,
                is_keyed,
                request,
                ..
            } => server.add(
                now,
                &request.to_json(),
                request.feature.is_some(),
                (key, *is_keyed),
                message.dated,
            ),
            Purpose::LookUp { subject, .. } => server.check(now, subject, message.dated),
        };
        if !answers {
            return;
        }
        let way = 1 + i64::from(roll(50)) * (weather.slowness / 2);
        let (lost, garbled, gateway) = (
            roll(weather.lost_after),
            roll(weather.garbled),
            roll(weather.gateway),
        );
        if lost || now + way > message.sent_at + TIMEOUT {
            let exchange = Exchange::NoAnswer("timed out".to_owned());
            return self.hear((message.sent_at + TIMEOUT).max(at), no, exchange);
        }
        if gateway {
            return self.hear(at, no, from_gateway(504, "<html>gateway timeout</html>"));
        }
        if garbled {
            let exchange = garble(&answer, random);
            return self.hear(at, no, exchange);
        }
        let heard = Heard {
            exchange: Exchange::Answer(answer.raw),
            echo: answer.echo,
            date: Some(answer.date),
            made_at: answer.made_at,
        };
        self.arrive(now + way, Arrival::Answer { message: no, heard });
    }

    fn hear(&mut self, at: Instant, message: usize, exchange: Exchange) {
        let heard = Heard {
            exchange,
            echo: KeyEcho::NoAnswer,
            date: None,
            made_at: at,
        };
        self.arrive(at, Arrival::Answer { message, heard });
    }

    fn arrive(&mut self, at: Instant, arrival: Arrival) {
        self.number += 1;
        self.arrivals.insert((at, self.number), arrival);
    }
}

fn garble(answer: &Answer, random: &mut impl Rng) -> Exchange {
    let body = &answer.raw.body;
    match random.random_range(0..4) {
        0 => Exchange::Answer(raw(200, "<html>please log in</html>".to_owned())),
        1 => Exchange::Answer(raw(200, "{}".to_owned())),
        2 => {
            let half = String::from_utf8_lossy(&body[..body.len() / 2]).into_owned();
            Exchange::Answer(raw(200, half))
        }
        _ => Exchange::NoAnswer("the answer broke off".to_owned()),
    }
}
