//! What a SUB or XSUB has subscribed to: a state, not messages. Every publisher is told all of it when it is connected, and
//! what changes from then on; no high-water mark limits either.

use std::collections::HashMap;

use bytes::Bytes;

use crate::engine::pattern::Reach;
use crate::engine::peer::Peer;
use crate::message::Message;
use crate::routing::prefixes::{PrefixTree, Value};
use crate::sync::{AtomicBool, Mutex, Ordering, lock};
use crate::zmtp::command;
use crate::zmtp::encoder::Batch;

/// How often a prefix has been subscribed to.
#[derive(Debug, Default)]
struct Count(usize);

impl Value for Count {
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

/// What publishers are to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Request {
    Subscribe(Bytes),
    Cancel(Bytes),
}

#[derive(Debug, Default)]
struct State {
    prefixes: PrefixTree<Count>,
    /// What the publishers that are connected have not been told yet.
    news: Vec<Request>,
    /// Whether any are.
    has_listeners: bool,
}

/// The subscriptions of one socket, shared by its handles and its engine.
#[derive(Debug, Default)]
pub(crate) struct Subscriptions {
    state: Mutex<State>,
    /// A message matches when nothing has subscribed to it.
    is_inverted: bool,
    /// Publishers are told of every cancellation, not only of the last one.
    is_verbose: bool,
    /// Every message passes: there is no need to look.
    everything: AtomicBool,
    has_news: AtomicBool,
}

impl Subscriptions {
    pub(crate) fn new(is_inverted: bool) -> Self {
        Self { is_inverted, ..Self::default() }
    }

    pub(crate) fn verbose(is_verbose: bool) -> Self {
        Self { is_verbose, ..Self::default() }
    }

    /// Subscribes once more; `true` if the engine has something to tell the publishers.
    pub(crate) fn subscribe(&self, prefix: &[u8]) -> bool {
        let mut state = lock(&self.state);
        let id = state.prefixes.insert(prefix);
        state.prefixes.value_mut(id).0 += 1;
        self.settle(&mut state, prefix);
        // Publishers are told each time, as libzmq does: an XPUB may want to know.
        self.tell(&mut state, Request::Subscribe(Bytes::copy_from_slice(prefix)))
    }

    /// Takes one subscription back; `true` if the engine has something to tell the publishers: only the last one counts.
    pub(crate) fn unsubscribe(&self, prefix: &[u8]) -> bool {
        let mut state = lock(&self.state);
        let Some(id) = state.prefixes.find(prefix) else {
            return self.is_verbose && self.tell(&mut state, Request::Cancel(Bytes::copy_from_slice(prefix)));
        };
        let count = state.prefixes.value_mut(id);
        count.0 -= 1;
        if count.0 > 0 && !self.is_verbose {
            return false;
        }
        state.prefixes.prune(id);
        self.settle(&mut state, prefix);
        self.tell(&mut state, Request::Cancel(Bytes::copy_from_slice(prefix)))
    }

    fn settle(&self, state: &mut State, prefix: &[u8]) {
        if prefix.is_empty() && !self.is_inverted {
            self.everything.store(state.prefixes.find(b"").is_some(), Ordering::Release);
        }
    }

    fn tell(&self, state: &mut State, request: Request) -> bool {
        if state.has_listeners {
            state.news.push(request);
            self.has_news.store(true, Ordering::Release);
        }
        state.has_listeners
    }

    /// Whether a message with this topic is wanted.
    #[inline]
    pub(crate) fn admit(&self, topic: &[u8]) -> bool {
        self.everything.load(Ordering::Acquire) || self.admit_slowly(topic)
    }

    fn admit_slowly(&self, topic: &[u8]) -> bool {
        let mut matches = false;
        lock(&self.state).prefixes.walk(topic, |_| matches = true);
        matches != self.is_inverted
    }

    /// What the publishers have not been told yet.
    pub(crate) fn take_news(&self) -> Vec<Request> {
        if !self.has_news.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut state = lock(&self.state);
        self.has_news.store(false, Ordering::Release);
        std::mem::take(&mut state.news)
    }

    /// Everything, for a publisher that is connected now. What changes from now on is news.
    fn tell_all(&self, peer: &mut Peer) {
        let mut state = lock(&self.state);
        state.has_listeners = true;
        let ids: Vec<_> = state.prefixes.iter().collect();
        let requests = ids.into_iter().map(|id| Request::Subscribe(state.prefixes.prefix(id).into()));
        tell(peer, requests);
    }

