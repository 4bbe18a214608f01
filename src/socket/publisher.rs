//! What PUB and XPUB share: subscriptions come in, and each message goes out to those who have subscribed to it.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::pattern::{Incoming, Inward, Pattern, Reach, Unsent};
use crate::engine::peer::Peer;
use crate::engine::peers::small_spare;
use crate::engine::shared::Shared;
use crate::error::{ProtocolError, TrySendError};
use crate::message::Message;
use crate::monitor::{Event, PeerId};
use crate::options::{HighWaterMark, Options, SlowSubscriber};
use crate::routing::sieve::Mark;
use crate::routing::topics::{Change, Topics};
use crate::zmtp::encoder::{Batch, Part, Position};
use crate::zmtp::frame;
use crate::zmtp::run::Run;
use crate::zmtp::socket_type::SocketType;

/// One peer, as far as the messages go that are being routed.
#[derive(Debug, Default)]
struct Subscriber {
    /// Some of the batch that is being routed is for it.
    is_touched: bool,
    /// What of the batch it gets and has not been given: messages without a gap.
    part: Part,
    /// What is on its way to it, with that.
    messages: usize,
    payload: usize,
    /// What was dropped of the batch.
    dropped: usize,
    /// How much was dropped since it began to lose messages.
    losing: Option<u64>,
    /// Where it is among the slots, while it is connected.
    place: Option<usize>,
}

/// Matches messages with subscriptions; one that `REPORTS` tells its application of these, as an XPUB does.
#[derive(Debug, Default)]
pub(crate) struct Publisher<const REPORTS: bool> {
    topics: Topics,
    /// What the peers of a manual XPUB have asked for.
    requested: Topics,
    /// By slot.
    subscribers: Vec<Subscriber>,
    /// The slots of all peers.
    slots: Vec<usize>,
    /// The slots that get some of the batch that is being routed.
    touched: Vec<usize>,
    /// The slots that get the message that is being routed.
    matching: Vec<usize>,
    /// The subscriber without room for which everything waits.
    waits_for: Option<usize>,
    dismissed: Vec<usize>,
}

impl<const REPORTS: bool> Publisher<REPORTS> {
    // --- subscriptions ----------------------------------------------------------------------------------------------

    /// A peer subscribes or cancels.
    fn request(
        &mut self,
        slot: usize,
        subscribes: bool,
        prefix: &[u8],
        shared: &Shared,
        inward: &mut Vec<Inward>,
    ) -> Result<(), ProtocolError> {
        let options = &shared.options;
        let topics = if options.manual { &self.requested } else { &self.topics };
        if subscribes && !topics.holds(slot, prefix) {
            check_limits(topics.held_by(slot), prefix, options)?;
        }
        let change = if options.manual {
            change(&mut self.requested, slot, subscribes, prefix)
        } else {
            self.change(slot, subscribes, prefix, shared)
        };
        if REPORTS && is_reported(subscribes, change, options) {
            inward.push(Inward::Report(report(subscribes, prefix)));
        }
        Ok(())
    }

    /// The application of a manual XPUB subscribes a peer to a prefix, or no longer.
    pub(crate) fn apply(&mut self, peer: PeerId, subscribes: bool, prefix: &[u8], reach: &Reach<'_>) {
        let Some(slot) = self.slot_of(peer, reach) else {
            return;
        };
        self.change(slot, subscribes, prefix, reach.shared);
    }

    /// A peer gets messages with this prefix from now on, or no longer.
    fn change(&mut self, slot: usize, subscribes: bool, prefix: &[u8], shared: &Shared) -> Change {
        let change = change(&mut self.topics, slot, subscribes, prefix);
        match change {
            Change::None => return change,
            Change::Shared => {}
            Change::Sole(mark) => self.tell_sieve(mark, subscribes, shared),
        }
        self.resume(slot);
        shared.subscriptions_changed();
        change
    }

    /// The first peer has subscribed to a prefix, or the last one no longer.
    fn tell_sieve(&self, mark: Mark, subscribes: bool, shared: &Shared) {
        let is_worn = match subscribes {
            true => shared.outbound.add_wanted(mark),
            false => shared.outbound.remove_wanted(mark),
        };
        if is_worn {
            shared.outbound.renew_sieve(self.topics.words());
        }
    }

    /// What waits may not be for this subscriber any more, or there may be room for it now.
    fn resume(&mut self, slot: usize) {
        if self.waits_for == Some(slot) {
            self.waits_for = None;
        }
    }

