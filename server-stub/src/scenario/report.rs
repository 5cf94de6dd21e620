//! What is told of a scenario: a line for each step, then each expectation with what was found.

use std::{fmt::Write as _, time::Duration};

use serde::Serialize;

/// How a scenario went.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Its name.
    pub name: String,
    /// Its file, or where it came from.
    pub file: String,
    /// The seed of what is random in it.
    pub seed: u64,
    /// What was done.
    pub steps: Vec<StepReport>,
    /// What was expected; empty where the scenario broke off.
    pub expectations: Vec<Expectation>,
    /// Why it broke off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Whether everything expected holds.
    pub passed: bool,
    /// The last lines of each agent's log, where something does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<AgentLog>,
}

/// A step that was carried out.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// When, in milliseconds after everything was ready.
    pub at_ms: u64,
    /// Its line in the file.
    pub line: usize,
    /// What kind of step it is.
    pub kind: &'static str,
    /// What it did, in words.
    pub what: String,
    /// What came of it.
    pub result: String,
}

/// Something that had to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expectation {
    /// What it is about.
    pub what: String,
    /// What is right.
    pub expected: String,
    /// What there was.
    pub found: String,
    /// Whether it holds.
    pub ok: bool,
}

/// The last lines that an agent logged.
#[derive(Clone, Debug, Serialize)]
pub struct AgentLog {
    /// The agent.
    pub agent: String,
    /// What it said.
    pub lines: Vec<String>,
}

impl Report {
    /// The head, before the first step.
    pub fn head(name: &str, file: &str, seed: u64) -> String {
        format!("{name}\n  {file} · seed {seed}\n")
    }

    /// Everything after the steps.
    pub fn tail(&self) -> String {
        let mut text = String::new();
        if let Some(error) = &self.error {
            // Writing into a string cannot fail, here and below.
            let _ = writeln!(text, "\n  BROKE OFF  {error}");
        }
        let widest = |of: fn(&Expectation) -> &str| {
            let widths = self.expectations.iter().map(|it| of(it).chars().count());
            widths.max().unwrap_or(0)
        };
        let (what, expected) = (widest(|it| &it.what), widest(|it| &it.expected));
        for (index, line) in self.expectations.iter().enumerate() {
            let gap = if index == 0 { "\n" } else { "" };
            let mark = if line.ok { "ok    " } else { "FAILED" };
            let _ = writeln!(
                text,
                "{gap}  {mark}  {:what$}  expected {:expected$}  found {}",
                line.what, line.expected, line.found
            );
        }
        for log in &self.logs {
            let _ = writeln!(text, "\n  the end of {}'s log:", log.agent);
            for line in &log.lines {
                let _ = writeln!(text, "    {line}");
            }
        }
        let failed = self.expectations.iter().filter(|it| !it.ok).count();
        let count = self.expectations.len();
        let seconds = self.seconds;
        let _ = if self.passed {
            writeln!(
                text,
                "\n  passed: {count} of {count} expectations hold · {seconds:.1} s"
            )
        } else if self.error.is_some() {
            writeln!(text, "\n  FAILED: it broke off · {seconds:.1} s")
        } else {
            writeln!(
                text,
                "\n  FAILED: {failed} of {count} expectations do not hold · {seconds:.1} s"
            )
        };
        text
    }
}

impl StepReport {
    /// One line.
    pub fn line(&self) -> String {
        let at = Duration::from_millis(self.at_ms).as_secs_f64();
        let arrow = if self.result.is_empty() { "" } else { " → " };
        format!(
            "  {at:6.2} s  {:8} {}{arrow}{}",
            self.kind, self.what, self.result
        )
    }
}
