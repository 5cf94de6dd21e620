//! The refusals of late, so that whoever asks why an application was refused gets an answer. They are kept
//! in memory only: a refusal changes nothing, and must not cost a wait for the disk.

use std::collections::VecDeque;

use serde::Serialize;
use tally_shared::{
    limits::Standing,
    time::Timestamp,
    units::{Total, Units},
    wire::{ErrorCode, Holder},
};

use super::book::AppNo;

/// So many are kept, the newest ones.
const REFUSALS_MAX: usize = 256;

/// A consumption that was refused.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// Its number since the agent started, from 1.
    pub no: u64,
    /// When.
    pub at: Timestamp,
    /// Whether the server had confirmed the clock.
    pub time_proven: bool,
    /// The application.
    pub app: AppNo,
    /// The product.
    pub product: String,
    /// Who holds the licence.
    pub holder: Holder,
    /// The feature, if it was one's.
    pub feature: Option<String>,
    /// The device.
    pub hardware_id: String,
    /// The units that were asked for.
    pub units: Units,
    /// The contract's code.
    pub code: ErrorCode,
    /// What the application was told.
    pub message: String,
    /// What it was judged by; `None` where nothing is known of such an account.
    pub judged: Option<Judged>,
}

/// What a consumption was judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// The limits, and the server's total as last heard of.
    pub standing: Standing,
    /// The total before, with everything of the period that the server has not counted.
    pub total_before: Total,
}

/// The refusals of late.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    newest: VecDeque<Refusal>,
    count: u64,
}

impl Refusals {
    /// Keeps one; its number is given here.
    pub(super) fn add(&mut self, refusal: Refusal) {
        self.count += 1;
        if self.newest.len() >= REFUSALS_MAX {
            self.newest.pop_front();
        }
        self.newest.push_back(Refusal {
            no: self.count,
            ..refusal
        });
    }

    /// All that are kept, oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Refusal> {
        self.newest.iter()
    }
}
