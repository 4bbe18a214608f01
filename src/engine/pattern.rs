//! The seam between the engine and the socket types: a pattern says where a message goes, never how.

use crate::engine::peers::Peers;
use crate::zmtp::encoder::Batch;
use crate::zmtp::socket_type::SocketType;

/// A socket type's policy. Called by the engine alone, so it needs no locks and must not wait.
pub(crate) trait Pattern: std::fmt::Debug + Default + Send + 'static {
    /// What the handshake says.
    const SOCKET_TYPE: SocketType;
    /// Whether messages from peers are for the user; if not they are counted and dropped.
    const RECEIVES: bool;

    /// A peer has finished the handshake.
    fn attach(&mut self, slot: usize);

    /// A peer has gone.
    fn detach(&mut self, slot: usize);

    /// A peer has no room for more messages.
    fn full(&mut self, slot: usize);

    /// A peer that was full has room again.
    fn writable(&mut self, slot: usize);

    /// Whether a message could go somewhere now.
    fn has_room(&self) -> bool;

    /// Sends the batch's messages on their ways; gives back those for which no peer has room, or the emptied batch for its
    /// buffer.
    fn route(&mut self, batch: Batch, peers: &mut Peers) -> Option<Batch>;
}
