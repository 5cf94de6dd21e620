//! Which fault strikes which request: pure, and repeatable from the seeds.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde::Serialize;

use super::spec::{Action, FAULTS_MAX, Fault};
use crate::api::endpoint::Endpoint;

/// The faults that are ordered, in the order in which they are tried.
#[derive(Debug, Default)]
pub struct Plan {
    armed: Vec<Armed>,
}

/// The marks of a request that faults can be restricted to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target<'a> {
    /// The endpoint that it calls.
    pub(crate) endpoint: Endpoint,
    /// The device that sent it.
    pub(crate) hardware_id: Option<&'a str>,
    /// The API key that it is signed with.
    pub(crate) api_key: Option<&'a str>,
    /// True where it carries an `Idempotency-Key`.
    pub(crate) keyed: bool,
}

/// What strikes one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strike {
    /// The answer comes so many milliseconds late.
    pub delay_ms: u64,
    /// Its `Date` is wrong by so many seconds.
    pub skew_seconds: i64,
    /// A read is answered from the state of so many milliseconds ago.
    pub stale_ms: u64,
    /// True where all idempotency keys are forgotten before.
    pub forget_keys: bool,
    /// The number of changing requests by which the store goes back before.
    pub roll_back: u32,
    /// What goes wrong besides.
    pub action: Option<Action>,
    /// The fault that the log names: what goes wrong besides, or else the last one that struck.
    pub last: Option<Action>,
}

/// A fault, and how often it struck.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// As it was ordered.
    #[serde(flatten)]
    pub fault: Fault,
    /// How often it struck.
    pub fired: u64,
}

/// Faults that cannot be ordered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// More than a plan holds.
    #[error("at most {FAULTS_MAX} faults can be ordered")]
    TooMany,
    /// One of them contradicts itself.
    #[error("faults[{index}]: {problem}")]
    Fault {
        /// Its place in the list.
        index: usize,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Debug)]
struct Armed {
    fault: Fault,
    fired: u64,
    random: StdRng,
}

impl Plan {
    /// A plan in which nothing has struck yet.
    ///
    /// # Errors
    ///
    /// Too many faults, or the first one that cannot be.
    pub fn new(faults: Vec<Fault>) -> Result<Self, PlanError> {
        if faults.len() > FAULTS_MAX {
            return Err(PlanError::TooMany);
        }
        for (index, fault) in faults.iter().enumerate() {
            let wrong = |problem| PlanError::Fault { index, problem };
            fault.check().map_err(wrong)?;
        }
        let arm = |fault: Fault| Armed {
            random: StdRng::seed_from_u64(fault.seed),
            fired: 0,
            fault,
        };
        Ok(Self {
            armed: faults.into_iter().map(arm).collect(),
        })
    }

    /// Decides what strikes a request: the first fault that decides about the request or its answer, and all that go with
    /// any other: a store that goes back, forgotten keys, an old state, a delay and a wrong date.
    pub(crate) fn strike(&mut self, target: &Target<'_>) -> Strike {
        let mut strike = Strike::default();
        for armed in &mut self.armed {
            let action = armed.fault.action;
            if (strike.action.is_some() && action.decides()) || !armed.strikes(target) {
                continue;
            }
            strike.last = Some(action);
            match action {
                Action::Delay(delay_ms) => {
                    strike.delay_ms = strike.delay_ms.saturating_add(delay_ms);
                }
                Action::SkewDate(seconds) => {
                    strike.skew_seconds = strike.skew_seconds.saturating_add(seconds);
                }
                Action::Stale(ms) => strike.stale_ms = strike.stale_ms.saturating_add(ms),
                Action::ForgetKeys => strike.forget_keys = true,
                Action::RollBack(requests) => {
                    strike.roll_back = strike.roll_back.saturating_add(requests);
                }
                deciding => strike.action = Some(deciding),
            }
        }
        strike.last = strike.action.or(strike.last);
        strike
    }

    /// Every fault, and how often it struck.
    pub fn report(&self) -> Vec<Report> {
        let report = |armed: &Armed| Report {
            fault: armed.fault.clone(),
            fired: armed.fired,
        };
        self.armed.iter().map(report).collect()
    }
}

