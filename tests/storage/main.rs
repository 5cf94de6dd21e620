//! The ledger on a disk that loses power, fails and fills up, at every moment of its life: migration,
//! recording, sealing, settling, folding, checkpoints.

#![expect(
    clippy::unwrap_used,
    reason = "a bench that cannot be set up has failed"
)]

mod bench;
#[cfg(unix)]
mod copies;
mod desk;
mod errors;
mod power;
mod retention;
