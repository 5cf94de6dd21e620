//! Talking to the licence server: [`client`] makes one exchange, [`driver`] carries the core's orders
//! out and tells it what they came to; `spelling` keeps caches from answering readings.

pub mod client;
pub mod driver;
mod spelling;
