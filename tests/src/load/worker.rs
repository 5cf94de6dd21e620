//! One thread of the generator, with its share of the connections.

use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use tally_shared::{auth, time::Timestamp};

use super::{Load, Outcome, connection::Connection};

/// The longest latency that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_mins(1);

/// Latencies are kept to so many digits.
const DIGITS: u8 = 3;

pub(super) struct Worker {
    poll: Poll,
    connections: Vec<Connection>,
    signature: Signature,
    warm_up: Duration,
    duration: Duration,
}

/// What every request carries, made as often as an SDK makes it: the date when it changes, the
/// signature each time.
struct Signature {
    api_key: String,
    shared_key: String,
    second: i64,
    date: String,
}

impl Worker {
    pub(super) fn connect(load: &Load, share: Vec<usize>) -> crate::Result<Self> {
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(share.len());
        for (token, connection) in share.into_iter().enumerate() {
            let body = &load.bodies[connection % load.bodies.len()];
            let mut connection = Connection::connect(&load.target, body)?;
            connection.register(poll.registry(), Token(token))?;
            connections.push(connection);
        }
        Ok(Self {
            poll,
            connections,
            signature: Signature {
                api_key: load.api_key.clone(),
                shared_key: load.shared_key.clone(),
                second: i64::MIN,
                date: String::new(),
            },
            warm_up: load.warm_up,
            duration: load.duration,
        })
    }

    pub(super) fn run(mut self) -> crate::Result<Outcome> {
        let mut events = Events::with_capacity(1024);
        let mut latency = Histogram::new_with_bounds(
            1,
            u64::try_from(LATENCY_MAX.as_nanos()).unwrap_or(u64::MAX),
            DIGITS,
        )?;
        let (mut granted, mut refused) = (0, 0);
        for connection in &mut self.connections {
            self.signature.send(connection)?;
        }
        let mut counting = None;
        let start = Instant::now();
        loop {
            self.poll.poll(&mut events, Some(Duration::from_secs(10)))?;
            anyhow::ensure!(!events.is_empty(), "no answer for 10 seconds");
            let now = Instant::now();
            if counting.is_none() && now.duration_since(start) >= self.warm_up {
                counting = Some((now, cpu_time()));
            }
            for event in &events {
                let Some(connection) = self.connections.get_mut(event.token().0) else {
                    continue;
                };
                let Some(status) = connection.receive()? else {
                    continue;
                };
                if counting.is_some() {
                    let nanos = connection.sent_at.elapsed().as_nanos();
                    latency.saturating_record(u64::try_from(nanos).unwrap_or(u64::MAX));
                    if status == 200 {
                        granted += 1;
                    } else {
                        refused += 1;
                    }
                }
                self.signature.send(connection)?;
            }
            if let Some((since, cpu)) = counting
                && since.elapsed() >= self.duration
            {
                return Ok(Outcome {
                    granted,
                    refused,
                    elapsed: since.elapsed(),
                    latency,
                    cpu: cpu_time().saturating_sub(cpu),
                });
            }
        }
    }
}

impl Signature {
    fn send(&mut self, connection: &mut Connection) -> crate::Result {
        let now = Timestamp::from_system_time(SystemTime::now());
        let second = now.as_millis() / 1000;
        if second != self.second {
            self.second = second;
            self.date = now.to_http_date();
        }
        let authorization = auth::authorization(&self.api_key, &self.shared_key, &self.date);
        connection.send(&self.date, &authorization)
    }
}

/// The processor time of this thread.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
