//! The hash chain over the ledger's rows: each row's hash covers the row and the hash before it.
//!
//! A row that is changed, removed, inserted or moved breaks the chain from there on. What a row's lane
//! stands for (licence, feature, device, event, period, setting) is covered through the lane's digest,
//! so that rows cannot be made to mean another licence by editing a smaller table.

use aws_lc_rs::digest::{Context, SHA256};
use tally_shared::{
    time::Timestamp,
    units::{Total, Units},
};

use super::book::{Account, AppNo, LaneKey, License, NoteKind, Seq};

/// A SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// What the first row's hash covers as the hash before it.
    pub const ORIGIN: Self = Self([0; 32]);
}

/// The fields of a row that its hash covers.
pub struct Link<'a> {
    /// The row's place.
    pub seq: Seq,
    /// The digest of its lane.
    pub lane: &'a Hash,
    /// The application.
    pub app: AppNo,
    /// The units.
    pub units: Units,
    /// The total it was granted with.
    pub total: Total,
    /// When.
    pub at: Timestamp,
    /// Whether the time was proven.
    pub time_proven: bool,
}

/// The hash of a row that follows `previous`.
pub fn next(previous: &Hash, link: &Link<'_>) -> Hash {
    let mut context = Context::new(&SHA256);
    context.update(&previous.0);
    context.update(&link.seq.0.to_be_bytes());
    context.update(&link.lane.0);
    context.update(&link.app.0.to_be_bytes());
    context.update(&link.units.get().to_be_bytes());
    context.update(&link.total.get().to_be_bytes());
    context.update(&link.at.as_millis().to_be_bytes());
    context.update(&[u8::from(link.time_proven)]);
    finish(context)
}

/// The hash of a note that follows `previous`. It covers fewer bytes than a row's, so that neither can
/// be taken for the other.
pub fn next_note(
    previous: &Hash,
    seq: Seq,
    kind: NoteKind,
    body: &str,
    (at, time_proven): (Timestamp, bool),
) -> Hash {
    let mut told = Context::new(&SHA256);
    told.update(kind.as_str().as_bytes());
    told.update(&[0]);
    told.update(body.as_bytes());
    let mut context = Context::new(&SHA256);
    context.update(&previous.0);
    context.update(&seq.0.to_be_bytes());
    context.update(&finish(told).0);
    context.update(&at.as_millis().to_be_bytes());
    context.update(&[u8::from(time_proven)]);
    finish(context)
}

/// The digest of what a lane stands for.
pub fn lane_digest(license: Option<&License>, account: Option<&Account>, key: &LaneKey) -> Hash {
    let mut context = Context::new(&SHA256);
    let mut text = |value: &str| {
        // A length before each text, so that no two lists of texts run together.
        context.update(&value.len().to_be_bytes());
        context.update(value.as_bytes());
    };
    if let Some(license) = license {
        text(&license.product);
        text(license.holder.field());
        text(license.holder.value());
        text(&license.id.to_string());
    }
    text(
        account
            .and_then(|account| account.feature.as_deref())
            .unwrap_or_default(),
    );
    text(&key.hardware_id);
    text(key.event.as_str());
    text(
        &key.period
            .map(|start| start.as_millis().to_string())
            .unwrap_or_default(),
    );
    text(
        &key.setting
            .allow_overages
            .map(|allow| allow.to_string())
            .unwrap_or_default(),
    );
    text(
        &key.setting
            .max_overages
            .map(|max| max.to_string())
            .unwrap_or_default(),
    );
    finish(context)
}

fn finish(context: Context) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Hash(hash)
}
