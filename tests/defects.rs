//! Defects that other implementations are known for: a test for each, named after what is true here instead.
#![allow(clippy::cast_possible_truncation)] // the numbers of messages are small

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
