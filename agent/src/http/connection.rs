//! The connections: how many there are, what each does and since when, and which of them goes when
//! there is no room.
//!
//! A loopback port is open to every program of the device, so connections are a resource that anybody
//! can use up. A new one is therefore always let in where another one waits: first those that never
//! proved a key, and of these the one that waited longest. So a flood of idle connections pushes out
//! itself, and neither an application's connection nor a new application.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use crate::config::limits::Limits;

/// After a request was refused unread, so much of it is read and thrown away, so that a client which is
/// still sending finds the answer, not a broken connection.
const DISCARD_BYTES_MAX: usize = 256 * 1024;

/// And for no longer than this.
const DISCARD_TIME_MAX: Duration = Duration::from_millis(500);

/// Who is at the other end, as far as the system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    /// An address.
    Address(IpAddr),
    /// A user of this device, over the Unix socket.
    #[cfg(unix)]
    User(u32),
}

/// What a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Phase {
    /// Waits for the first byte of a request.
    Idle = 0,
    /// Sends the head of one.
    Head = 1,
    /// A request is being answered.
    Working = 2,
    /// It is over, and what the client still sends is thrown away.
    Closing = 3,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    source: Source,
    is_public: bool,
    epoch: Instant,
    /// The phase in the low two bits, and above them since when, in milliseconds after `epoch`.
    state: AtomicU64,
    has_proven: AtomicBool,
    has_refused: AtomicBool,
    /// Whether an answer was made of which nothing is written yet.
    has_answer: AtomicBool,
    /// Whether it has to make room for another.
    is_pushed_out: AtomicBool,
    called: Notify,
}

impl Connection {
    fn new(source: Source, is_public: bool, epoch: Instant) -> Self {
        let connection = Self {
            source,
            is_public,
            epoch,
            state: AtomicU64::new(0),
            has_proven: AtomicBool::new(false),
            has_refused: AtomicBool::new(false),
            has_answer: AtomicBool::new(false),
            is_pushed_out: AtomicBool::new(false),
            called: Notify::new(),
        };
        connection.enter(Phase::Head);
        connection
    }

    /// Who is at the other end.
    pub(super) const fn source(&self) -> Source {
        self.source
    }

    /// Whether it came in where other devices may.
    pub(super) const fn is_public(&self) -> bool {
        self.is_public
    }

    /// A request on it carried a right key: others go first when there is no room.
    pub(super) fn prove(&self) {
        self.has_proven.store(true, Ordering::Relaxed);
    }

    /// A request has begun to be answered. Since when, nobody asks: the time stays.
    pub(super) fn begin_work(&self) {
        let since = self.state.load(Ordering::Relaxed) & !3;
        self.state
            .store(since | Phase::Working as u64, Ordering::Relaxed);
    }

    /// Its answer is made; what is written after the first of it keeps the connection alive.
    pub(super) fn end_work(&self, has_refused: bool) {
        if has_refused {
            self.has_refused.store(true, Ordering::Relaxed);
        }
        self.has_answer.store(true, Ordering::Relaxed);
        self.enter(Phase::Idle);
    }

    /// A request waits for a penalty: it may be pushed out as if it did nothing.
    pub(super) fn idle_meanwhile(&self) {
        self.enter(Phase::Idle);
    }

    /// Whether a request is being answered.
    pub(super) fn is_working(&self) -> bool {
        self.state().0 == Phase::Working as u64
    }

    /// Completes when the connection has to end: there is no room for it, or the agent stops. One thing to
    /// wait for, since each costs every request something.
    pub(super) async fn called_off(&self) {
        self.called.notified().await;
    }

    /// Whether it has to make room for another.
    pub(super) fn is_pushed_out(&self) -> bool {
        self.is_pushed_out.load(Ordering::Relaxed)
    }

    fn push_out(&self) {
        self.is_pushed_out.store(true, Ordering::Relaxed);
        self.called.notify_one();
    }

