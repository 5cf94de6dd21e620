//! Which fault fires for a request: pure, and repeatable from each fault's seed.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// A fault, as testers write it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Requests to this path; all of the License API where it is `null`.
    #[serde(default)]
    pub path: Option<String>,
    /// Requests for this device; all where it is `null`.
    #[serde(default)]
    pub hardware_id: Option<String>,
    /// What happens.
    pub action: Action,
    /// How often; without end where it is `null`.
    #[serde(default)]
    pub times: Option<u64>,
    /// How likely, from 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// Makes what `probability` decides repeatable.
    #[serde(default)]
    pub seed: u64,
}

/// What a fault does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Action {
    /// Close the connection without an answer.
    Drop(DropAction),
    /// Apply, and answer late.
    Delay(DelayAction),
    /// Apply nothing, and answer with a status.
    Status(StatusAction),
    /// Apply, send the first bytes of the answer, and close.
    Truncate(TruncateAction),
    /// Apply, and answer 200 with a body that is not the contract's.
    Garbage(GarbageAction),
    /// Apply, and answer with a wrong signature.
    BadSignature(BadSignatureAction),
    /// Answer with a wrong `Date`.
    SkewDate(SkewDateAction),
}

/// `{"drop": "before" | "after"}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropAction {
    /// Before or after the request is applied.
    pub drop: When,
}

/// Before or after a request is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Nothing is applied.
    Before,
    /// It is applied: the lost acknowledgement.
    After,
}

/// `{"delay_ms": 2000}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelayAction {
    /// Milliseconds.
    pub delay_ms: u64,
}

/// `{"status": 503, "retry_after": 5}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusAction {
    /// The HTTP status, from 400 to 599.
    pub status: u16,
    /// The header `Retry-After`, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// `{"truncate": 20}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TruncateAction {
    /// How many bytes of the answer are sent, its head included.
    pub truncate: usize,
}

/// `{"garbage": true}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GarbageAction {
    /// Always `true`.
    pub garbage: bool,
}

/// `{"bad_signature": true}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BadSignatureAction {
    /// Always `true`.
    pub bad_signature: bool,
}

/// `{"skew_date": -3600}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkewDateAction {
    /// Seconds that the `Date` is ahead of the stub's clock.
    pub skew_date: i64,
}

/// A fault, and how often it fired.
#[derive(Debug, Serialize)]
pub struct FaultState {
    #[serde(flatten)]
    fault: Fault,
    fired: u64,
    #[serde(skip)]
    random: StdRng,
}

/// The faults in force.
#[derive(Debug, Default)]
pub struct Plan(Vec<FaultState>);

/// What happens to one request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How much later it is answered, in milliseconds.
    pub delay_ms: u64,
    /// How far its `Date` is off, in seconds.
    pub skew_date: i64,
    /// What else happens.
    pub action: Option<Action>,
}

impl Fault {
    /// Refuses what no fault can be.
    ///
    /// # Errors
    ///
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(format!(
                "`probability` must be from 0 to 1, not {}",
                self.probability
            ));
        }
        match &self.action {
            Action::Status(action) if !(400..=599).contains(&action.status) => Err(format!(
                "`status` must be from 400 to 599, not {}",
                action.status
            )),
            Action::Garbage(GarbageAction { garbage: false })
            | Action::BadSignature(BadSignatureAction {
                bad_signature: false,
            }) => Err("`garbage` and `bad_signature` can only be true".to_owned()),
            _ => Ok(()),
        }
    }
}

impl Plan {
    /// Puts faults in force, none of which has fired.
    pub fn new(faults: Vec<Fault>) -> Self {
        let state = |fault: Fault| {
            let random = StdRng::seed_from_u64(fault.seed);
            FaultState {
                fault,
                fired: 0,
                random,
            }
        };
        Self(faults.into_iter().map(state).collect())
    }

    /// The faults, and how often each fired.
    pub fn states(&self) -> &[FaultState] {
        &self.0
    }

    /// Decides what happens to a request. A late answer and a wrong date combine with what follows in
    /// the list; of the others, the first that fires is the only one.
    pub fn judge(&mut self, path: &str, hardware_id: Option<&str>) -> Verdict {
        let mut verdict = Verdict::default();
        for state in &mut self.0 {
            if !state.fires(path, hardware_id) {
                continue;
            }
            match &state.fault.action {
                Action::Delay(action) => verdict.delay_ms += action.delay_ms,
                Action::SkewDate(action) => verdict.skew_date += action.skew_date,
                action => {
                    verdict.action = Some(action.clone());
                    return verdict;
                }
            }
        }
        verdict
    }
}

impl FaultState {
    fn fires(&mut self, path: &str, hardware_id: Option<&str>) -> bool {
        let fault = &self.fault;
        let matches = fault.path.as_deref().is_none_or(|wanted| wanted == path)
            && (fault.hardware_id.is_none() || fault.hardware_id.as_deref() == hardware_id)
            && fault.times.is_none_or(|times| self.fired < times);
        let fires =
            matches && (fault.probability >= 1.0 || self.random.random_bool(fault.probability));
        self.fired += u64::from(fires);
        fires
    }
}

const fn always() -> f64 {
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Plan {
        Plan::new(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_fault_fires_so_often_and_no_more() {
        let mut plan = plan(r#"[{"action": {"drop": "after"}, "times": 2}]"#);
        let fired: Vec<bool> = (0..4)
            .map(|_| plan.judge("/p", None).action.is_some())
            .collect();
        assert_eq!(fired, [true, true, false, false]);
    }

    #[test]
    fn a_fault_concerns_its_path_and_device_only() {
        let mut plan = plan(r#"[{"path": "/p", "hardware_id": "h", "action": {"status": 503}}]"#);
        assert_eq!(plan.judge("/q", Some("h")).action, None);
        assert_eq!(plan.judge("/p", Some("i")).action, None);
        assert_eq!(plan.judge("/p", None).action, None);
        assert!(plan.judge("/p", Some("h")).action.is_some());
    }

    #[test]
    fn the_same_seed_gives_the_same_faults() {
        let json = r#"[{"action": {"garbage": true}, "probability": 0.5, "seed": 7}]"#;
        let run = |mut plan: Plan| -> Vec<bool> {
            (0..64)
                .map(|_| plan.judge("/p", None).action.is_some())
                .collect()
        };
        assert_eq!(run(plan(json)), run(plan(json)));
        assert!(run(plan(json)).contains(&true) && run(plan(json)).contains(&false));
    }

    #[test]
    fn a_late_answer_combines_with_what_follows() {
        let mut plan = plan(r#"[{"action": {"delay_ms": 5}}, {"action": {"truncate": 20}}]"#);
        let verdict = plan.judge("/p", None);
        assert_eq!(verdict.delay_ms, 5);
        assert_eq!(
            verdict.action,
            Some(Action::Truncate(TruncateAction { truncate: 20 }))
        );
    }
}
