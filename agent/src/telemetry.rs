//! Logs: to stderr, since stdout is for data; under systemd's journal in its form; or into a file that is
//! begun anew each day.

mod daily;
mod fields;

use std::path::{Path, PathBuf};

use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{
        self, FmtContext, FormatEvent, FormatFields,
        format::{Format, Full, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

use self::{daily::DailyFile, fields::fields};
use crate::private_file;

/// The variable that chooses what is logged, such as `debug` or `tally_agent::sync=debug`.
pub const LOG_VARIABLE: &str = "TALLY_LOG";

/// What is logged unless told otherwise.
pub const DEFAULT_FILTER: &str = "warn,tally_agent=info";

/// What is logged, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// What is logged, in the form of [`LOG_VARIABLE`].
    pub filter: String,
    /// The file; stderr where there is none.
    pub file: Option<PathBuf>,
    /// How many days have a file of their own.
    pub days: usize,
}

/// Why the log cannot be written as it should be. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter cannot be understood.
    #[error(
        "cannot log {filter:?}; give a level such as \"debug\", or a part and its level such as \
         \"tally_agent::sync=debug\""
    )]
    Filter {
        /// What was given.
        filter: String,
    },
    /// Something is in the way of the link to the newest file.
    #[error("{path} is not a log of tally's; give another name with --log-file, or move it away")]
    Taken {
        /// What is in the way.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error(
        "cannot write the log {path}; give another with --log-file, or make its folder writable"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It would lie among what must not be touched.
    #[error(
        "the log {path} would lie in the data directory, whose files are the agent's alone; give another with --log-file"
    )]
    InDataDir {
        /// The file.
        path: PathBuf,
    },
    /// Its folder cannot be made.
    #[error("cannot make the folder {path} for the log; give another file with --log-file")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Logging has ended.
    #[error("the log cannot be changed any more")]
    Gone(#[source] reload::Error),
}

/// Changes what is logged while the agent runs.
pub struct Filter(reload::Handle<Targets, Registry>);

impl Filter {
    /// Logs this from here on.
    ///
    /// # Errors
    ///
    /// [`LogError::Filter`]; then nothing is changed.
    pub fn set(&self, filter: &str) -> Result<(), LogError> {
        self.0.reload(parse(filter)?).map_err(LogError::Gone)
    }
}

/// Starts logging for a command, to stderr. A second call changes nothing.
pub fn init() {
    let filter = std::env::var(LOG_VARIABLE).ok();
    let filter = filter.and_then(|filter| parse(&filter).ok());
    let filter = filter
        .or_else(|| parse(DEFAULT_FILTER).ok())
        .unwrap_or_default();
    // Fails only where logging was started already, as in tests.
    let _ = Registry::default()
        .with(filter)
        .with(to_stderr())
        .try_init();
}

/// Starts logging for an agent.
///
/// # Errors
///
/// [`LogError`].
pub fn start(settings: &LogSettings, data_dir: &Path) -> Result<Filter, LogError> {
    let (filter, handle) = reload::Layer::new(parse(&settings.filter)?);
    let output = match &settings.file {
        Some(file) => to_file(file, settings.days, data_dir)?.boxed(),
        None if is_journal() => to_journal().boxed(),
        None => to_stderr().boxed(),
    };
    // Fails only where logging was started already, as in tests.
    let _ = Registry::default().with(filter).with(output).try_init();
    Ok(Filter(handle))
}

/// Whether this says what to log.
///
/// # Errors
///
/// [`LogError::Filter`].
pub fn check(filter: &str) -> Result<(), LogError> {
    parse(filter).map(|_| ())
}

/// Levels, of everything or of a part (`part=level`), with commas between them; an empty text is as good as none.
/// The library's own reading takes what it does not understand for a part of which everything is logged.
fn parse(filter: &str) -> Result<Targets, LogError> {
    let filter = match filter.trim() {
        "" => DEFAULT_FILTER,
        filter => filter,
    };
    let pieces = filter.split(',').map(str::trim);
    let pieces = pieces.filter(|piece| !piece.is_empty());
    let read = pieces.map(|piece| {
        let (part, level) = piece.split_once('=').unwrap_or(("", piece));
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_:-".contains(&byte);
        let is_part = part.bytes().all(is_name) && part.is_empty() != piece.contains('=');
        is_part.then_some((part, level.parse().ok()?))
    });
    let read: Option<Vec<(&str, LevelFilter)>> = read.collect();
    // The empty name is of every part.
    read.map(Targets::from_iter)
        .ok_or_else(|| LogError::Filter {
            filter: filter.to_owned(),
        })
}

