//! How far something long has come: on standard error, only on a terminal, and only after a second.

use std::{
    sync::mpsc::{self, RecvTimeoutError},
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What takes less time shows nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often it moves.
const TICK: Duration = Duration::from_millis(100);

/// A bar, or a sign of life where nobody knows how long it takes. It goes away when this is dropped.
pub(super) struct Progress {
    bar: ProgressBar,
    done: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    /// Of something whose length is not known (yet).
    pub(super) fn start(what: &'static str) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        bar.set_message(what);
        bar.set_style(style("{spinner} {msg} · {elapsed}"));
        let (done, is_done) = mpsc::channel();
        let shown = bar.clone();
        let thread = thread::Builder::new().spawn(move || {
            if is_done.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                shown.set_draw_target(ProgressDrawTarget::stderr());
                shown.enable_steady_tick(TICK);
            }
        });
        Self {
            bar,
            done: Some(done),
            // Without a thread, it stays hidden.
            thread: thread.ok(),
        }
    }

    /// It has come to `done` of `all`.
    pub(super) fn tell(&self, done: i64, all: i64) {
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        if self.bar.length().is_none() {
            self.bar.set_style(style(
                "{msg} [{bar:30}] {human_pos} of {human_len} · {eta} left",
            ));
            self.bar.set_length(number(all));
        }
        self.bar.set_position(number(done));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done = None;
        if let Some(thread) = self.thread.take() {
            // It only ever draws.
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

/// A template that the library cannot read leaves its own.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("█▓░")
}
