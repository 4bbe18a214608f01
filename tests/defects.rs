//! Defects that other implementations are known for: a test for each, named after what is true here instead.
#![allow(clippy::cast_possible_truncation)] // the numbers of messages are small

mod common;

#[path = "defects/celerity.rs"]
mod celerity;
#[path = "defects/libzmq.rs"]
mod libzmq;
#[path = "defects/monocoque.rs"]
mod monocoque;
#[path = "defects/omq.rs"]
mod omq;
#[path = "defects/rzmq.rs"]
mod rzmq;
#[path = "defects/stand.rs"]
mod stand;
#[path = "defects/zeromq.rs"]
mod zeromq;
