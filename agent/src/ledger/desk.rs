//! Where work waits for the ledger, and who does it: requests that arrive together share one commit.
//!
//! Whoever brings work commits it, with everything else that waits, unless somebody else is about to or is at
//! it. So a lone request pays for no hand-over between threads: the thread that read it writes
//! it. Whoever finds more work after its commit calls the relief, a thread of its own, and goes back to
//! reading requests; under load the relief commits one group after the other while requests of the next
//! are read.
//!
//! A flood waits a moment for an application that was just served, and asks one thing at a time: it would find a commit
//! of the flood's under way each time otherwise, and wait for two commits instead of one. The relief does that waiting.
//!
//! Work is never left behind: it is in the queue before its bringer looks whether somebody is about to
//! commit; who is about to says no more so before it looks whether somebody commits; and who commits looks
//! into the queue after it has stopped doing so. Who leaves it to the relief calls it after having said that somebody
//! lingers; and the relief lingers only to commit then, unless it sees that another did.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError},
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};

use super::{
    Ended,
    engine::{Engine, Job, Pulse},
    queue::{Part, Queue, Refusal},
};
use crate::core::command::Command;

/// So long a flood waits for an application that was just served: longer than it takes, on a busy device, to bring the
/// answer there and the next request back, and about as long as a commit or two. Elsewhere the system's clocks are too
/// coarse to wait for so short.
pub(super) const LINGER: Duration = Duration::from_micros(if cfg!(unix) { 300 } else { 0 });

/// The queue, and the seat of who commits.
pub(super) struct Desk {
    queue: Mutex<Queue>,
    seat: Mutex<Option<Seat>>,
    relief: OnceLock<Thread>,
    linger: Duration,
    /// Why no more is written, where nobody asked for that.
    ended: OnceLock<Ended>,
}

/// What it takes to commit.
struct Seat {
    engine: Engine,
    commands: mpsc::UnboundedSender<Command>,
    pulse: watch::Sender<Pulse>,
    /// Counts the turns that changed something, for those who show it.
    news: watch::Sender<u64>,
    /// The jobs of a turn; kept, so that turns do not allocate.
    jobs: Vec<Job>,
}

/// A job that was put into the queue: its bringer's to commit, unless somebody else is about to or it is better left to
/// the relief.
pub(super) struct Brought<'a> {
    desk: &'a Desk,
    /// What is left of it to do.
    part: Part,
}

impl Desk {
    /// A desk, and the thread that relieves its bringers. The thread ends after [`Job::Stop`], and
    /// otherwise only by a defect. A flood waits for `linger`, normally [`LINGER`].
    pub(super) fn open(
        engine: Engine,
        linger: Duration,
        commands: mpsc::UnboundedSender<Command>,
        pulse: watch::Sender<Pulse>,
        news: watch::Sender<u64>,
    ) -> std::io::Result<(Arc<Self>, thread::JoinHandle<Option<Ended>>)> {
        let desk = Arc::new(Self {
            queue: Mutex::new(Queue::new()),
            seat: Mutex::new(Some(Seat {
                engine,
                commands,
                pulse,
                news,
                jobs: Vec::new(),
            })),
            relief: OnceLock::new(),
            linger,
            ended: OnceLock::new(),
        });
        let relieved = Arc::clone(&desk);
        let thread = thread::Builder::new()
            .name("tally-ledger".to_owned())
            .spawn(move || {
                relieved.relieve();
                relieved.ended.get().cloned()
            })?;
        Ok((desk, thread))
    }

