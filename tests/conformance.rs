//! Conformance: one suite of behaviours that runs over every transport, on one thread and on several.
#![allow(clippy::cast_possible_truncation)] // the numbers of messages are small

mod common;

/// Makes tests of behaviours, `async fn(Place)`: over each transport, on each kind of runtime.
macro_rules! behaviours {
    ($($name:ident),+ $(,)?) => {
        mod tcp { $($crate::behaviour!($name, Tcp);)+ }
        mod ipc { $($crate::behaviour!($name, Ipc);)+ }
    };
}

macro_rules! behaviour {
    ($name:ident, $transport:ident) => {
        mod $name {
            use crate::common::{Place, Transport};

            #[tokio::test]
            async fn on_one_thread() {
                super::super::$name(Place::new(Transport::$transport)).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_several_threads() {
                super::super::$name(Place::new(Transport::$transport)).await;
            }
        }
    };
}

use {behaviour, behaviours};

#[path = "conformance/cancel.rs"]
mod cancel;
#[path = "conformance/closing.rs"]
mod closing;
#[path = "conformance/conflate.rs"]
mod conflate;
#[path = "conformance/endpoints.rs"]
mod endpoints;
#[path = "conformance/events.rs"]
mod events;
#[path = "conformance/fan_out.rs"]
mod fan_out;
#[path = "conformance/heartbeats.rs"]
mod heartbeats;
#[path = "conformance/marks.rs"]
mod marks;
#[path = "conformance/pressure.rs"]
mod pressure;
#[path = "conformance/proxy.rs"]
mod proxy;
#[path = "conformance/publish.rs"]
mod publish;
#[path = "conformance/restarts.rs"]
mod restarts;
#[path = "conformance/routing.rs"]
mod routing;
#[path = "conformance/runtimes.rs"]
mod runtimes;
#[path = "conformance/slow_subscribers.rs"]
mod slow_subscribers;
#[path = "conformance/subscribe.rs"]
mod subscribe;
#[path = "conformance/subscription_wire.rs"]
mod subscription_wire;
#[path = "conformance/tasks.rs"]
mod tasks;
#[path = "conformance/unfinished.rs"]
mod unfinished;
#[path = "conformance/xpub.rs"]
mod xpub;
#[path = "conformance/xpub_manual.rs"]
mod xpub_manual;
#[path = "conformance/xsub.rs"]
mod xsub;
