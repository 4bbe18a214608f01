//! The seam between the engine and the socket types: a pattern says where a message goes, never how.

use bytes::Bytes;

use crate::engine::peer::Peer;
use crate::engine::peers::Peers;
use crate::engine::shared::Shared;
use crate::error::ProtocolError;
use crate::zmtp::encoder::Batch;
use crate::zmtp::run::Run;
use crate::zmtp::socket_type::SocketType;

/// What becomes of the messages that a peer had not been sent when it was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsent {
    /// They go back to the FIFO, for other peers.
    Return,
    /// They were for this peer alone: they are counted as dropped.
    Drop,
    /// They were no messages of the user's.
    Forget,
}

/// What a peer has sent.
#[derive(Debug)]
pub(crate) enum Incoming {
    Run(Run),
    /// It wants messages whose topic begins like this.
    Subscribe(Bytes),
    /// It no longer wants them.
    Cancel(Bytes),
}

/// What is for the user.
#[derive(Debug)]
pub(crate) enum Inward {
    /// Messages that a peer has sent.
    Messages(Run),
    /// What the pattern has to tell of a peer.
    Report(Run),
}

/// What a pattern may reach of its engine.
#[derive(Debug)]
pub(crate) struct Reach<'a> {
    pub(crate) peers: &'a mut Peers,
    pub(crate) shared: &'a Shared,
}

/// A socket type's policy. Called by the engine alone, so it needs no locks of its own and must not wait.
pub(crate) trait Pattern: std::fmt::Debug + Default + Send + 'static {
    /// What the handshake says.
    const SOCKET_TYPE: SocketType;
    const UNSENT: Unsent;
    /// What comes from all peers is one history: the user gets it in the order in which it came, not in fair turns.
    const ORDERED: bool = false;

    /// A peer has finished the handshake.
    fn attach(&mut self, slot: usize, reach: Reach<'_>);

    /// A peer has gone; `inward` takes what the user is told of it.
    fn detach(&mut self, slot: usize, reach: Reach<'_>, inward: &mut Vec<Inward>);

    /// A peer has no room for more messages.
    fn full(&mut self, _slot: usize) {}

    /// A peer that was full has room again.
    fn writable(&mut self, _slot: usize) {}

    /// Some of what a peer was given has been written.
    fn written(&mut self, _slot: usize, _peer: &mut Peer, _shared: &Shared) {}

    /// Whether a message could go somewhere now.
    fn has_room(&self) -> bool;

    /// Sends the batch's messages on their ways; gives back those that cannot go yet, or the emptied batch for its buffer.
    fn route(&mut self, batch: Batch, reach: Reach<'_>) -> Option<Batch>;

    /// A peer that is to be disconnected because it is too slow.
    fn dismissed(&mut self) -> Option<usize> {
        None
    }

    /// A peer has sent something; `inward` takes what of it is for the user. An error ends its connection.
    fn receive(
        &mut self,
        slot: usize,
        incoming: Incoming,
        reach: Reach<'_>,
        inward: &mut Vec<Inward>,
    ) -> Result<(), ProtocolError>;

    /// How many prefixes a peer has subscribed to.
    fn subscriptions(&self, _slot: usize) -> usize {
        0
    }

    /// Whether messages for a peer are being dropped because it is too slow.
    fn is_losing(&self, _slot: usize) -> bool {
        false
    }

    /// Does what the handles have asked of the pattern since.
    fn obey(&mut self, _reach: Reach<'_>) {}
}
