//! The activity log: what was granted, to whom, and as which event.

use serde::Serialize;
use tally_shared::{
    time::Timestamp,
    units::{Total, Units},
    wire::ConsumptionEvent,
};

/// One granted request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Activity {
    /// Its place in the log, from 1; 0 until it is stored.
    pub seq: i64,
    /// The licence.
    pub license_id: i64,
    /// The feature's code; `None` for the licence itself.
    pub feature: Option<String>,
    /// The event that the request asked to be recorded.
    pub event: ConsumptionEvent,
    /// What was added.
    pub units: Units,
    /// The total after it.
    pub total: Total,
    /// The device.
    pub hardware_id: String,
    /// When, by the stub's clock.
    pub at: Timestamp,
}