    /// Nobody is connected any more.
    fn rest(&self) {
        let mut state = lock(&self.state);
        state.has_listeners = false;
        state.news.clear();
    }
}

/// Sends requests to a publisher, in the form that its version understands.
fn tell(peer: &mut Peer, requests: impl IntoIterator<Item = Request>) {
    let is_current = peer.connection.is_current();
    let write = |batch: &mut Batch| requests.into_iter().for_each(|request| encode(&request, is_current, batch));
    peer.out.add(write, Batch::default);
}

/// As a command (RFC 37, "SUBSCRIBE and CANCEL") or, for 3.0, as a message (RFC 29).
fn encode(request: &Request, is_current: bool, batch: &mut Batch) {
    let (name, first, prefix) = match request {
        Request::Subscribe(prefix) => (command::SUBSCRIBE, 1, prefix),
        Request::Cancel(prefix) => (command::CANCEL, 0, prefix),
    };
    if is_current {
        batch.push_command(name, prefix);
    } else {
        batch.push(&Message::from([&[first], &prefix[..]].concat()));
    }
}

/// A publisher that leaves so many bytes of requests unread is given up: when it is connected again it is told what holds
/// then, which is less.
const BACKLOG_MAXIMUM: usize = 64 * 1024 * 1024;

/// The publishers that are connected: the engine's side.
#[derive(Debug, Default)]
pub(crate) struct Publishers {
    slots: Vec<usize>,
    /// How much each of them had to be told when it was connected, in bytes.
    told: HashMap<usize, usize>,
    /// Those that do not read what they are told.
    dismissed: Vec<usize>,
}

impl Publishers {
    pub(crate) fn slots(&self) -> &[usize] {
        &self.slots
    }

    /// A publisher has been connected: it is told everything.
    pub(crate) fn join(&mut self, slot: usize, subscriptions: &Subscriptions, mut reach: Reach<'_>) {
        self.tell_news(subscriptions, &mut reach);
        self.slots.push(slot);
        let told = reach.peers.give(slot, |peer, _| {
            subscriptions.tell_all(peer);
            peer.out.pending()
        });
        self.told.insert(slot, told.unwrap_or(0));
    }

    pub(crate) fn leave(&mut self, slot: usize, subscriptions: &Subscriptions) {
        self.slots.retain(|other| *other != slot);
        self.dismissed.retain(|other| *other != slot);
        self.told.remove(&slot);
        if self.slots.is_empty() {
            subscriptions.rest();
        }
    }

    /// Tells all of them what has changed.
    pub(crate) fn tell_news(&mut self, subscriptions: &Subscriptions, reach: &mut Reach<'_>) {
        let news = subscriptions.take_news();
        if news.is_empty() {
            return;
        }
        for slot in &self.slots {
            let pending = reach.peers.give(*slot, |peer, _| {
                tell(peer, news.iter().cloned());
                peer.out.pending()
            });
            let allowed = BACKLOG_MAXIMUM.saturating_add(self.told.get(slot).copied().unwrap_or(0));
            if pending.is_some_and(|pending| pending > allowed) && !self.dismissed.contains(slot) {
                self.dismissed.push(*slot);
            }
        }
    }

