//! Malformed input: each kind costs its sender the connection, for its own reason, and nobody else anything.

mod common;

#[path = "malformed/commands.rs"]
mod commands;
#[path = "malformed/frames.rs"]
mod frames;
#[path = "malformed/handshake.rs"]
mod handshake;
#[path = "malformed/stand.rs"]
mod stand;
