//! What waits for the ledger, and in which order it is taken: where several applications ask, each gets the
//! same share of a commit, so that the flood of one is not another's wait. What is a flood's also waits a moment for
//! one that asks one thing at a time, and is about to ask again.

use std::collections::{HashMap, VecDeque};

use super::job::Job;
use crate::core::{book::AppNo, event::Event};

/// How many jobs of one application may wait. Where it is full, that application is answered with 503 at
/// once, so that memory stays bounded.
const WAITING_MAX: usize = 4096;

/// How many jobs share a commit at most, so that the first of them does not wait for long.
const GROUP_MAX: usize = 512;

/// How many of them are no requests to consume, while such wait: who asks much shall not keep others from consuming.
const OTHERS_MAX: usize = GROUP_MAX / 4;

/// How many of them are one application's, while others ask as well. So few that a commit takes hardly
/// longer than that of a lone request, and so many that the disk's wait is shared.
const SHARE_MAX: usize = 8;

/// An application counts as asking until so many turns after its last request: about a second of a flood.
const PRESENT_TURNS: u64 = 4096;

/// One that was waited for in vain is not waited for after the next turn, then the next 3, and so on up to about this
/// power of two.
const MISSES_MAX: u32 = 12;

/// Jobs that are not yet taken.
pub(super) struct Queue {
    /// Everything but requests to consume: facts, questions, decisions.
    others: VecDeque<Job>,
    /// The applications that ask, by their numbers.
    shares: HashMap<AppNo, Share>,
    /// Those of them for which something waits, in the order in which they are served.
    ring: VecDeque<AppNo>,
    turn: u64,
    /// An application that the last turn served, for which nothing waits since: the last of several.
    awaited: Option<AppNo>,
    next: Next,
    is_stopping: bool,
    is_closed: bool,
}

/// Who takes what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Who brings a job.
    Bringer,
    /// Somebody who is about to.
    Somebody,
    /// Somebody who lingers, until there is something that shall not wait.
    Lingerer,
}

/// What the bringer of a job has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// To wait: somebody else is about to commit.
    Wait,
    /// To commit, when it has looked for what arrives together with its job.
    Look,
    /// To commit: there is enough, and it waited for this job.
    Commit,
}

#[derive(Default)]
struct Share {
    waiting: VecDeque<Job>,
    /// The turn after which it last asked.
    asked: u64,
    /// The turn that last served it.
    served: u64,
    /// Whether it last asked again by the end of the turn after that.
    is_prompt: bool,
    /// Whether a turn left something of it behind.
    is_cut: bool,
    /// How often in a row it was waited for in vain.
    misses: u32,
    /// The turn until which it is not waited for.
    unawaited: u64,
}

impl Share {
    /// Whether it asks for more than it may have of a turn.
    fn is_flood(&self) -> bool {
        self.is_cut || self.waiting.len() > SHARE_MAX
    }
}

/// Why a job was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Too many wait.
    Full,
    /// The agent is stopping.
    Closed,
}

impl Queue {
    /// With a look at the agenda as the first job.
    pub(super) fn new() -> Self {
        Self {
            others: VecDeque::from([Job::Event(Event::Tick)]),
            shares: HashMap::new(),
            ring: VecDeque::new(),
            turn: 0,
            awaited: None,
            next: Next::Bringer,
            is_stopping: false,
            is_closed: false,
        }
    }

    /// Adds a job, and tells what its bringer has to do.
    ///
    /// # Errors
    ///
    /// [`Refusal`]. Only requests find it full: facts must not be lost.
    pub(super) fn add(&mut self, job: Job) -> Result<Part, Refusal> {
        if self.is_closed {
            return Err(Refusal::Closed);
        }
        match job {
            Job::Record(_) if self.is_stopping => return Err(Refusal::Closed),
            Job::Record(ref record) => {
                let app = record.app;
                let share = self.shares.entry(app).or_default();
                if share.waiting.len() >= WAITING_MAX {
                    return Err(Refusal::Full);
                }
                if share.waiting.is_empty() {
                    self.ring.push_back(app);
                }
                share.is_prompt = self.turn - share.served <= 1;
                share.asked = self.turn;
                share.waiting.push_back(job);
                if self.awaited == Some(app) {
                    self.awaited = None;
                    if self.next == Next::Lingerer {
                        share.misses = 0;
                    }
                }
            }
            Job::Stop => self.is_stopping = true,
            job => self.others.push_back(job),
        }
        let part = match self.next {
            Next::Bringer => Part::Look,
            Next::Lingerer if !self.is_worth_lingering() => Part::Commit,
            Next::Lingerer | Next::Somebody => Part::Wait,
        };
        if part != Part::Wait {
            self.next = Next::Somebody;
        }
        Ok(part)
    }

