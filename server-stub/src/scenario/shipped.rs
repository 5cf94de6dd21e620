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
    "gateway_repeats_keyed.toml",
    "balancer_repeats.toml",
    "refused_after_counting.toml",
    "rate_limited_after_counting.toml",
    "revoked_after_counting.toml",
    "server_put_back.toml",
    "lagging_replica.toml",
    "cached_totals.toml",
    "late_arrival.toml",
    "black_hole.toml",
    "refused_before_the_key.toml",
    "conflict.toml",
    "credentials_rotated.toml",
    "server_upgraded.toml",
    "key_forgotten.toml",
    "copied_device.toml",
    "copied_device_without_keys.toml",
    "folder_put_back.toml",
    "folder_put_back_without_keys.toml",
    "two_licences.toml",
    "device_of_one_licence.toml",
    "key_moved.toml",
    "feature_removed.toml",
    "licence_type_changed.toml",
    "device_gone.toml",
    "overage_order.toml",
    "held_units_go_on.toml",
    "renewed_after_removal.toml",
    "pool.toml",
    "pool_used_up_elsewhere.toml",
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
