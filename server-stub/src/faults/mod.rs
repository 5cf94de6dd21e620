//! Breaking the network on purpose: [`plan`] decides which fault fires, [`cut`] breaks connections.

pub mod cut;
pub mod plan;