    /// Who was about to take what waits looks now whether it can: the next bringer must look itself.
    pub(super) const fn expect_nobody(&mut self) {
        self.next = Next::Bringer;
    }

    /// The last turn's number, where the next one should not be taken yet: all that waits is of floods, and one that was
    /// just served may be about to ask. From here on, whoever brings something else is told to commit.
    pub(super) fn linger(&mut self) -> Option<u64> {
        let is_worth_it = self.is_worth_lingering();
        if is_worth_it {
            self.next = Next::Lingerer;
        }
        is_worth_it.then_some(self.turn)
    }

    /// It did not ask in time after that turn.
    pub(super) fn give_up(&mut self, turn: u64) {
        if turn != self.turn {
            return;
        }
        let awaited = self.awaited.take();
        if let Some(share) = awaited.and_then(|app| self.shares.get_mut(&app)) {
            share.misses = MISSES_MAX.min(share.misses + 1);
            share.unawaited = self.turn + (1 << share.misses);
        }
    }

    fn is_worth_lingering(&self) -> bool {
        let of_floods = || {
            let mut waiting = self.ring.iter().map(|app| self.shares.get(app));
            waiting.all(|share| share.is_some_and(Share::is_flood))
        };
        self.awaited.is_some()
            && self.others.is_empty()
            && !self.is_stopping
            && !self.ring.is_empty()
            && of_floods()
    }

    /// How many jobs the next turn takes of those that wait.
    pub(super) fn due(&self) -> usize {
        let (share_max, others_max) = self.maxima();
        let of_apps = self.ring.iter().filter_map(|app| self.shares.get(app));
        let due = of_apps.map(|share| share.waiting.len().min(share_max));
        GROUP_MAX.min(self.others.len().min(others_max) + due.sum::<usize>())
    }

    /// How many jobs of a turn may be one application's, and how many may be no requests to consume.
    fn maxima(&self) -> (usize, usize) {
        let is_alone = self.shares.len() <= 1;
        let no_records = self.ring.is_empty();
        let share_max = if is_alone { GROUP_MAX } else { SHARE_MAX };
        let others_max = if no_records { GROUP_MAX } else { OTHERS_MAX };
        (share_max, others_max)
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.others.is_empty() && self.ring.is_empty() && !self.is_stopping
    }

    /// Takes the jobs of the next turn. The order to stop comes after all others.
    pub(super) fn take(&mut self, jobs: &mut Vec<Job>) {
        if self.is_empty() {
            return;
        }
        self.turn += 1;
        self.awaited = None;
        let turn = self.turn;
        self.shares
            .retain(|_, share| !share.waiting.is_empty() || turn - share.asked <= PRESENT_TURNS);
        let (share_max, others_max) = self.maxima();
        let taken = self.others.len().min(others_max);
        jobs.extend(self.others.drain(..taken));
        // Of several, one of each after the other: who asks for little is answered before the rest of a flood.
        let at_once = if self.ring.len() > 1 { 1 } else { share_max };
        for _ in (0..share_max).step_by(at_once) {
            for _ in 0..self.ring.len() {
                self.take_of_next(at_once.min(GROUP_MAX - jobs.len()), jobs);
            }
        }
        for app in &self.ring {
            if let Some(share) = self.shares.get_mut(app) {
                share.is_cut = true;
            }
        }
        if self.is_stopping && self.others.is_empty() && self.ring.is_empty() {
            self.is_stopping = false;
            jobs.push(Job::Stop);
        }
    }

