//! The network between device and server: requests and answers on their way.

use std::{collections::BTreeMap, time::Duration};

use rand::{Rng, RngExt as _};
use tally_agent::core::{
    book::{BatchNo, LicenseNo},
    event::KeyEcho,
    outcome::{Exchange, RawAnswer},
};
use tally_shared::{
    time::Timestamp,
    wire::{AddConsumption, Subject},
};

use super::{
    answer::{Answer, Cached, raw, refusal},
    plan::{Between, Weather},
    server::{Adding, Instant, Server, name_of},
    trouble::LAG_MAX,
    truth::{Rows, Unheard},
};

/// When the agent gives up on an answer.
pub(super) const TIMEOUT: Instant = 30_000;

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
        /// Under which `Idempotency-Key`, if any.
        key: Option<String>,
        /// The request.
        request: Box<AddConsumption>,
        /// The rows that it carries.
        rows: Vec<Rows>,
        /// The id of the licence that the agent means.
        means: i64,
        /// Since when the agent has not heard of the counter, and whether it knows that others use it.
        unheard: Unheard,
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
    /// In which life of the agent.
    pub(super) life: u32,
    /// Under which credentials.
    pub(super) credentials: u32,
    /// Whether the agent believed then that the server keeps keys.
    pub(super) trusts_keys: bool,
    /// When.
    pub(super) sent_at: Instant,
    /// When, on the device's monotonic clock.
    pub(super) mono: Duration,
    /// Its date.
    pub(super) dated: Timestamp,
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
    /// Whether a cache gave it, and the `Age` that it says.
    pub(super) cached: Option<Cached>,
}

enum Arrival {
    Request {
        message: usize,
        answers: bool,
        repeat: Repeat,
    },
    Answer {
        message: usize,
        heard: Heard,
    },
}

/// Who sent a request once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// Nobody: it is the first.
    First,
    /// A gateway, which the request allowed to.
    Allowed,
    /// A balancer, unasked.
    Unasked,
}

