//! Attacks on a running agent over real sockets: what a web page, another user or another program of the
//! device, or a caller with a right key, can try. After each the agent still answers, has recorded what
//! it should and nothing else, and has not grown.

mod administration;
mod bodies;
mod browser;
mod control;
mod crowds;
mod files;
mod load;
mod owners;
mod paths;
mod raw;
mod rights;
mod secrets;
mod service_user;
mod signatures;
mod target;
mod text;
mod tls;
mod wire;
