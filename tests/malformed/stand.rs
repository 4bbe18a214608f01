//! The test stand: a socket with one good peer, beside which bad peers do what they do.

use std::collections::HashSet;

use sinew::{DisconnectReason, Endpoint, Event, Monitor, PeerId, ProtocolError, PullSocket, PushSocket};

use crate::common::raw::{READY_PULL, READY_PUSH, Raw};
use crate::common::*;

/// How a connection came to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    HandshakeFailed(DisconnectReason),
    Disconnected(DisconnectReason),
}

/// A bound socket that bad peers talk to, and a good peer of it.
pub(crate) struct Stand {
    pub(crate) push: PushSocket,
    pub(crate) pull: PullSocket,
    pub(crate) endpoint: Endpoint,
    /// Of the bound socket.
    monitor: Monitor,
    good: PeerId,
    ended: HashSet<PeerId>,
    /// What a peer must say to be taken in.
    ready: &'static [u8],
    sent: u64,
}

impl Stand {
    /// Bad peers talk to a PULL.
    pub(crate) async fn pull(place: &Place, pull: PullSocket) -> Self {
        let push = new_push();
        let mut monitor = pull.monitor();
        let endpoint = within(pull.bind(place.wildcard())).await.unwrap();
        push.connect(&endpoint).unwrap();
        let good = succeeded(&mut monitor).await;
        Self { push, pull, endpoint, monitor, good, ended: HashSet::new(), ready: READY_PUSH, sent: 0 }
    }

    /// Bad peers talk to a PUSH.
    pub(crate) async fn push(place: &Place, push: PushSocket) -> Self {
        let pull = new_pull();
        let mut monitor = push.monitor();
        let endpoint = within(push.bind(place.wildcard())).await.unwrap();
        pull.connect(&endpoint).unwrap();
        let good = succeeded(&mut monitor).await;
        Self { push, pull, endpoint, monitor, good, ended: HashSet::new(), ready: READY_PULL, sent: 0 }
    }

    /// A connection that has said nothing yet.
    pub(crate) async fn dial(&self) -> Raw {
        Raw::dial(&self.endpoint).await
    }

    /// A peer that has behaved so far.
    pub(crate) async fn peer(&mut self) -> Raw {
        let raw = Raw::peer(&self.endpoint, self.ready).await;
        succeeded(&mut self.monitor).await;
        raw
    }

    /// How the next connection ends; it must not be the good one.
    pub(crate) async fn end(&mut self) -> End {
        let (peer, end) = wait_for(&mut self.monitor, |event| match event {
            Event::HandshakeFailed { peer, reason } => Some((peer.id, End::HandshakeFailed(reason))),
            Event::Disconnected { peer, reason, .. } => Some((peer.id, End::Disconnected(reason))),
            _ => None,
        })
        .await;
        assert_ne!(peer, self.good, "the good peer was lost: {end:?}");
        assert!(self.ended.insert(peer), "one connection ended twice");
        end
    }

    /// Sends these bytes on a new connection, which must fail in the handshake for this reason.
    pub(crate) async fn refuses(&mut self, what: &str, bytes: &[u8], reason: ProtocolError) -> Vec<u8> {
        let mut raw = self.dial().await;
        // The other side may close before it has seen everything.
        let _ = raw.try_send(bytes).await;
        assert_eq!(self.end().await, End::HandshakeFailed(DisconnectReason::Protocol(reason)), "{what}");
        raw.end().await
    }

    /// Sends these bytes as a peer in good standing, which must be cast out for this reason.
    pub(crate) async fn casts_out(&mut self, what: &str, bytes: &[u8], reason: ProtocolError) {
        let mut raw = self.peer().await;
        let _ = raw.try_send(bytes).await;
        assert_eq!(self.end().await, End::Disconnected(DisconnectReason::Protocol(reason)), "{what}");
        raw.end().await;
    }

    /// The good peer is served: what is sent now is what is received next, on a socket that has no other peer.
    pub(crate) async fn goes_on(&mut self) {
        for _ in 0..3 {
            let message = numbered(self.sent);
            within(self.push.send(message.clone())).await.unwrap();
            assert_eq!(within(self.pull.recv()).await.unwrap(), message, "something else was received");
            self.sent += 1;
        }
        assert_eq!((self.push.stats().peers, self.pull.stats().peers), (1, 1));
    }
}

async fn succeeded(monitor: &mut Monitor) -> PeerId {
    wait_for(monitor, |event| match event {
        Event::HandshakeSucceeded { peer, .. } => Some(peer.id),
        _ => None,
    })
    .await
}