    /// Completes when the client has taken too long, for whatever it does.
    pub(super) async fn overdue(&self, limits: impl Fn() -> Limits) {
        loop {
            let limits = limits();
            let (phase, since) = self.state();
            let allowed = match phase {
                0 => limits.idle_time,
                1 => limits.head_time,
                // A request's body and its work have limits of their own: look again later.
                2 => {
                    tokio::time::sleep(limits.idle_time).await;
                    continue;
                }
                _ => DISCARD_TIME_MAX,
            };
            let passed = self.epoch.elapsed().saturating_sub(since);
            let Some(left) = allowed.checked_sub(passed).filter(|left| !left.is_zero()) else {
                return;
            };
            tokio::time::sleep(left).await;
        }
    }

    fn state(&self) -> (u64, Duration) {
        let state = self.state.load(Ordering::Relaxed);
        (state & 3, Duration::from_millis(state >> 2))
    }

    fn enter(&self, phase: Phase) {
        let since = u64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(u64::MAX >> 2);
        self.state
            .store(since << 2 | phase as u64, Ordering::Relaxed);
    }

    fn is_in(&self, phase: Phase) -> bool {
        self.state.load(Ordering::Relaxed) & 3 == phase as u64
    }
}

/// All open connections.
#[derive(Debug)]
pub(super) struct Connections {
    max: AtomicUsize,
    epoch: Instant,
    open: Mutex<Vec<Arc<Connection>>>,
}

/// A place among the open connections; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    connection: Arc<Connection>,
    all: Arc<Connections>,
}

impl Connections {
    /// None yet, and room for so many.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max: AtomicUsize::new(max.max(1)),
            epoch: Instant::now(),
            open: Mutex::new(Vec::new()),
        }
    }

    /// Room for so many from here on; those that are open stay until there are new ones.
    pub(super) fn set_max(&self, max: usize) {
        self.max.store(max.max(1), Ordering::Relaxed);
    }

    /// Has all of them end when they have answered what is under way.
    pub(super) fn call_off(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for connection in open.iter() {
            connection.called.notify_one();
        }
    }

    /// Lets a connection in; `None` where all others are at work.
    pub(super) fn enter(self: &Arc<Self>, source: Source, is_public: bool) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Once, or more often where there is room for fewer than there was.
        while open.len() >= self.max.load(Ordering::Relaxed) {
            let waiting = open.iter().enumerate().filter_map(|(place, other)| {
                let (phase, since) = other.state();
                let is_working = phase == Phase::Working as u64;
                let has_proven = other.has_proven.load(Ordering::Relaxed);
                (!is_working).then_some((has_proven, since, place))
            });
            let (_, _, place) = waiting.min()?;
            open.swap_remove(place).push_out();
        }
        let connection = Arc::new(Connection::new(source, is_public, self.epoch));
        open.push(Arc::clone(&connection));
        drop(open);
        Some(Place {
            connection,
            all: Arc::clone(self),
        })
    }
}

impl Place {
    /// The connection.
    pub(super) const fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let open = &self.all.open;
        let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
        let place = open
            .iter()
            .position(|other| Arc::ptr_eq(other, &self.connection));
        if let Some(place) = place {
            open.swap_remove(place);
        }
    }
}

/// A stream that keeps note of what its connection does. It costs a request no timer.
pub(super) struct Watched<S> {
    stream: S,
    connection: Arc<Connection>,
    is_shut: bool,
    discarded: usize,
}

impl<S> Watched<S> {
    /// Watches a stream.
    pub(super) const fn new(stream: S, connection: Arc<Connection>) -> Self {
        Self {
            stream,
            connection,
            is_shut: false,
            discarded: 0,
        }
    }