    /// Takes so many jobs of the application whose turn it is.
    fn take_of_next(&mut self, count: usize, jobs: &mut Vec<Job>) {
        let next = self.ring.front();
        // Whoever is in the ring has a share: only those are dropped for whom nothing waits.
        let Some(share) = next.and_then(|app| self.shares.get_mut(app)) else {
            self.ring.pop_front();
            return;
        };
        let taken = share.waiting.len().min(count);
        jobs.extend(share.waiting.drain(..taken));
        if taken > 0 {
            share.served = self.turn;
        }
        if share.waiting.is_empty() {
            share.is_cut = false;
            if share.is_prompt && share.unawaited <= self.turn {
                self.awaited = next.copied();
            }
            self.ring.pop_front();
        } else if taken > 0 {
            self.ring.rotate_left(1);
        }
    }

    /// Takes no more jobs, and drops those that wait.
    pub(super) fn close(&mut self) {
        *self = Self {
            others: VecDeque::new(),
            is_closed: true,
            ..Self::new()
        };
    }

    /// Whether it was closed.
    pub(super) const fn is_closed(&self) -> bool {
        self.is_closed
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tally_shared::wire::AddConsumption;
    use tokio::sync::oneshot;

    use super::*;
    use crate::ledger::job::RecordJob;

    const FLOOD: AppNo = AppNo(1);
    const OTHER: AppNo = AppNo(2);

    /// Asks for that many units, by which it is known again.
    fn ask(queue: &mut Queue, app: AppNo, units: usize) -> Result<Part, Refusal> {
        let body = format!(
            r#"{{"license_key": "A", "hardware_id": "d", "product": "p", "consumptions": {units}}}"#
        );
        queue.add(Job::Record(RecordJob {
            app,
            request: Arc::new(AddConsumption::from_json(body.as_bytes()).unwrap()),
            key: None,
            recipient: oneshot::channel().0.into(),
        }))
    }

    /// Has the flood ask until so many requests of it wait.
    fn fill(queue: &mut Queue, of: usize) {
        let waiting = |queue: &Queue| queue.shares.get(&FLOOD).map_or(0, |s| s.waiting.len());
        while waiting(queue) < of {
            ask(queue, FLOOD, 1).unwrap();
        }
    }

    /// Who is served by a turn, and with how many units.
    fn turn(queue: &mut Queue) -> Vec<(AppNo, i64)> {
        let mut jobs = Vec::new();
        queue.take(&mut jobs);
        assert!(jobs.len() <= GROUP_MAX);
        let served = jobs.iter().filter_map(|job| match job {
            Job::Record(job) => Some((job.app, job.request.units.get())),
            _ => None,
        });
        served.collect()
    }

    #[test]
    fn one_that_asks_alone_has_the_whole_turn() {
        let mut queue = Queue::new();
        for units in 0..600 {
            ask(&mut queue, FLOOD, units).unwrap();
        }
        let (one, two) = (turn(&mut queue), turn(&mut queue));
        assert!(one.len() > 500 && one.len() + two.len() == 600);
        let in_order = one.iter().chain(&two).map(|(_, units)| *units);
        assert!(in_order.eq(0..600));
        assert!(queue.is_empty());
    }

    #[test]
    fn beside_a_flood_another_is_in_the_next_turn_and_the_turn_is_short() {
        let mut queue = Queue::new();
        for units in 0..64 {
            ask(&mut queue, FLOOD, units).unwrap();
        }
        ask(&mut queue, OTHER, 1000).unwrap();
        let served = turn(&mut queue);
        assert!(served[..2].contains(&(OTHER, 1000)));
        assert_eq!(served.len(), SHARE_MAX + 1);
        // It will ask again: the flood keeps to its share, until the other has not asked for long.
        while turn(&mut queue).len() == SHARE_MAX {}
        for _ in 9..PRESENT_TURNS {
            ask(&mut queue, FLOOD, 1).unwrap();
            assert_eq!(turn(&mut queue).len(), 1);
        }
        for units in 0..64 {
            ask(&mut queue, FLOOD, units).unwrap();
        }
        assert_eq!(turn(&mut queue).len(), SHARE_MAX);
        assert_eq!(turn(&mut queue).len(), 64 - SHARE_MAX);
    }

    #[test]
    fn beside_a_flood_of_questions_there_is_room_for_who_consumes() {
        let mut queue = Queue::new();
        for _ in 0..2 * GROUP_MAX {
            queue.add(Job::Ask(Box::new(|_, _| ()))).unwrap();
        }
        ask(&mut queue, OTHER, 1).unwrap();
        assert_eq!(turn(&mut queue), [(OTHER, 1)]);
    }

    #[test]
    fn what_is_due_is_what_a_turn_takes() {
        let mut queue = Queue::new();
        fill(&mut queue, 600);
        assert_eq!(queue.due(), GROUP_MAX);
        ask(&mut queue, OTHER, 1).unwrap();
        for _ in 0..2 * OTHERS_MAX {
            queue.add(Job::Ask(Box::new(|_, _| ()))).unwrap();
        }
        let (due, mut jobs) = (queue.due(), Vec::new());
        queue.take(&mut jobs);
        assert_eq!((due, jobs.len()), (OTHERS_MAX + SHARE_MAX + 1, due));
    }

    #[test]
    fn with_more_than_a_turn_can_take_everybody_is_served_in_turn() {
        let mut queue = Queue::new();
        // The first look at the agenda.
        assert!(turn(&mut queue).is_empty());
        let apps = 2 * GROUP_MAX / SHARE_MAX;
        for app in 0..apps {
            for units in 0..SHARE_MAX {
                ask(&mut queue, AppNo(i64::try_from(app).unwrap()), units).unwrap();
            }
        }
        let (one, two) = (turn(&mut queue), turn(&mut queue));
        assert_eq!((one.len(), two.len()), (GROUP_MAX, GROUP_MAX));
        assert!(queue.is_empty());
    }

    #[test]
    fn where_a_turn_ends_the_next_one_goes_on() {
        let mut queue = Queue::new();
        // A turn has room for five of each, and for some a sixth.
        let apps: Vec<AppNo> = (1..=100).map(AppNo).collect();
        for app in &apps {
            for units in 0..2 * SHARE_MAX {
                ask(&mut queue, *app, units).unwrap();
            }
        }
        let mut served: HashMap<AppNo, usize> = HashMap::new();
        for _ in 0..3 {
            for (app, _) in turn(&mut queue) {
                *served.entry(app).or_default() += 1;
            }
            let counts = apps.iter().map(|app| served.get(app).copied().unwrap_or(0));
            let (least, most) = (counts.clone().min(), counts.max());
            assert!(most <= least.map(|least| least + 1), "{served:?}");
        }
    }

    #[test]
    fn what_one_may_not_put_into_the_queue_another_may() {
        let mut queue = Queue::new();
        for units in 0..WAITING_MAX {
            ask(&mut queue, FLOOD, units).unwrap();
        }
        assert_eq!(ask(&mut queue, FLOOD, 1), Err(Refusal::Full));
        assert!(ask(&mut queue, OTHER, 1).is_ok());
        assert!(queue.add(Job::Event(Event::Tick)).is_ok());
    }

    #[test]
    fn the_first_bringer_commits_for_all_until_it_looks() {
        let mut queue = Queue::new();
        assert_eq!(ask(&mut queue, FLOOD, 1), Ok(Part::Look));
        assert_eq!(ask(&mut queue, OTHER, 1), Ok(Part::Wait));
        queue.expect_nobody();
        assert_eq!(ask(&mut queue, FLOOD, 1), Ok(Part::Look));
    }

    /// A flood of so many at a time, and another that was just served again and has not asked since.
    fn served_beside_a_flood(of: usize) -> Queue {
        let mut queue = Queue::new();
        for _ in 0..2 {
            fill(&mut queue, of);
            ask(&mut queue, OTHER, 1).unwrap();
            assert!(turn(&mut queue).contains(&(OTHER, 1)));
        }
        queue.expect_nobody();
        queue
    }

    #[test]
    fn a_flood_waits_for_one_that_was_just_served() {
        let mut queue = served_beside_a_flood(64);
        assert!(queue.linger().is_some());
        assert_eq!(ask(&mut queue, FLOOD, 1), Ok(Part::Wait));
        assert!(queue.linger().is_some());
        assert_eq!(ask(&mut queue, OTHER, 2), Ok(Part::Commit));
        assert!(queue.linger().is_none());
        let served = turn(&mut queue);
        assert!(served.contains(&(OTHER, 2)) && served.len() == SHARE_MAX + 1);
    }

    #[test]
    fn what_a_turn_left_behind_is_of_a_flood_however_little() {
        let mut queue = served_beside_a_flood(SHARE_MAX + 1);
        assert!(queue.linger().is_some());
        assert!(turn(&mut queue).len() <= 2);
        ask(&mut queue, OTHER, 1).unwrap();
        assert_eq!(turn(&mut queue), [(OTHER, 1)]);
        ask(&mut queue, FLOOD, 1).unwrap();
        assert!(queue.linger().is_none());
    }

    #[test]
    fn one_that_asks_now_and_then_is_not_waited_for() {
        let mut queue = served_beside_a_flood(64);
        for _ in 0..4 {
            turn(&mut queue);
            turn(&mut queue);
            fill(&mut queue, 64);
            ask(&mut queue, OTHER, 1).unwrap();
            assert!(turn(&mut queue).contains(&(OTHER, 1)));
            assert!(queue.linger().is_none());
        }
    }

    #[test]
    fn who_is_served_meanwhile_is_not_given_up() {
        let mut queue = served_beside_a_flood(64);
        let since = queue.linger().unwrap();
        ask(&mut queue, OTHER, 1).unwrap();
        turn(&mut queue);
        queue.give_up(since);
        assert!(queue.linger().is_some());
    }

    #[test]
    fn nothing_else_waits_with_a_flood() {
        let mut queue = served_beside_a_flood(64);
        assert!(queue.linger().is_some());
        assert_eq!(queue.add(Job::Event(Event::Tick)), Ok(Part::Commit));
        assert!(queue.linger().is_none());

        let mut queue = served_beside_a_flood(64);
        assert!(queue.linger().is_some());
        assert_eq!(ask(&mut queue, AppNo(3), 1), Ok(Part::Commit));
        assert!(queue.linger().is_none());

        let mut queue = served_beside_a_flood(64);
        assert!(queue.linger().is_some());
        assert_eq!(queue.add(Job::Stop), Ok(Part::Commit));
        assert!(queue.linger().is_none());
    }

    #[test]
    fn who_asks_for_no_more_than_a_share_does_not_wait_for_another() {
        let mut queue = served_beside_a_flood(64);
        while turn(&mut queue).len() == SHARE_MAX {}
        ask(&mut queue, OTHER, 1).unwrap();
        assert_eq!(turn(&mut queue), [(OTHER, 1)]);
        for units in 0..SHARE_MAX {
            ask(&mut queue, FLOOD, units).unwrap();
        }
        assert!(queue.linger().is_none());
    }

    /// How many of so many turns beside a flood were lingered before. Each has a request of another application, which
    /// comes in time or only after it was given up.
    fn lingered(queue: &mut Queue, turns: usize, comes_in_time: bool) -> usize {
        let mut count = 0;
        for _ in 0..turns {
            fill(queue, 64);
            if let Some(since) = queue.linger() {
                count += 1;
                if !comes_in_time {
                    queue.give_up(since);
                    assert!(queue.linger().is_none());
                }
            }
            ask(queue, OTHER, 1).unwrap();
            assert!(turn(queue).contains(&(OTHER, 1)));
            queue.expect_nobody();
        }
        count
    }

    #[test]
    fn one_that_never_comes_in_time_is_waited_for_ever_more_rarely() {
        let mut queue = served_beside_a_flood(64);
        assert_eq!(lingered(&mut queue, 100, true), 100);
        assert!((5..20).contains(&lingered(&mut queue, 10_000, false)));
        // For as long as it was not waited for at last, and then always again.
        assert!(lingered(&mut queue, 10_000, true) > 5000);
        assert_eq!(lingered(&mut queue, 100, true), 100);
    }

    #[test]
    fn the_order_to_stop_comes_after_all_that_waits() {
        let mut queue = Queue::new();
        for units in 0..=GROUP_MAX {
            ask(&mut queue, FLOOD, units).unwrap();
        }
        queue.add(Job::Stop).unwrap();
        // There could be no end of those that come after it.
        assert_eq!(ask(&mut queue, FLOOD, 1), Err(Refusal::Closed));
        let mut last = Vec::new();
        let mut served = 0;
        while !queue.is_empty() {
            last.clear();
            queue.take(&mut last);
            served += last
                .iter()
                .filter(|job| matches!(job, Job::Record(_)))
                .count();
        }
        assert_eq!(served, GROUP_MAX + 1);
        assert!(matches!(last.last(), Some(Job::Stop)));
        queue.close();
        assert_eq!(ask(&mut queue, FLOOD, 1), Err(Refusal::Closed));
    }
}
