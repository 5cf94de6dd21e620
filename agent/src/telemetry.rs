//! Logs: to stderr, since stdout is for data.

use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// The variable that chooses what is logged, such as `debug` or `tally_agent::sync=debug`.
pub const LOG_VARIABLE: &str = "TALLY_LOG";

/// Starts logging for this process. A second call changes nothing.
pub fn init() {
    let filter = EnvFilter::try_from_env(LOG_VARIABLE)
        .unwrap_or_else(|_| EnvFilter::new("warn,tally_agent=info"));
    let to_stderr = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false);
    // Fails only where logging was started already, as in tests.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(to_stderr)
        .try_init();
}
