//! The scenarios that come with the program.

use serde::Serialize;

use super::file::Scenario;

/// A scenario that comes with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Shipped {
    /// The name of its file.
    pub file: &'static str,
    /// The file.
    pub text: &'static str,
}

macro_rules! shipped {
    ($($file:literal),+ $(,)?) => {
        /// Every scenario that comes with the program.
        pub const ALL: &[Shipped] = &[$(Shipped {
            file: $file,
            text: include_str!(concat!("../../../scenarios/", $file)),
        }),+];
    };
}

shipped![
    "tunnel.toml",
    "flaky_lte.toml",
    "captive_portal.toml",
    "wrong_clock.toml",
    "month_end_offline.toml",
    "server_maintenance.toml",
    "rate_limiting.toml",
    "licence_disabled_offline.toml",
    "lost_acknowledgements.toml",
    "two_devices.toml",
];

/// A scenario that comes with the program, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Listed {
    file: &'static str,
    name: String,
    story: String,
    text: &'static str,
}

/// Every scenario that comes with the program, for people.
pub(crate) fn listed() -> Vec<Listed> {
    let list = |shipped: &Shipped| {
        let scenario = Scenario::parse(shipped.text).ok()?;
        Some(Listed {
            file: shipped.file,
            name: scenario.name,
            story: scenario.story.trim().to_owned(),
            text: shipped.text,
        })
    };
    ALL.iter().filter_map(list).collect()
}
