//! The part of a crowd: bare peers that are there and wait, each of which has one word to send or to receive in the end.

use std::sync::Arc;

use futures::FutureExt;
use sinew::Endpoint;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::common::raise_descriptor_limit;
use crate::common::raw::*;
use crate::process::{Process, given, told_to_end};

/// The part that peers play which may send to a PULL.
pub(crate) const SENDERS: &str = "senders";
/// The part that peers play which have subscribed to one topic each.
pub(crate) const SUBSCRIBERS: &str = "subscribers";

const ENDPOINT: &str = "SINEW_FAULT_ENDPOINT";
const SIZE: &str = "SINEW_FAULT_SIZE";

/// A process with so many peers.
pub(crate) struct Crowd(Process);

impl Crowd {
    pub(crate) fn start(part: &str, endpoint: &Endpoint, size: usize) -> Self {
        let (endpoint, size) = (endpoint.to_string(), size.to_string());
        Self(Process::start(part, &[(ENDPOINT, endpoint.as_ref()), (SIZE, size.as_ref())]))
    }

    /// Lets each send its word, or look for it, and then wait for the end of its connection.
    pub(crate) fn go_ahead(&mut self) {
        self.0.tell_to_end();
    }

    /// Waits until all connections have ended as they should.
    pub(crate) async fn gone(mut self) {
        assert!(self.0.ended().await.success(), "a peer missed something");
    }
}

/// The word of each peer, which is its topic as well; none is the beginning of another one.
pub(crate) fn word(number: usize) -> String {
    format!("{number:05}")
}

/// So many connect at one time: fewer than a backlog has room for.
const AT_ONCE: usize = 100;

/// Connects all peers, and plays the part.
pub(crate) async fn stand(subscribe: bool) {
    raise_descriptor_limit();
    let (endpoint, size): (Endpoint, usize) = (given(ENDPOINT).parse().unwrap(), given(SIZE).parse().unwrap());
    let (turns, told) = (Arc::new(Semaphore::new(AT_ONCE)), told_to_end().shared());
    let mut peers = JoinSet::new();
    for number in 0..size {
        let turn = turns.clone().acquire_owned().await.unwrap();
        let (endpoint, told) = (endpoint.clone(), told.clone());
        peers.spawn(async move {
            let raw = come(&endpoint, number, subscribe).await;
            drop(turn);
            // For as long as whoever started this process lets them.
            told.await;
            stay(raw, number, subscribe).await;
        });
    }
    while let Some(stayed) = peers.join_next().await {
        stayed.unwrap();
    }
}

async fn come(endpoint: &Endpoint, number: usize, subscribe: bool) -> Raw {
    let mut raw = Raw::peer(endpoint, if subscribe { READY_SUB } else { READY_PUSH }).await;
    if subscribe {
        raw.send(&subscribe_command(word(number).as_bytes())).await;
    }
    raw
}

async fn stay(mut raw: Raw, number: usize, subscribe: bool) {
    let word = word(number).into_bytes();
    if subscribe {
        assert_eq!(raw.message().await, Some(vec![word]));
    } else {
        raw.send(&frame(0, &word)).await;
    }
    assert_eq!(raw.frame().await, None);
}