    fn slot_of(&self, peer: PeerId, reach: &Reach<'_>) -> Option<usize> {
        let is_attached =
            |slot: &usize| self.subscribers.get(*slot).is_some_and(|subscriber| subscriber.place.is_some());
        reach.peers.slot_of(peer).filter(is_attached)
    }

    /// Sends a message to one peer alone.
    pub(crate) fn send_to(&self, peer: PeerId, message: Message, reach: &mut Reach<'_>) -> Result<(), TrySendError> {
        let Some(slot) = self.slot_of(peer, reach) else {
            return Err(TrySendError::NoPeer(message));
        };
        let mark = reach.shared.options.send;
        let sent = reach.peers.give(slot, |peer, spare| {
            let admits = peer.out.admits(mark, message.byte_len());
            if admits {
                peer.out.add(|tail| tail.push(&message), || small_spare(spare));
            }
            admits
        });
        if sent == Some(true) { Ok(()) } else { Err(TrySendError::Full(message)) }
    }

    /// How many peers would get a message with this topic.
    pub(crate) fn count_matching(&mut self, topic: &[u8], options: &Options) -> usize {
        self.find_matching(topic, options);
        self.matching.len()
    }

    /// Collects the slots that get a message with this topic.
    #[inline]
    fn find_matching(&mut self, topic: &[u8], options: &Options) {
        self.matching.clear();
        self.topics.matching(topic, |slot| self.matching.push(slot));
        if options.invert_matching {
            let others = self.slots.iter().filter(|slot| !self.topics.has_matched(**slot));
            self.matching.clear();
            self.matching.extend(others);
        }
    }

    // --- messages ---------------------------------------------------------------------------------------------------

    /// Gives each message of a batch to those who have subscribed to it, as far as they have room; says where it stopped, if
    /// something has to wait.
    fn distribute(&mut self, batch: &Arc<Batch>, reach: &mut Reach<'_>) -> Position {
        let options = &reach.shared.options;
        let mark = options.subscriber_mark();
        let mut unmatched = 0;
        let mut at = Position::default();
        while let Some(message) = batch.message_at(at) {
            self.find_matching(batch.first_frame(at).0, options);
            unmatched += usize::from(self.matching.is_empty());
            if options.slow_subscriber == SlowSubscriber::Wait {
                if let Some(full) = self.first_full(&message, mark, reach) {
                    self.waits_for = Some(full);
                    break;
                }
            }
            for index in 0..self.matching.len() {
                self.add(self.matching[index], &message, mark, batch, reach);
            }
            at = message.end;
        }
        reach.shared.counters.messages_unmatched.add(unmatched);
        at
    }

    /// The first of those who get a message that has no room for it.
    fn first_full(&mut self, message: &Part, mark: HighWaterMark, reach: &mut Reach<'_>) -> Option<usize> {
        for index in 0..self.matching.len() {
            let slot = self.matching[index];
            self.touch(slot, reach);
            let subscriber = &self.subscribers[slot];
            if !mark.admits(subscriber.messages, subscriber.payload, message.payload) {
                return Some(slot);
            }
        }
        None
    }

    /// Looks how much is on its way to a subscriber, when the first message of a batch is for it.
    #[inline]
    fn touch(&mut self, slot: usize, reach: &mut Reach<'_>) {
        let subscriber = &mut self.subscribers[slot];
        if !subscriber.is_touched {
            subscriber.is_touched = true;
            (subscriber.messages, subscriber.payload) =
                reach.peers.get_mut(slot).map_or((0, 0), |peer| peer.out.depth());
            self.touched.push(slot);
        }
    }

    /// Adds a message to what a subscriber gets, if there is room or something older makes room.
    #[inline]
    fn add(&mut self, slot: usize, message: &Part, mark: HighWaterMark, batch: &Arc<Batch>, reach: &mut Reach<'_>) {
        self.touch(slot, reach);
        let policy = reach.shared.options.slow_subscriber;
        let subscriber = &mut self.subscribers[slot];
        if !policy.drops_older() && !mark.admits(subscriber.messages, subscriber.payload, message.payload) {
            subscriber.dropped += 1;
            if policy == SlowSubscriber::Disconnect && subscriber.dropped == 1 {
                self.dismissed.push(slot);
            }
            return;
        }
        subscriber.messages += 1;
        subscriber.payload += message.payload;
        if subscriber.part.end == message.start && subscriber.part.messages > 0 {
            subscriber.part.extend(message);
        } else {
            self.give(slot, batch, reach);
            self.subscribers[slot].part = *message;
        }
    }

