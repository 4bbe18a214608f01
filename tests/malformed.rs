//! Malformed input: each kind costs its sender the connection, for its own reason, and nobody else anything.

mod common;

/// Makes tests of behaviours, `async fn(Place)`, over each transport.
macro_rules! over_each_transport {
    ($($name:ident),+ $(,)?) => {
        mod tcp { $($crate::over_one_transport!($name, Tcp);)+ }
        mod ipc { $($crate::over_one_transport!($name, Ipc);)+ }
    };
}

macro_rules! over_one_transport {
    ($name:ident, $transport:ident) => {
        #[tokio::test]
        async fn $name() {
            use crate::common::{Place, Transport};
            super::$name(Place::new(Transport::$transport)).await;
        }
    };
}

use {over_each_transport, over_one_transport};

#[path = "malformed/commands.rs"]
mod commands;
#[path = "malformed/frames.rs"]
mod frames;
#[path = "malformed/handshake.rs"]
mod handshake;
#[path = "malformed/stand.rs"]
mod stand;
