//! What the parts of the hot path cost, one by one; docs/performance.md says how to run it.
//!
//! [`requests`] is what each request and its answer pay for, [`ledger`] what the ledger does for many.

#![expect(
    clippy::unwrap_used,
    reason = "a part that fails has nothing to measure"
)]

mod ledger;
mod requests;

fn main() {
    divan::main();
}
