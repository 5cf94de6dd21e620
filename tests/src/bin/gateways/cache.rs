//! A cache of look-ups that is asked for nothing and keeps what it likes: an answer is kept for up to 15 minutes,
//! whatever the request says of caches, and found under every spelling of its address. One kind says how old an answer is (`Age`) and dates it anew, the other says
//! nothing, and only the old `Date` that it leaves tells.
//!
//! One look-up in three goes past it, as where several caches stand side by side and one has not kept the answer: an
//! agent that asks again comes to a fresh answer in the end.

use std::{
    collections::{BTreeSet, HashMap},
    net::SocketAddr,
    sync::Mutex,
    time::{Duration, Instant, SystemTime},
};

use rand::RngExt as _;
use reqwest::Url;
use tally_shared::time::Timestamp;

use super::{
    hop::{Hop, Passed, forward},
    message::Message,
};

/// For how long an answer is kept.
const KEPT: Duration = Duration::from_mins(15);

/// How likely a look-up goes past it.
const PAST: f64 = 1.0 / 3.0;

/// A cache of look-ups.
pub(super) struct Cache {
    next: SocketAddr,
    says_age: bool,
    kept: Mutex<HashMap<Asked, (Instant, Message)>>,
}

/// The parameters of a look-up, however its address spells them.
type Asked = BTreeSet<(String, String)>;

impl Cache {
    /// A cache before a server.
    pub(super) fn new(next: SocketAddr, says_age: bool) -> Self {
        Self {
            next,
            says_age,
            kept: Mutex::default(),
        }
    }

    fn find(&self, asked: &Asked) -> Option<Message> {
        if rand::rng().random_bool(PAST) {
            return None;
        }
        let kept = self.kept.lock().ok()?;
        let (since, answer) = kept.get(asked)?;
        let age = since.elapsed();
        if age > KEPT {
            return None;
        }
        let mut answer = answer.clone();
        if self.says_age {
            let now = Timestamp::from_system_time(SystemTime::now());
            answer.set_header("Date", now.to_http_date());
            answer.set_header("Age", age.as_secs().to_string());
        }
        Some(answer)
    }

    fn keep(&self, asked: Asked, answer: &Message) {
        let Ok(mut kept) = self.kept.lock() else {
            return;
        };
        let is_kept = |(since, _): &(Instant, Message)| since.elapsed() <= KEPT;
        if !kept.get(&asked).is_some_and(is_kept) {
            kept.insert(asked, (Instant::now(), answer.clone()));
        }
    }
}

impl Hop for Cache {
    async fn pass(&self, request: Message) -> Passed {
        let asked = asked(&request);
        if let Some(answer) = asked.as_ref().and_then(|asked| self.find(asked)) {
            return Passed::Answer(answer);
        }
        match forward(self.next, &request).await {
            Some(answer) => {
                if let (Some(asked), true) = (asked, answer.is_ok()) {
                    self.keep(asked, &answer);
                }
                Passed::Answer(answer)
            }
            None => Passed::Answer(Message::bad_gateway()),
        }
    }
}

/// What a look-up asks; `None` of another request.
fn asked(request: &Message) -> Option<Asked> {
    let url = Url::parse("http://licences").ok()?;
    let url = url.join(request.target()).ok()?;
    let is_look_up = request.method() == "GET" && url.path() == "/api/v4/check_license";
    is_look_up.then(|| url.query_pairs().into_owned().collect())
}