fn to_stderr<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .fmt_fields(fields())
}

fn to_journal<S: Subscriber + for<'a> LookupSpan<'a>>() -> impl Layer<S> {
    fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .fmt_fields(fields())
        .event_format(Journal(
            Format::default()
                .without_time()
                .with_level(false)
                .with_target(false),
        ))
}

/// `tally.log` becomes `tally.log.2026-11-25` and so on, and is a link to the newest.
fn to_file<S: Subscriber + for<'a> LookupSpan<'a>>(
    file: &Path,
    days: usize,
    data_dir: &Path,
) -> Result<impl Layer<S>, LogError> {
    let file = &std::path::absolute(file).map_err(|source| LogError::Folder {
        path: file.to_owned(),
        source,
    })?;
    let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
        let path = file.to_owned();
        return Err(LogError::Taken { path });
    };
    let check_place = || {
        if resolved(folder).starts_with(resolved(data_dir)) {
            let path = file.to_owned();
            return Err(LogError::InDataDir { path });
        }
        Ok(())
    };
    check_place()?;
    if daily::is_taken(folder, name) {
        let path = file.to_owned();
        return Err(LogError::Taken { path });
    }
    private_file::create_folder(folder).map_err(|source| LogError::Folder {
        path: folder.to_owned(),
        source,
    })?;
    // Only what is there can be told from what leads to it.
    check_place()?;
    let writer = DailyFile::open(folder, name, days).map_err(|source| LogError::File {
        path: file.to_owned(),
        source,
    })?;
    Ok(fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        .with_target(false)
        .fmt_fields(fields()))
}

/// Where a path leads, as far as it is there.
fn resolved(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|ancestor| {
        let real = ancestor.canonicalize().ok()?;
        Some(real.join(path.strip_prefix(ancestor).ok()?))
    });
    found.unwrap_or_else(|| path.to_owned())
}

/// Whether what is written to stderr goes to the journal: systemd says to which file it connected it.
#[cfg(unix)]
fn is_journal() -> bool {
    use std::os::{fd::AsFd as _, unix::fs::MetadataExt as _};
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    let stderr = std::io::stderr().as_fd().try_clone_to_owned();
    let found = stderr.and_then(|stderr| std::fs::File::from(stderr).metadata());
    found.is_ok_and(|found| stream == format!("{}:{}", found.dev(), found.ino()))
}

#[cfg(not(unix))]
const fn is_journal() -> bool {
    false
}

/// A line with its priority in front, as the journal reads it (`sd-daemon(3)`). The journal has the time.
struct Journal(Format<Full, ()>);

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(writer, "<{priority}>")?;
        self.0.format_event(context, writer, event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_logs(filter: &str, expected: [bool; 3]) {
        let found = parse(filter).unwrap();
        let of = |part, level| found.would_enable(part, &level);
        let logs = [
            of("tally_agent::sync", Level::DEBUG),
            of("tally_agent", Level::INFO),
            of("hyper", Level::INFO),
        ];
        assert_eq!(logs, expected, "{filter:?}");
    }

    #[test]
    fn levels_are_of_everything_or_of_a_part() {
        check_logs(DEFAULT_FILTER, [false, true, false]);
        check_logs("debug", [true, true, true]);
        check_logs("warn, tally_agent::sync=debug", [true, false, false]);
        check_logs("warn,tally_agent=info,", [false, true, false]);
        check_logs("off", [false, false, false]);
    }

    #[test]
    fn nothing_is_as_good_as_no_filter() {
        check_logs("", [false, true, false]);
        check_logs(" ", [false, true, false]);
    }

    #[test]
    fn what_would_be_misunderstood_is_refused() {
        for filter in [
            "loud",
            "tally_agent",
            "=info",
            "a b=info",
            "a[span]=debug",
            "a=b=info",
        ] {
            assert!(parse(filter).is_err(), "{filter:?}");
        }
    }
}
