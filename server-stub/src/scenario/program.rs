//! A program of the timeline.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::process::Command;

use super::{agent_error::AgentError, placeholder::Values};

/// Runs a program to its end; `None` where it takes too long.
pub(super) async fn run_program(
    words: &[String],
    values: &Values,
    within: Duration,
) -> Result<Option<(ExitStatus, String)>, AgentError> {
    let program = words.first().cloned().unwrap_or_default();
    let mut command = Command::new(&program);
    command.args(words.iter().skip(1));
    for (name, value) in values {
        command.env(format!("SCENARIO_{}", name.to_uppercase()), value);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(within, command.output()).await {
        Ok(Ok(output)) => {
            let said = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
            Ok(Some((output.status, said.join("\n").trim().to_owned())))
        }
        Ok(Err(source)) => Err(AgentError::Spawn {
            command: program,
            source,
        }),
        Err(_) => Ok(None),
    }
}
