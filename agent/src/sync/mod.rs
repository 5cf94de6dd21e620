//! Talking to the licence server: [`client`] makes one exchange, [`driver`] carries the core's orders
//! out and tells it what they came to.

pub mod client;
pub mod driver;