    /// Gives a subscriber what was collected for it.
    fn give(&mut self, slot: usize, batch: &Arc<Batch>, reach: &mut Reach<'_>) {
        let part = std::mem::take(&mut self.subscribers[slot].part);
        if part.messages > 0 {
            reach.peers.give(slot, |peer, spare| {
                peer.out.share(batch, &part, || small_spare(spare));
            });
        }
    }

    /// All of the batch goes to the same subscribers, and they have room for it: there is no need to look at its messages.
    fn distribute_whole(&mut self, batch: &Arc<Batch>, reach: &mut Reach<'_>) -> bool {
        let options = &reach.shared.options;
        if !self.topics.is_flat() {
            return false;
        }
        self.find_matching(b"", options);
        let (mark, whole) = (options.subscriber_mark(), batch.whole());
        let has_room = |slot: &usize| {
            let exceeds = |peer: &mut Peer| peer.out.would_exceed(mark, whole.messages, whole.payload);
            options.slow_subscriber.drops_older() || !reach.peers.get_mut(*slot).is_some_and(exceeds)
        };
        if !self.matching.iter().all(has_room) {
            return false;
        }
        if self.matching.is_empty() {
            reach.shared.counters.messages_unmatched.add(whole.messages);
        }
        for index in 0..self.matching.len() {
            let slot = self.matching[index];
            self.touch(slot, reach);
            self.subscribers[slot].part = whole;
        }
        true
    }

    /// Gives everybody the rest, drops what is too old, and says who loses messages.
    fn finish(&mut self, batch: &Arc<Batch>, reach: &mut Reach<'_>) {
        let options = &reach.shared.options;
        let mark = options.subscriber_mark();
        let mut touched = std::mem::take(&mut self.touched);
        for slot in touched.drain(..) {
            self.give(slot, batch, reach);
            let subscriber = &mut self.subscribers[slot];
            subscriber.is_touched = false;
            let mut dropped = std::mem::take(&mut subscriber.dropped);
            let Some(peer) = reach.peers.get_mut(slot) else {
                continue;
            };
            if options.slow_subscriber.drops_older() {
                dropped += drop_older(peer, mark, options.slow_subscriber);
            }
            if dropped == 0 {
                continue;
            }
            peer.counts.dropped += dropped as u64;
            reach.shared.counters.messages_dropped_slow.add(dropped);
            if options.slow_subscriber == SlowSubscriber::KeepLatest {
                // This is what it is for.
                continue;
            }
            if subscriber.losing.is_none() {
                tracing::debug!(parent: &peer.span, "a subscriber loses messages");
                reach.shared.reporter.report(|| Event::LosingBegan { peer: peer.about.as_ref().clone() });
            }
            *subscriber.losing.get_or_insert(0) += dropped as u64;
        }
        self.touched = touched;
    }
}

fn change(topics: &mut Topics, slot: usize, subscribes: bool, prefix: &[u8]) -> Change {
    if subscribes { topics.subscribe(slot, prefix) } else { topics.cancel(slot, prefix) }
}

/// Drops what is older than the mark allows.
fn drop_older(peer: &mut Peer, mark: HighWaterMark, policy: SlowSubscriber) -> usize {
    // One that has been begun cannot be taken back, and the newest one is never the one to go.
    let kept = 1 + usize::from(!peer.out.is_between());
    if policy == SlowSubscriber::KeepLatest {
        return peer.out.drop_oldest(|messages, _| messages <= kept);
    }
    peer.out.drop_oldest(|messages, payload| {
        let fits = (mark.messages == 0 || messages <= mark.messages) && (mark.bytes == 0 || payload <= mark.bytes);
        fits || messages <= kept
    })
}

fn check_limits((count, bytes): (usize, usize), prefix: &[u8], options: &Options) -> Result<(), ProtocolError> {
    if prefix.len() > options.max_topic_length {
        return Err(ProtocolError::TopicTooLong { size: prefix.len(), limit: options.max_topic_length });
    }
    if count >= options.max_subscriptions {
        return Err(ProtocolError::TooManySubscriptions { limit: options.max_subscriptions });
    }
    if bytes + prefix.len() > options.max_subscription_bytes {
        return Err(ProtocolError::SubscriptionsTooLarge { limit: options.max_subscription_bytes });
    }
    Ok(())
}

