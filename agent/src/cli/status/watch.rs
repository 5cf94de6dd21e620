//! `tally status --watch`: the state, kept on the screen.

use std::{
    io::{self, IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Detail, page};
use crate::{
    cli::{
        client::Agent,
        human,
        output::Outcome,
        screen::{Screen, paragraph},
    },
    config::paths::DataDir,
};

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// A screen of its own, without a cursor; and back to how it was.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A terminal that knows this shows a frame when it is whole.
const FRAME_BEGINS: &str = "\x1b[?2026h\x1b[H";
const FRAME_ENDS: &str = "\x1b[J\x1b[?2026l";
const END_OF_LINE: &str = "\x1b[K\r\n";

/// Puts the terminal back, however the command ends.
struct OwnScreen;

impl OwnScreen {
    fn enter() -> Option<Self> {
        io::stdout().is_terminal().then(|| {
            put(ENTER);
            Self
        })
    }
}

impl Drop for OwnScreen {
    fn drop(&mut self) {
        put(LEAVE);
    }
}

fn put(text: &str) {
    let mut out = io::stdout().lock();
    // Nobody looks any more where it fails.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Shows the state again and again, until it is interrupted. An agent that ends and starts again is found
/// again.
pub(super) fn watch(data_dir: &DataDir) -> anyhow::Result<Outcome> {
    // With no agent at all, the reader of an error is better off than that of an empty screen.
    let mut agent = Some(Agent::connect(data_dir)?);
    let mut seen: (Value, Instant) = (Value::Null, Instant::now());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen()?
    };
    let own_screen = OwnScreen::enter();
    let shown = loop {
        agent = agent.or_else(|| Agent::connect(data_dir).ok());
        let found = agent.as_ref().map(|agent| agent.get("/v1/status"));
        let gone = if let Some(Ok(status)) = found {
            seen = (status, Instant::now());
            None
        } else {
            // Its socket, or its token, may be another's next time.
            agent = None;
            Some(seen.1.elapsed())
        };
        let screen = Screen::of_stdout();
        let frame = frame(&seen.0, gone, screen, own_screen.is_some());
        if let Err(error) = show(&frame, own_screen.is_some()) {
            break Err(error);
        }
        if runtime.block_on(signals.end_within(INTERVAL)) {
            break Ok(());
        }
    };
    drop(own_screen);
    match shown {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Outcome::Done),
    }
}

/// What is shown: everything where it fits, a line for each licence where that fits, and else its top.
fn frame(status: &Value, gone: Option<Duration>, screen: Screen, is_own: bool) -> String {
    let mut head = String::new();
    if let Some(gone) = gone {
        let text = format!(
            "the agent does not answer since {}; `tally run` starts one. Below is what it last said.",
            human::span(gone)
        );
        head += &paragraph(&text, super::ALARM, 0, screen);
    }
    if status.is_null() {
        return head;
    }
    let whole = |detail| head.clone() + &page(status, detail, screen);
    let Some(height) = screen.height.filter(|_| is_own) else {
        return whole(Detail::Full);
    };
    // The last line is for how to get out.
    let room = height.saturating_sub(1);
    let full = whole(Detail::Full);
    let text = if full.lines().count() <= room {
        full
    } else {
        whole(Detail::Line)
    };
    let lines = text.lines().count();
    let (shown, note) = if lines > room {
        (
            room,
            format!(
                "{} more lines: make the window taller · Ctrl-C ends",
                lines - room
            ),
        )
    } else {
        (lines, "Ctrl-C ends".to_owned())
    };
    let top = text.lines().take(shown).map(|line| format!("{line}\n"));
    let blank = "\n".repeat(room - shown);
    let note = paragraph(&note, anstyle::Style::new().dimmed(), 0, screen);
    top.collect::<String>() + &blank + note.lines().next().unwrap_or_default()
}

fn show(frame: &str, is_own: bool) -> io::Result<()> {
    if !is_own {
        let mut out = anstream::stdout().lock();
        writeln!(out, "{frame}")?;
        return out.flush();
    }
    let mut out = io::stdout().lock();
    let frame = match anstream::AutoStream::choice(&io::stdout()) {
        anstream::ColorChoice::Never => anstream::adapter::strip_str(frame).to_string(),
        _ => frame.to_owned(),
    };
    let frame = frame.replace('\n', END_OF_LINE);
    out.write_all(format!("{FRAME_BEGINS}{frame}{FRAME_ENDS}").as_bytes())?;
    out.flush()
}

/// What ends a wait. It is listened to all the time, so that nothing is missed between two waits.
#[cfg(unix)]
struct Signals {
    ends: [tokio::signal::unix::Signal; 3],
    resized: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    /// Inside a Tokio runtime.
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            ends: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
            resized: signal(SignalKind::window_change())?,
        })
    }

    /// Waits; `true` where somebody wants it to end, at once. Another size of the window ends the wait.
    async fn end_within(&mut self, wait: Duration) -> bool {
        let [interrupt, terminate, hangup] = &mut self.ends;
        tokio::select! {
            _ = interrupt.recv() => true,
            _ = terminate.recv() => true,
            _ = hangup.recv() => true,
            _ = self.resized.recv() => false,
            () = tokio::time::sleep(wait) => false,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    const fn listen() -> io::Result<Self> {
        Ok(Self)
    }

    /// Waits; `true` where somebody wants it to end, at once.
    async fn end_within(&mut self, wait: Duration) -> bool {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => true,
            () = tokio::time::sleep(wait) => false,
        }
    }
}
