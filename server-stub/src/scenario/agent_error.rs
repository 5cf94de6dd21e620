//! Errors of an agent under test.

/// Why an agent cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its folder cannot be used.
    #[error("cannot prepare the folder of the agent {name}")]
    Folder {
        /// The agent.
        name: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Its command cannot be run.
    #[error("cannot run `{command}`")]
    Spawn {
        /// The program.
        command: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The agent ended, or said nothing, instead of becoming ready.
    #[error("the agent {name} did not become ready: {why}")]
    NotReady {
        /// The agent.
        name: String,
        /// The reason.
        why: String,
    },
    /// The agent does not run.
    #[error("the agent {name} does not run")]
    NotRunning {
        /// The agent.
        name: String,
    },
    /// The agent runs, and its folder is not to be touched.
    #[error("the agent {name} runs: stop it before its folder is copied or put back")]
    Running {
        /// The agent.
        name: String,
    },
    /// The agent did not stop.
    #[error("the agent {name} did not stop in time")]
    NotStopped {
        /// The agent.
        name: String,
    },
    /// The agent cannot be asked.
    #[error("the agent {name} cannot be asked for {path}")]
    Http {
        /// The agent.
        name: String,
        /// The path that was asked for.
        path: &'static str,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The agent refuses.
    #[error("the agent {name} refuses {path}: {status} {body}")]
    Refused {
        /// The agent.
        name: String,
        /// The path that was asked for.
        path: &'static str,
        /// The status.
        status: u16,
        /// The answer's body.
        body: String,
    },
    /// The key pair of an application cannot be made.
    #[error("`{command}` made no key pair: {why}")]
    App {
        /// The program.
        command: String,
        /// The last that it said.
        why: String,
    },
    /// The client cannot be made.
    #[error("cannot make an HTTP client")]
    Client(#[source] reqwest::Error),
}

/// A command that cannot be run.
pub(super) fn cannot_spawn(words: &[String], source: std::io::Error) -> AgentError {
    AgentError::Spawn {
        command: words.first().cloned().unwrap_or_default(),
        source,
    }
}