/// The network.
pub(super) struct Network {
    /// How likely each trouble is.
    pub(super) weather: Weather,
    /// What stands between.
    pub(super) between: Between,
    cached: BTreeMap<String, Answer>,
    messages: Vec<(Message, bool)>,
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
            between: Between::default(),
            cached: BTreeMap::new(),
            messages: Vec::new(),
            arrivals: BTreeMap::new(),
            number: 0,
        }
    }

    /// How many requests were sent.
    pub(super) const fn sent(&self) -> usize {
        self.messages.len()
    }

    /// When something arrives next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.arrivals.keys().next().map(|(at, _)| *at)
    }

    /// Sends a request.
    pub(super) fn send(&mut self, sent: Message, may_repeat: bool, random: &mut impl Rng) {
        let (now, message) = (sent.sent_at, self.messages.len());
        self.messages.push((sent, false));
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
        let cut = self.between.cut_before;
        if cut > 0 && roll(cut) {
            let exchange = Exchange::NoAnswer("the connection broke".to_owned());
            return self.hear(now + 10, message, exchange);
        }
        let (is_late, is_twice) = (roll(weather.late), may_repeat && roll(weather.twice));
        let way = random.random_range(1..=weather.slowness.max(1));
        let repeat = Repeat::First;
        let arrival = |answers| Arrival::Request {
            message,
            answers,
            repeat,
        };
        if is_late {
            let given_up = now + random.random_range(1..1000);
            let exchange = Exchange::NoAnswer("the connection broke".to_owned());
            self.hear(given_up, message, exchange);
            let at = given_up + random.random_range(0..LATEST);
            self.arrive(at, arrival(false));
            return;
        }
        self.arrive(now + way, arrival(true));
        if is_twice {
            let at = now + way + random.random_range(0..TIMEOUT);
            self.arrive(at, arrival(false));
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
            Arrival::Request {
                message,
                answers,
                repeat,
            } => {
                if self.between.replica > 0 {
                    server.remember(now, LAG_MAX);
                }
                let asked = self.messages[message].0.clone();
                let request = Arrived {
                    no: message,
                    asked: &asked,
                    answers,
                    repeat,
                };
                self.reach_server(now, &request, server, random);
                None
            }
            Arrival::Answer { message, heard } => {
                let (asked, is_answered) = &mut self.messages[message];
                let is_first = !std::mem::replace(is_answered, true);
                is_first.then(|| (asked.clone(), heard))
            }
        }
    }

    fn reach_server(
        &mut self,
        now: Instant,
        request: &Arrived<'_>,
        server: &mut Server,
        random: &mut impl Rng,
    ) {
        let (weather, at) = (self.weather, now + 1);
        let (no, message, answers) = (request.no, request.asked, request.answers);
        let mut roll = |percent: u8| random.random_range(0..100) < percent;
        if answers && roll(weather.throttled) {
            return self.hear(at, no, from_gateway(429, "slow down"));
        }
        if answers && roll(weather.gateway) && roll(50) {
            return self.hear(at, no, from_gateway(503, "no upstream"));
        }
        let answer = match self.answer(now, request, server, random) {
            Ok(answered) => answered,
            Err(exchange) => {
                return exchange
                    .into_iter()
                    .for_each(|told| self.hear(at, no, told));
            }
        };
        if let (Repeat::Allowed, Purpose::Send { request, means, .. }) =
            (request.repeat, &message.purpose)
            && answer.raw.status != 200
        {
            // The first copy may have been counted.
            server.note_repeat(now, *means, request.feature.as_deref());
        }
        if !answers {
            return;
        }
        let mut roll = |percent: u8| random.random_range(0..100) < percent;
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
        if self.between.cut_after > 0 && random.random_range(0..100) < self.between.cut_after {
            let exchange = Exchange::NoAnswer("the connection broke".to_owned());
            return self.hear(at, no, exchange);
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
            cached: answer.cached,
        };
        self.arrive(now + way, Arrival::Answer { message: no, heard });
    }

    /// What the server says, or what stands between; where that repeats the request, nothing yet.
    fn answer(
        &mut self,
        now: Instant,
        request: &Arrived<'_>,
        server: &mut Server,
        random: &mut impl Rng,
    ) -> Result<Answer, Option<Exchange>> {
        let (between, asked) = (self.between, request.asked);
        let mut roll = |percent: u8| percent > 0 && random.random_range(0..100) < percent;
        let subject = match &asked.purpose {
            Purpose::Send { .. } => {
                let answer = request.add(now, server);
                let is_first = request.answers && request.repeat == Repeat::First;
                if !is_first {
                    return Ok(answer);
                }
                return self.pass_back(now, (request, answer), server, random);
            }
            Purpose::LookUp { subject, .. } => subject,
        };
        let name = name_of(subject);
        if roll(between.cache)
            && let Some(answer) = self.cached.get(&name)
        {
            let age = u64::try_from(now - answer.made_at).unwrap_or(0) / 1000;
            let age = between.shows_age.then(|| Duration::from_secs(age));
            return Ok(Answer {
                cached: Some(Cached { age }),
                ..answer.clone()
            });
        }
        if roll(between.replica) {
            let then = now - random.random_range(0..=between.lag.max(1));
            let answer = server.check_late((now, then), subject, asked.dated);
            return Ok(answer);
        }
        let answer = server.check(now, subject, asked.dated);
        if between.cache > 0 && answer.raw.status == 200 {
            self.cached.insert(name, answer.clone());
        }
        Ok(answer)
    }

    /// The way of the first answer back through what stands between.
    fn pass_back(
        &mut self,
        now: Instant,
        (request, answer): (&Arrived<'_>, Answer),
        server: &mut Server,
        random: &mut impl Rng,
    ) -> Result<Answer, Option<Exchange>> {
        let between = self.between;
        let mut roll = |percent: u8| percent > 0 && random.random_range(0..100) < percent;
        let has_key = matches!(&request.asked.purpose, Purpose::Send { key: Some(_), .. });
        let repeat = if roll(between.gateway) {
            if !has_key {
                return Err(Some(from_gateway(502, "bad gateway")));
            }
            Repeat::Allowed
        } else if roll(between.balancer) {
            if let Purpose::Send { request, means, .. } = &request.asked.purpose {
                server.note_repeat(now, *means, request.feature.as_deref());
            }
            if roll(between.refused_after) {
                let is_throttled = roll(50);
                if is_throttled {
                    return Err(Some(from_gateway(429, "slow down")));
                }
                let raw: RawAnswer = refusal("revoked_api_key");
                return Ok(server.answer(now, raw, KeyEcho::Echoed));
            }
            Repeat::Unasked
        } else {
            return Ok(answer);
        };
        let at = now + random.random_range(1..2_000);
        let (message, answers) = (request.no, true);
        self.arrive(
            at,
            Arrival::Request {
                message,
                answers,
                repeat,
            },
        );
        Err(None)
    }

    fn hear(&mut self, at: Instant, message: usize, exchange: Exchange) {
        let heard = Heard {
            exchange,
            echo: KeyEcho::NoAnswer,
            date: None,
            made_at: at,
            cached: None,
        };
        self.arrive(at, Arrival::Answer { message, heard });
    }

    fn arrive(&mut self, at: Instant, arrival: Arrival) {
        self.number += 1;
        self.arrivals.insert((at, self.number), arrival);
    }
}

/// A request as it arrives at the server.
struct Arrived<'a> {
    no: usize,
    asked: &'a Message,
    answers: bool,
    repeat: Repeat,
}

impl Arrived<'_> {
    fn add(&self, now: Instant, server: &mut Server) -> Answer {
        let asked = self.asked;
        let Purpose::Send {
            key,
            request,
            rows,
            means,
            unheard,
            ..
        } = &asked.purpose
        else {
            return server.answer(now, refusal("not_found"), KeyEcho::Absent);
        };
        let adding = Adding {
            body: &request.to_json(),
            is_feature: request.feature.is_some(),
            key: key.as_deref().map(|key| (asked.credentials, key)),
            is_trusted: asked.trusts_keys && key.is_some(),
            dated: asked.dated,
            rows,
            means: *means,
            life: asked.life,
            is_repeat: self.repeat == Repeat::Unasked,
            unheard: *unheard,
        };
        server.add(now, &adding)
    }
}

fn from_gateway(status: u16, text: &str) -> Exchange {
    Exchange::Answer(raw(status, text.to_owned()))
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