/// Whether an XPUB's application is told of a request.
fn is_reported(subscribes: bool, change: Change, options: &Options) -> bool {
    let asked = if subscribes { options.verbose } else { options.verboser };
    matches!(change, Change::Sole(_)) || options.manual || options.verboser || asked
}

/// A request as the message that an XPUB receives.
fn report(subscribes: bool, prefix: &[u8]) -> Run {
    let mut wire = Vec::with_capacity(prefix.len() + 10);
    frame::write_header(&mut wire, 0, 1 + prefix.len());
    wire.push(u8::from(subscribes));
    wire.extend_from_slice(prefix);
    Run::packed(Bytes::from(wire), 1, 1 + prefix.len())
}

impl<const REPORTS: bool> Pattern for Publisher<REPORTS> {
    const SOCKET_TYPE: SocketType = if REPORTS { SocketType::XPub } else { SocketType::Pub };
    const UNSENT: Unsent = Unsent::Drop;
    const ORDERED: bool = REPORTS;

    fn attach(&mut self, slot: usize, reach: Reach<'_>) {
        if slot >= self.subscribers.len() {
            self.subscribers.resize_with(slot + 1, Subscriber::default);
        }
        self.subscribers[slot] = Subscriber { place: Some(self.slots.len()), ..Subscriber::default() };
        self.slots.push(slot);
        if let Some(welcome) = &reach.shared.options.welcome {
            let push = |batch: &mut Batch| batch.push(welcome);
            reach.peers.give(slot, |peer, _| peer.out.add(push, Batch::default));
        }
        if reach.shared.options.invert_matching {
            // A message that nothing matches is for it from now on.
            reach.shared.subscriptions_changed();
        }
    }

    fn detach(&mut self, slot: usize, reach: Reach<'_>, inward: &mut Vec<Inward>) {
        if let Some(place) = self.subscribers[slot].place.take() {
            self.slots.swap_remove(place);
            if let Some(moved) = self.slots.get(place) {
                self.subscribers[*moved].place = Some(place);
            }
        }
        self.dismissed.retain(|other| *other != slot);
        self.resume(slot);
        let options = &reach.shared.options;
        let mut tell = |prefix: &dyn Fn() -> Vec<u8>, change: Change| {
            if REPORTS && is_reported(false, change, options) {
                inward.push(Inward::Report(report(false, &prefix())));
            }
        };
        if options.manual {
            self.requested.remove(slot, &mut tell);
        }
        let mut is_worn = false;
        self.topics.remove(slot, |prefix, change| {
            if let Change::Sole(mark) = change {
                is_worn |= reach.shared.outbound.remove_wanted(mark);
            }
            if !options.manual {
                tell(prefix, change);
            }
        });
        if is_worn {
            reach.shared.outbound.renew_sieve(self.topics.words());
        }
        reach.shared.subscriptions_changed();
    }

    fn written(&mut self, slot: usize, peer: &mut Peer, shared: &Shared) {
        self.resume(slot);
        let Some(subscriber) = self.subscribers.get_mut(slot) else {
            return;
        };
        if subscriber.losing.is_none() {
            return;
        }
        let (messages, payload) = peer.out.depth();
        if shared.options.send.has_eased(messages, payload) {
            let dropped = subscriber.losing.take().unwrap_or(0);
            tracing::debug!(parent: &peer.span, dropped, "a subscriber has caught up");
            shared.reporter.report(|| Event::LosingEnded { peer: peer.about.as_ref().clone(), dropped });
        }
    }

    fn has_room(&self) -> bool {
        self.waits_for.is_none()
    }

    fn route(&mut self, batch: Batch, mut reach: Reach<'_>) -> Option<Batch> {
        if self.slots.is_empty() {
            reach.shared.counters.messages_unmatched.add(batch.messages());
            let mut batch = batch;
            batch.clear();
            return Some(batch);
        }
        let batch = Arc::new(batch);
        let mut routed = batch.end();
        if !self.distribute_whole(&batch, &mut reach) {
            routed = self.distribute(&batch, &mut reach);
        }
        self.finish(&batch, &mut reach);
        if routed != batch.end() {
            return Some(batch.rest_from(routed));
        }
        let mut spare = Arc::into_inner(batch)?;
        spare.clear();
        Some(spare)
    }

