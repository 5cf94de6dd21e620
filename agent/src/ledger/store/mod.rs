//! Writing a book's changes into the ledger, and reading a book back.

mod read;
mod write;

pub use self::{
    read::{Placed, chain_key, find_prefix, generation, hash_at, high_water, load, load_clock},
    write::{
        app_no, pages_of, pages_of_rows, seal_accounts, write_chain_key, write_changes,
        write_clock, write_generation,
    },
};
pub(in crate::ledger) use self::{
    read::{fact, hold},
    write::write_fact,
};

// What both sides call things in the ledger.

const CHAIN_KEY: &str = "chain_key";
const CLOCK: &str = "clock";
pub(in crate::ledger) const INSTANCE: &str = "instance";
pub(in crate::ledger) const GENERATION: &str = "generation";
const KEEPER: &str = "keeps_idempotency_keys";
const LEDGER_ID: &str = "ledger_id";
const SERVER: &str = "server";

const LIMIT: &str = "limit";
const UNDECIDABLE: &str = "undecidable";
const LATE: &str = "late";
const DEFECT: &str = "defect:";
const GONE: &str = "gone:";
const COPY: &str = "copy";

/// A stale total of which nobody knows what it holds; one that is only old is 1.
const UNSURE: i64 = 2;
