//! The hash chain over the ledger's rows: each row's hash covers the row and the hash before it, under a
//! key of the device's (HMAC-SHA-256, RFC 2104).
//!
//! A row that is changed, removed, inserted or moved breaks the chain from there on, and only who has the
//! key can make it whole again. What a row's lane stands for (licence, feature, device, event, period,
//! setting) is covered through the lane's digest, so that rows cannot be made to mean another licence by
//! editing a smaller table. The sums of an account carry a seal of the same key, so that what is owed
//! cannot be called settled; so does what stands in the place of folded rows.

use std::fmt;

use aws_lc_rs::{
    digest::{Context, SHA256},
    hmac,
};
use tally_shared::{
    time::Timestamp,
    units::{Total, Units},
};

use super::book::{Account, AppNo, LaneKey, License, NoteKind, Seq};

/// A hash of 32 bytes: an HMAC-SHA-256 of the chain, or a SHA-256.
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

/// The key of a chain, prepared: a row costs no more than its own blocks.
#[derive(Clone)]
pub struct Key(hmac::Key);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// Prepares a secret of any length.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// What tells this key from others, and not what it is.
    pub fn fingerprint(&self) -> String {
        let hash = self.seal(b"fingerprint", &[]);
        first_digits(&hash)
    }

    /// An HMAC over something that is not of the chain, apart from all other purposes.
    pub fn seal(&self, purpose: &[u8], bytes: &[u8]) -> Hash {
        let mut context = hmac::Context::with_key(&self.0);
        for part in [b"tally ".as_slice(), purpose, &[0], bytes] {
            context.update(part);
        }
        hash_of(context.sign().as_ref())
    }

    /// What stands for a server and credentials, without telling them: idempotency keys belong to both together.
    pub fn peer(&self, server: &str, api_key: &str) -> String {
        let hash = self.seal(
            b"peer",
            &[server.as_bytes(), &[0], api_key.as_bytes()].concat(),
        );
        first_digits(&hash)
    }

    /// The seal of an account's sums.
    pub fn seal_account(&self, account: &Account) -> Hash {
        let rows = i64::try_from(account.rows).unwrap_or(i64::MAX);
        let numbers = [
            account.no.0,
            account.recorded.get(),
            rows,
            account.settled.get(),
            account.waived.get(),
        ];
        self.seal(b"account", numbers.map(i64::to_be_bytes).as_flattened())
    }

    /// The seal of an anchor: of the places that it stands for, and the hash of the last of them.
    pub fn seal_anchor(&self, (first, last): (Seq, Seq), hash: &Hash) -> Hash {
        let mut bytes = [first.0, last.0]
            .map(i64::to_be_bytes)
            .as_flattened()
            .to_vec();
        bytes.extend(hash.0);
        self.seal(b"anchor", &bytes)
    }

    /// The hash of a row that follows `previous`.
    pub fn next(&self, previous: &Hash, link: &Link<'_>) -> Hash {
        let numbers = [
            link.app.0,
            link.units.get(),
            link.total.get(),
            link.at.as_millis(),
        ]
        .map(i64::to_be_bytes);
        // In one piece: each further one costs as much as a block.
        let told = [
            previous.0.as_slice(),
            &link.seq.0.to_be_bytes(),
            &link.lane.0,
            numbers.as_flattened(),
            &[u8::from(link.time_proven)],
        ];
        hash_of(hmac::sign(&self.0, &told.concat()).as_ref())
    }

    /// The hash of a note that follows `previous`. It covers fewer bytes than a row's, so that neither
    /// can be taken for the other.
    pub fn next_note(
        &self,
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
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&previous.0);
        context.update(&seq.0.to_be_bytes());
        context.update(&finish(told).0);
        context.update(&at.as_millis().to_be_bytes());
        context.update(&[u8::from(time_proven)]);
        hash_of(context.sign().as_ref())
    }
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
    hash_of(context.finish().as_ref())
}

/// The first 8 bytes, as 16 hexadecimal digits.
fn first_digits(hash: &Hash) -> String {
    let number = hash.0.iter().take(8);
    let number = number.fold(0, |number, byte| number << 8 | u64::from(*byte));
    format!("{number:016x}")
}

fn hash_of(bytes: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(bytes);
    Hash(hash)
}