    fn subscriptions(&self, slot: usize) -> usize {
        self.topics.held_by(slot).0
    }

    fn is_losing(&self, slot: usize) -> bool {
        self.subscribers.get(slot).is_some_and(|subscriber| subscriber.losing.is_some())
    }

    fn dismissed(&mut self) -> Option<usize> {
        self.dismissed.pop()
    }

    fn receive(
        &mut self,
        slot: usize,
        incoming: Incoming,
        reach: Reach<'_>,
        inward: &mut Vec<Inward>,
    ) -> Result<(), ProtocolError> {
        let mut run = match incoming {
            Incoming::Subscribe(prefix) => return self.request(slot, true, &prefix, reach.shared, inward),
            Incoming::Cancel(prefix) => return self.request(slot, false, &prefix, reach.shared, inward),
            Incoming::Run(run) => run,
        };
        // From peers of older versions subscriptions come as messages, and from any that like it so.
        let mut message = Message::default();
        while run.next_into(&mut message) {
            let is_request = message.frame_count() == 1 && matches!(message[0].first(), Some(0 | 1));
            // A PUB has no use for anything else, but has looked at each frame.
            if let Some(peer) = reach.peers.get_mut(slot).filter(|_| is_request || !REPORTS) {
                peer.count_commands(message.frame_count(), &reach.shared.options, true)?;
            }
            match (message.frame_count(), &message[0][..]) {
                (1, [1, prefix @ ..]) => self.request(slot, true, prefix, reach.shared, inward)?,
                (1, [0, prefix @ ..]) => self.request(slot, false, prefix, reach.shared, inward)?,
                _ if REPORTS => inward.push(Inward::Messages(Run::compact(std::mem::take(&mut message)))),
                _ => reach.shared.counters.messages_refused.add(1),
            }
        }
        Ok(())
    }
}

/// The builder's options of publishers.
macro_rules! publisher_options {
    () => {
        /// What becomes of messages for a subscriber whose queue is at a high-water mark. Default:
        /// [`SlowSubscriber::DropNewest`](crate::SlowSubscriber::DropNewest).
        pub fn slow_subscriber(mut self, policy: $crate::options::SlowSubscriber) -> Self {
            self.options.slow_subscriber = policy;
            self
        }

        /// Sends a message to those peers that have *not* subscribed to it. SUB peers must be told the same
        /// ([`SubBuilder::invert_matching`](crate::SubBuilder::invert_matching)). Default: off.
        pub fn invert_matching(mut self, invert: bool) -> Self {
            self.options.invert_matching = invert;
            self
        }

        /// The longest prefix that a peer may subscribe to, in bytes. Default: 4,096. A peer that goes beyond this or one
        /// of the following limits loses its connection.
        pub fn max_topic_length(mut self, bytes: usize) -> Self {
            self.options.max_topic_length = bytes;
            self
        }

        /// How many prefixes each peer may have subscribed to at a time. Default: 250,000.
        pub fn max_subscriptions(mut self, count: usize) -> Self {
            self.options.max_subscriptions = count;
            self
        }

        /// How long the prefixes that each peer has subscribed to may be together, in bytes. Default: 32 MiB.
        pub fn max_subscription_bytes(mut self, bytes: usize) -> Self {
            self.options.max_subscription_bytes = bytes;
            self
        }
    };
}

/// The methods of publishers, around the fields `core: Arc<Core>` and `engine: Arc<Mutex<Engine<Publisher<_>>>>`.
macro_rules! publisher_methods {
    () => {
        /// Waits until at least `count` peers would get a message whose first frame is `topic`.
        ///
        /// What is sent after this has returned reaches them: the recipe for a first message that is never lost is to
        /// subscribe, connect, wait here, and then send.
        ///
        /// # Errors
        ///
        /// [`WaitError::Closed`](crate::WaitError::Closed) if the socket is or gets closed.
        ///
        /// # Cancel safety
        ///
        /// Waiting changes nothing.
        pub async fn wait_subscribed(
            &self,
            topic: impl AsRef<[u8]>,
            count: usize,
        ) -> Result<(), $crate::error::WaitError> {
            let topic = topic.as_ref();
            let is_reached = || {
                $crate::engine::drive::consult(&self.engine, |publisher, reach| {
                    publisher.count_matching(topic, &reach.shared.options) >= count
                })
            };
            self.core.wait_for_subscriptions(is_reached).await
        }
    };
}

pub(crate) use {publisher_methods, publisher_options};
