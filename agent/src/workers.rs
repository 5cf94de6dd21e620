//! The threads that read requests and write answers.
//!
//! Each has a runtime and connections of its own, so that a connection never moves between threads: the
//! thread that read a request decides it, commits it, and answers it. The first few connections share one
//! thread, where requests that arrive together also commit together; when there are more, and cores enough, they are
//! spread.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

/// So many connections stay with the first thread: two threads that share them make a commit each of what one would
/// have committed together.
const TOGETHER: usize = 32;

/// More threads gain nothing: the commits are made by one at a time.
const WORKERS_MAX: usize = 2;

/// All threads.
pub(crate) struct Workers {
    workers: Vec<Worker>,
}

struct Worker {
    handle: Handle,
    connections: Arc<AtomicUsize>,
}

/// Counts a connection for as long as it is open.
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Workers {
    /// Starts them; the runtime that this is called on is the first. They end with the token.
    ///
    /// # Errors
    ///
    /// Where the system has no thread to give.
    pub(crate) fn start(stop: &CancellationToken) -> std::io::Result<Self> {
        let mut handles = vec![Handle::current()];
        let cores = thread::available_parallelism().map_or(1, usize::from);
        for _ in 1..threads(cores) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let stop = stop.clone();
            thread::Builder::new()
                .name("tally-worker".to_owned())
                .spawn(move || {
                    runtime.block_on(stop.cancelled());
                    runtime.shutdown_background();
                })?;
        }
        let workers = handles.into_iter().map(|handle| Worker {
            handle,
            connections: Arc::default(),
        });
        Ok(Self {
            workers: workers.collect(),
        })
    }

    /// The thread for a new connection.
    pub(crate) fn assign(&self) -> (&Handle, Seat) {
        let load = |worker: &Worker| worker.connections.load(Ordering::Relaxed);
        let first = &self.workers[0];
        let worker = if load(first) < TOGETHER {
            first
        } else {
            self.workers.iter().min_by_key(|w| load(w)).unwrap_or(first)
        };
        worker.connections.fetch_add(1, Ordering::Relaxed);
        (&worker.handle, Seat(Arc::clone(&worker.connections)))
    }
}

/// How many threads serve, on so many cores. On two, a second one takes from the applications what it gives: with one, a
/// grant takes a sixth less of the processor, and waits are shorter.
fn threads(cores: usize) -> usize {
    (cores / 2).clamp(1, WORKERS_MAX)
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn applications_have_at_least_half_of_the_cores() {
        let threads = [1, 2, 3, 4, 64].map(super::threads);
        assert_eq!(threads, [1, 1, 1, 2, 2]);
    }
}