    /// What is written keeps the connection alive, but for the first of an answer: that was made a moment ago.
    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let connection = &self.connection;
        if connection.has_answer.load(Ordering::Relaxed) {
            connection.has_answer.store(false, Ordering::Relaxed);
        } else if matches!(written, Poll::Ready(Ok(_))) && connection.is_in(Phase::Idle) {
            connection.enter(Phase::Idle);
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before && self.connection.is_in(Phase::Idle) {
            self.connection.enter(Phase::Head);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, parts);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// A socket that is closed with bytes unread is reset, and the answer may be lost with it. So what
    /// follows a refusal is read first, within bounds.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.is_shut {
            ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
            this.is_shut = true;
            this.connection.enter(Phase::Closing);
        }
        if !this.connection.has_refused.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        let mut scrap = [0; 4096];
        while this.discarded < DISCARD_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut scrap);
            let read = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buffer));
            let length = buffer.filled().len();
            if read.is_err() || length == 0 {
                break;
            }
            this.discarded += length;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(all(test, unix))]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    const HERE: Source = Source::User(1000);

    fn open(all: &Arc<Connections>) -> Option<Place> {
        all.enter(HERE, false)
    }

    #[test]
    fn the_one_that_proved_nothing_and_waited_longest_makes_room() {
        let all = Arc::new(Connections::new(3));
        let app = open(&all).unwrap();
        app.connection().prove();
        app.connection().end_work(false);
        let oldest = open(&all).unwrap();
        let newer = open(&all).unwrap();
        let _newest = open(&all).unwrap();
        let is_out = |place: &Place| {
            !all.open
                .lock()
                .unwrap()
                .iter()
                .any(|other| Arc::ptr_eq(other, place.connection()))
        };
        assert!(is_out(&oldest));
        assert!(!is_out(&app) && !is_out(&newer));
    }

    #[test]
    fn where_there_is_room_for_fewer_the_next_one_pushes_out_as_many() {
        let all = Arc::new(Connections::new(4));
        let places: Vec<Place> = (0..4).filter_map(|_| open(&all)).collect();
        assert_eq!(places.len(), 4);
        all.set_max(2);
        let newest = open(&all).unwrap();
        assert_eq!(all.open.lock().unwrap().len(), 2);
        assert!(
            all.open
                .lock()
                .unwrap()
                .iter()
                .any(|other| Arc::ptr_eq(other, newest.connection()))
        );
    }

    #[test]
    fn where_all_are_at_work_nobody_makes_room_until_one_is_done() {
        let all = Arc::new(Connections::new(2));
        let first = open(&all).unwrap();
        let second = open(&all).unwrap();
        first.connection().begin_work();
        second.connection().begin_work();
        assert!(open(&all).is_none());
        drop(first);
        assert!(open(&all).is_some());
    }

    #[tokio::test]
    async fn at_a_stop_every_connection_is_called_whether_it_waits_yet_or_not() {
        let all = Arc::new(Connections::new(2));
        let (one, other) = (open(&all).unwrap(), open(&all).unwrap());
        all.call_off();
        one.connection().called_off().await;
        other.connection().called_off().await;
        assert!(!one.connection().is_pushed_out());
        // There is no room: the one that waited longer is called, and told why.
        let _newest = open(&all).unwrap();
        one.connection().called_off().await;
        assert!(one.connection().is_pushed_out() && !other.connection().is_pushed_out());
    }

    /// Of an event stream, for example.
    #[tokio::test]
    async fn what_is_written_after_the_beginning_of_an_answer_keeps_a_connection_alive() {
        let all = Arc::new(Connections::new(1));
        let place = open(&all).unwrap();
        let connection = place.connection();
        let (near, _far) = tokio::io::duplex(64);
        let mut stream = Watched::new(near, Arc::clone(connection));
        connection.begin_work();
        connection.end_work(false);
        // No time that is now: the epoch is a moment ago.
        let another_time = 1 << 40;
        connection.state.store(another_time, Ordering::Relaxed);
        stream.write_all(b"the head").await.unwrap();
        assert_eq!(connection.state.load(Ordering::Relaxed), another_time);
        stream.write_all(b"an event").await.unwrap();
        assert!(connection.state.load(Ordering::Relaxed) < another_time);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_has_less_time_than_an_idle_connection_and_work_has_its_own() {
        let limits = Limits {
            head_time: Duration::ZERO,
            idle_time: Duration::from_hours(1),
            ..Limits::default()
        };
        let all = Arc::new(Connections::new(1));
        let place = open(&all).unwrap();
        let connection = place.connection();
        connection.overdue(|| limits).await;
        let mut waiting = Box::pin(connection.overdue(|| limits));
        connection.begin_work();
        let soon = Duration::from_mins(1);
        assert!(tokio::time::timeout(soon, &mut waiting).await.is_err());
        connection.end_work(false);
        assert!(tokio::time::timeout(soon, &mut waiting).await.is_err());
    }
}