    /// Puts a job into the queue. It is committed when what comes back is [taken on](Brought::commit),
    /// or dropped.
    pub(super) fn bring(&self, job: Job) -> Result<Brought<'_>, Refusal> {
        let part = self.queue().add(job)?;
        Ok(Brought { desk: self, part })
    }

    /// Commits what waits, unless that is better left to the relief.
    fn commit_brought(&self) {
        if self.queue().linger().is_some() {
            self.call_relief();
        } else {
            self.commit();
        }
    }

    /// Commits what waits, unless somebody else is at it.
    fn commit(&self) {
        self.queue().expect_nobody();
        match self.seat.try_lock() {
            Ok(mut seat) => self.turn(&mut seat),
            // Who sits there looks into the queue when it is done.
            Err(TryLockError::WouldBlock) => return,
            // A defect ended a turn half-way: memory is not to be trusted.
            Err(TryLockError::Poisoned(_)) => {
                self.close();
                return;
            }
        }
        // After the seat is free: nobody else has looked for what was brought meanwhile.
        if !self.queue().is_empty() {
            self.call_relief();
        }
    }

    /// One turn, with what waits.
    fn turn(&self, place: &mut Option<Seat>) {
        let Some(seat) = place else {
            return;
        };
        let closing = Closing(self);
        self.queue().take(&mut seat.jobs);
        if seat.jobs.is_empty() {
            std::mem::forget(closing);
            return;
        }
        let turn = seat.engine.turn(seat.jobs.drain(..));
        for command in turn.commands {
            crate::fail_point!("turn.before-release");
            // Fails only after a stop. Unbounded, but the core starts few operations at once.
            let _ = seat.commands.send(command);
        }
        seat.pulse.send_if_modified(|last| {
            let news = *last != turn.pulse;
            *last = turn.pulse;
            news
        });
        // Nobody is told anything where nobody listens: this is in the way of every request.
        if turn.changed && seat.news.receiver_count() > 0 {
            seat.news.send_modify(|turns| *turns += 1);
        }
        if let Some(ended) = turn.ended {
            // Before the desk closes, which ends the thread that says so.
            let _ = self.ended.set(ended);
            *place = None;
            return;
        }
        if turn.stop {
            crate::fail_point!("stop.before-clock");
            seat.engine.save_clock();
            *place = None;
            return;
        }
        if seat.engine.is_untidy() {
            self.call_relief();
        }
        std::mem::forget(closing);
    }

    fn relieve(&self) {
        // Set before the first look into the queue, so that no call is missed.
        let _ = self.relief.set(thread::current());
        // Nobody shall leave work to a thread that is gone.
        let _closing = Closing(self);
        let (mut since, mut end) = (None, Instant::now());
        loop {
            // It also waits for a turn that is under way, so that the time to linger begins when that is over.
            self.tidy();
            let lingering = self.queue().linger();
            if let Some(turn) = lingering {
                let now = Instant::now();
                if since != lingering {
                    (since, end) = (lingering, now + self.linger);
                }
                let left = end.saturating_duration_since(now);
                if !left.is_zero() {
                    thread::park_timeout(left);
                    continue;
                }
                self.queue().give_up(turn);
            }
            self.commit();
            if self.queue().is_closed() {
                return;
            }
            thread::park();
        }
    }

    /// Does what requests shall not wait for.
    fn tidy(&self) {
        if let Ok(mut seat) = self.seat.lock()
            && let Some(seat) = seat.as_mut()
        {
            seat.engine.tidy();
        }
    }

    fn call_relief(&self) {
        if let Some(relief) = self.relief.get() {
            relief.unpark();
        }
    }

    /// Takes no more jobs, drops those that wait, and ends the relief.
    fn close(&self) {
        self.queue().close();
        self.call_relief();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // A panic cannot leave a list of jobs half-changed.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes the desk when a turn was the last, or ended by a panic.
struct Closing<'a>(&'a Desk);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Brought<'_> {
    /// Waits for one more look of the runtime at what arrives, as long as each look finds more for the next turn to take;
    /// then commits. Who asks alone waits for one look. Several who ask in turn would fall into two halves otherwise, each
    /// of which waits for the other's commit. Who was waited for does not wait itself.
    pub(super) async fn commit(mut self) {
        if self.part == Part::Look {
            let mut due = self.desk.queue().due();
            loop {
                tokio::task::yield_now().await;
                let before = std::mem::replace(&mut due, self.desk.queue().due());
                if due <= before {
                    break;
                }
            }
        }
        if std::mem::replace(&mut self.part, Part::Wait) != Part::Wait {
            self.desk.commit_brought();
        }
    }

    /// Leaves it to the relief, whoever is about to commit: at the end, that one may not run any more.
    pub(super) fn leave(mut self) {
        self.part = Part::Wait;
        self.desk.call_relief();
    }
}

impl Drop for Brought<'_> {
    /// The bringer went away before it could commit.
    fn drop(&mut self) {
        if self.part != Part::Wait {
            self.desk.call_relief();
        }
    }
}