impl Armed {
    /// A random number is drawn for each request that matches, and for no other, so that requests
    /// elsewhere do not shift what happens here.
    fn strikes(&mut self, target: &Target<'_>) -> bool {
        let fault = &self.fault;
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| Some(wanted) == found)
        };
        let matches = is(&fault.path, Some(target.endpoint.path()))
            && is(&fault.hardware_id, target.hardware_id)
            && is(&fault.api_key, target.api_key)
            && fault.keyed.is_none_or(|wanted| wanted == target.keyed)
            && fault.action.is_for(target.endpoint)
            && fault.times.is_none_or(|times| self.fired < times);
        let strikes = matches && self.random.random_bool(fault.probability);
        self.fired += u64::from(strikes);
        strikes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: Target<'_> = Target {
        endpoint: Endpoint::AddConsumption,
        hardware_id: None,
        api_key: None,
        keyed: false,
    };
    const CHECK: Target<'_> = Target {
        endpoint: Endpoint::CheckLicense,
        ..ADD
    };

    fn fault(action: Action) -> Fault {
        Fault {
            path: None,
            hardware_id: None,
            api_key: None,
            keyed: None,
            action,
            times: None,
            probability: 1.0,
            seed: 0,
        }
    }

    /// Which of a hundred requests are struck, as text.
    fn pattern(plan: &mut Plan) -> String {
        (0..100)
            .map(|_| plan.strike(&ADD).action.map_or('.', |_| 'x'))
            .collect()
    }

    #[test]
    fn a_fault_strikes_as_often_as_ordered() {
        let mut plan = Plan::new(vec![Fault {
            times: Some(2),
            ..fault(Action::Garbage)
        }])
        .unwrap();
        assert_eq!(pattern(&mut plan), format!("xx{}", ".".repeat(98)));
        assert_eq!(plan.report()[0].fired, 2);
    }

    #[test]
    fn a_fault_strikes_its_path_device_and_caller_only() {
        let mut plan = Plan::new(vec![Fault {
            path: Some(ADD.endpoint.path().to_owned()),
            hardware_id: Some("hw-1".to_owned()),
            api_key: Some("key".to_owned()),
            keyed: Some(true),
            ..fault(Action::Garbage)
        }])
        .unwrap();
        let wanted = Target {
            hardware_id: Some("hw-1"),
            api_key: Some("key"),
            keyed: true,
            ..ADD
        };
        let others = [
            Target {
                endpoint: Endpoint::CheckLicense,
                ..wanted
            },
            Target {
                hardware_id: Some("hw-2"),
                ..wanted
            },
            Target {
                hardware_id: None,
                ..wanted
            },
            Target {
                api_key: Some("other"),
                ..wanted
            },
            Target {
                keyed: false,
                ..wanted
            },
        ];
        for other in others {
            assert_eq!(plan.strike(&other), Strike::default());
        }
        assert_eq!(plan.strike(&wanted).action, Some(Action::Garbage));
    }

    #[test]
    fn an_old_state_strikes_reads_only_and_what_is_applied_consumptions_only() {
        let mut plan = Plan::new(vec![fault(Action::Stale(5)), fault(Action::Duplicate)]).unwrap();
        let read = plan.strike(&CHECK);
        assert_eq!((read.stale_ms, read.action), (5, None));
        let add = plan.strike(&ADD);
        assert_eq!((add.stale_ms, add.action), (0, Some(Action::Duplicate)));
        let nowhere = Fault {
            path: Some(CHECK.endpoint.path().to_owned()),
            ..fault(Action::Late(1))
        };
        let problem = Plan::new(vec![nowhere]).unwrap_err().to_string();
        assert!(
            problem.contains("not what this action strikes"),
            "{problem}"
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_and_another_gives_others() {
        let plan = |seed| {
            Plan::new(vec![Fault {
                probability: 0.2,
                seed,
                ..fault(Action::Garbage)
            }])
            .unwrap()
        };
        let first = pattern(&mut plan(7));
        assert_eq!(pattern(&mut plan(7)), first);
        assert_ne!(pattern(&mut plan(8)), first);
        let struck = first.matches('x').count();
        assert!((10..=30).contains(&struck), "{struck} of 100 at 0.2");
    }

    #[test]
    fn a_fault_that_cannot_be_is_named() {
        let likely = Fault {
            probability: 1.5,
            ..fault(Action::Garbage)
        };
        let elsewhere = Fault {
            path: Some("/api/v4/floating".to_owned()),
            ..fault(Action::Garbage)
        };
        let problem = |fault| Plan::new(vec![fault]).unwrap_err().to_string();
        assert_eq!(
            problem(likely),
            "faults[0]: `probability` must be between 0 and 1"
        );
        assert!(problem(elsewhere).contains("is not a path of the License API"));
    }

    #[test]
    fn what_goes_with_any_other_combines_with_the_first_other_fault() {
        let mut plan = Plan::new(vec![
            fault(Action::Delay(5)),
            fault(Action::ForgetKeys),
            fault(Action::DropAfter),
            fault(Action::Garbage),
            fault(Action::RollBack(2)),
            fault(Action::SkewDate(-60)),
        ])
        .unwrap();
        let strike = plan.strike(&ADD);
        assert_eq!((strike.delay_ms, strike.skew_seconds), (5, -60));
        assert_eq!((strike.forget_keys, strike.roll_back), (true, 2));
        assert_eq!(strike.action, Some(Action::DropAfter));
        assert_eq!(strike.last, Some(Action::DropAfter));
        assert_eq!(plan.report()[3].fired, 0);
    }
}
