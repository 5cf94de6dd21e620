//! Writing a book's changes into the ledger, and reading a book back.

mod read;
mod write;

pub use self::{
    read::{find_prefix, high_water, load, load_clock},
    write::{app_no, write_changes, write_clock},
};

// What both sides call things in the ledger.

const CLOCK: &str = "clock";
const IDEMPOTENT: &str = "server_keeps_idempotency_keys";

const LIMIT: &str = "limit";
const UNDECIDABLE: &str = "undecidable";
const LATE: &str = "late";
const DEFECT: &str = "defect:";