    /// A publisher that does not read what it is told.
    pub(crate) fn dismissed(&mut self) -> Option<usize> {
        self.dismissed.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_counted_and_effective_at_once() {
        let subscriptions = Subscriptions::new(false);
        subscriptions.subscribe(b"a");
        subscriptions.subscribe(b"a");
        subscriptions.unsubscribe(b"a");
        assert!(subscriptions.admit(b"ab") && !subscriptions.admit(b"b"));
        subscriptions.unsubscribe(b"a");
        assert!(!subscriptions.admit(b"ab"));
        subscriptions.unsubscribe(b"a");
        subscriptions.subscribe(b"");
        assert!(subscriptions.admit(b"") && subscriptions.admit(b"b"));
    }

    #[test]
    fn inverted_subscriptions_admit_what_does_not_match() {
        let subscriptions = Subscriptions::new(true);
        subscriptions.subscribe(b"a");
        assert!(subscriptions.admit(b"b") && !subscriptions.admit(b"ab"));
        subscriptions.subscribe(b"");
        assert!(!subscriptions.admit(b"b"));
    }

    #[test]
    fn only_the_last_cancellation_is_news_and_only_to_those_who_listen() {
        let subscriptions = Subscriptions::new(false);
        assert!(!subscriptions.subscribe(b"a"), "nobody listens");
        lock(&subscriptions.state).has_listeners = true;
        assert!(subscriptions.subscribe(b"a"));
        assert!(!subscriptions.unsubscribe(b"a"));
        assert!(subscriptions.unsubscribe(b"a"));
        assert!(!subscriptions.unsubscribe(b"a"));
        assert_eq!(subscriptions.take_news(), [Request::Subscribe("a".into()), Request::Cancel("a".into())]);
        assert!(subscriptions.take_news().is_empty());
        subscriptions.subscribe(b"b");
        subscriptions.rest();
        assert!(subscriptions.take_news().is_empty());
    }

    #[test]
    fn requests_are_the_frames_that_libzmq_sends() {
        let wire = |request: Request, is_current| {
            let mut batch = Batch::default();
            encode(&request, is_current, &mut batch);
            let mut slices = [std::io::IoSlice::new(&[])];
            batch.gather(crate::zmtp::encoder::Cursor::default(), batch.end(), &mut slices);
            slices[0].to_vec()
        };
        let topic = |length: usize| Request::Subscribe(vec![b'x'; length].into());
        assert_eq!(wire(Request::Subscribe("A".into()), true), b"\x04\x0b\x09SUBSCRIBEA");
        assert_eq!(wire(topic(0), true), b"\x04\x0a\x09SUBSCRIBE");
        assert_eq!(wire(Request::Cancel("A".into()), true), b"\x04\x08\x06CANCELA");
        assert_eq!(wire(topic(245), true)[..2], [4, 255]);
        assert_eq!(wire(topic(246), true)[..9], [6, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(wire(Request::Subscribe("A".into()), false), b"\x00\x02\x01A");
        assert_eq!(wire(Request::Cancel("A".into()), false), b"\x00\x02\x00A");
        assert_eq!(wire(topic(254), false)[..3], [0, 255, 1]);
        assert_eq!(wire(topic(255), false)[..10], [2, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
        assert_eq!(wire(topic(256), false)[..10], [2, 0, 0, 0, 0, 0, 0, 1, 1, 1]);
    }
}

/// Handles and the engine in every order in which they may meet. How to run: `sync.rs`.
#[cfg(all(test, sinew_loom))]
mod model {
    use std::future::poll_fn;
    use std::sync::Arc;
    use std::task::Poll;

    use loom::future::block_on;
    use loom::thread;

    use super::*;
    use crate::sync::AtomicWaker;
    use crate::sync::checked::model;

    #[test]
    fn the_engine_hears_of_every_subscription_in_order() {
        model(3, || {
            let subscriptions = Arc::new(Subscriptions::new(false));
            lock(&subscriptions.state).has_listeners = true;
            let io = Arc::new(AtomicWaker::new());
            let handle = thread::spawn({
                let (subscriptions, io) = (subscriptions.clone(), io.clone());
                move || {
                    for change in [Subscriptions::subscribe, Subscriptions::unsubscribe] {
                        if change(&subscriptions, b"a") {
                            io.wake();
                        }
                    }
                }
            });
            let mut heard = Vec::new();
            block_on(poll_fn(|cx| {
                io.register(cx.waker());
                heard.extend(subscriptions.take_news());
                if heard.len() == 2 { Poll::Ready(()) } else { Poll::Pending }
            }));
            let prefix = Bytes::from_static(b"a");
            assert_eq!(heard, [Request::Subscribe(prefix.clone()), Request::Cancel(prefix)]);
            handle.join().unwrap();
        });
    }

    #[test]
    fn nothing_that_nobody_wants_any_more_passes() {
        model(None, || {
            let subscriptions = Arc::new(Subscriptions::new(false));
            subscriptions.subscribe(b"");
            let other = thread::spawn({
                let subscriptions = subscriptions.clone();
                move || {
                    subscriptions.subscribe(b"");
                    subscriptions.unsubscribe(b"");
                }
            });
            subscriptions.unsubscribe(b"");
            other.join().unwrap();
            assert!(!subscriptions.admit(b"topic"));
        });
    }
}
