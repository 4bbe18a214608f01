//! What a socket's handles, its I/O task and its dialling and listening tasks share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::task::{Wake, Waker};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tracing::Span;

use crate::endpoint::Endpoint;
use crate::engine::watched::Watched;
use crate::monitor::{Event, Reporter};
use crate::options::Options;
use crate::queue::inbound::Inbound;
use crate::queue::outbound::Outbound;
use crate::stats::{Closed, Counters};
use crate::sync::{AtomicBool, AtomicWaker, Mutex, Ordering, lock};
use crate::transport::{Connected, Listener};
use crate::zmtp::socket_type::SocketType;

/// Names one `bind` or `connect` of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AttachmentId(u64);

/// The listener of a bound endpoint. Its task polls it; it goes when the endpoint is detached, also if that task is not
/// polled any more.
pub(crate) type ListenerSlot = Arc<Mutex<Option<Listener>>>;

/// A bound or connected endpoint, with the task that serves it; when it is dropped the task is told to end, and the address
/// is free.
#[derive(Debug)]
pub(crate) struct Attachment {
    pub(crate) id: AttachmentId,
    pub(crate) kind: AttachmentKind,
    /// As the user wrote it.
    pub(crate) requested: Endpoint,
    /// With nothing left to choose.
    pub(crate) resolved: Endpoint,
    pub(crate) task: JoinHandle<()>,
    /// Of a bound one.
    pub(crate) listener: Option<ListenerSlot>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.task.abort();
        if let Some(listener) = &self.listener {
            let _listener = lock(listener).take();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttachmentKind {
    Bound,
    Connected,
}

/// How a connection ended, for the task that dialled it.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) was_ready: bool,
    /// Trying again soon is pointless.
    pub(crate) permanent: bool,
    /// The peer had not shown its whole greeting; it may not have liked what it saw of ours.
    pub(crate) in_greeting: bool,
    pub(crate) cause: String,
}

/// A new connection on its way to the I/O task.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) connected: Connected,
    pub(crate) attachment: AttachmentId,
    pub(crate) endpoint: Endpoint,
    /// Held until the handshake is finished; only accepted connections need one.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    /// Show less of our greeting at first.
    pub(crate) careful: bool,
    /// Told when the connection has ended; only dialled connections are waited for.
    pub(crate) ended: Option<oneshot::Sender<Ended>>,
}

/// What the I/O task is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    Attach(Box<Arrival>),
    /// End every connection of an attachment that is no more.
    Detach(AttachmentId),
    /// Look which peers take no more: somebody wants to know from now on.
    Observe,
    /// Deliver what is queued, for as long as linger allows, and end.
    Close,
}

/// The state of a socket that others may wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// With so many peers that have finished the handshake.
    Open {
        peers: usize,
    },
    Closed(Closed),
    /// The runtime ended under the socket.
    Abandoned,
}

impl Presence {
    pub(crate) fn is_open(self) -> bool {
        matches!(self, Self::Open { .. })
    }
}

/// Wakes the I/O task and tells it what for.
#[derive(Debug)]
pub(crate) struct Signal {
    task: AtomicWaker,
    /// `None` once there is nobody to obey: a connection that comes later is closed at once.
    commands: Mutex<Option<Vec<Command>>>,
    /// Slots of peers whose streams may be ready.
    ready: Mutex<Vec<usize>>,
}

impl Default for Signal {
    fn default() -> Self {
        Self { task: AtomicWaker::new(), commands: Mutex::new(Some(Vec::new())), ready: Mutex::default() }
    }
}

impl Signal {
    pub(crate) fn wake(&self) {
        self.task.wake();
    }

    /// To be called before looking for work, so that a wake-up during the look is not lost.
    pub(crate) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    pub(crate) fn command(&self, command: Command) {
        if let Some(commands) = &mut *lock(&self.commands) {
            commands.push(command);
        }
        self.wake();
    }

    /// Asks for a look at the peers, unless that is asked for already.
    pub(crate) fn observe(&self) {
        if let Some(commands) = lock(&self.commands).as_mut() {
            if !matches!(commands.last(), Some(Command::Observe)) {
                commands.push(Command::Observe);
            }
        }
        self.wake();
    }

    pub(crate) fn take_commands(&self) -> Vec<Command> {
        lock(&self.commands).as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Obeys no more commands.
    pub(crate) fn end(&self) {
        // Dropped outside of the lock, with the streams in it.
        let _rest = lock(&self.commands).take();
    }

    /// Moves the slots of peers that may be ready into `into`, which is empty.
    pub(crate) fn take_ready(&self, into: &mut Vec<usize>) {
        std::mem::swap(&mut *lock(&self.ready), into);
    }
}

/// The waker of one peer's stream: it names the peer, so that a wake-up costs what the ready peers cost.
#[derive(Debug)]
pub(crate) struct PeerWaker {
    shared: Arc<Shared>,
    slot: usize,
    /// Already named and not yet looked at.
    named: AtomicBool,
}

impl PeerWaker {
    pub(crate) fn new(shared: Arc<Shared>, slot: usize) -> Self {
        Self { shared, slot, named: AtomicBool::new(false) }
    }

    /// To be called before the stream is polled again.
    pub(crate) fn reset(&self) {
        self.named.store(false, Ordering::SeqCst);
    }
}

impl Wake for PeerWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.named.swap(true, Ordering::SeqCst) {
            lock(&self.shared.signal.ready).push(self.slot);
            // A task that waits for a message comes first: it reads the stream itself and saves the hop. The I/O task
            // follows in any case, so nothing depends on when, or whether, the other one is polled.
            self.shared.inbound.wake_one();
            self.shared.signal.wake();
        }
    }
}

/// Everything of a socket but its peers.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// What the socket's diagnostics stand in.
    pub(crate) span: Span,
    pub(crate) outbound: Outbound,
    pub(crate) inbound: Inbound,
    pub(crate) signal: Signal,
    pub(crate) reporter: Reporter,
    pub(crate) presence: Watched<Presence>,
    pub(crate) counters: Counters,
    /// Changes whenever subscriptions of peers do.
    pub(crate) subscription_changes: Watched<u64>,
    /// One for each accepted connection that may be in the handshake.
    pub(crate) handshakes: Arc<Semaphore>,
    /// `None` once the socket is closed.
    attachments: Mutex<Option<Vec<Attachment>>>,
    next_attachment: AtomicU64,
}

impl Shared {
    pub(crate) fn new(options: Options, socket_type: SocketType) -> Self {
        Self {
            span: tracing::debug_span!("socket", %socket_type),
            outbound: match socket_type.publishes() && !options.invert_matching {
                true => Outbound::sifting(options.send),
                false => Outbound::new(options.send),
            },
            inbound: Inbound::new(options.receive, options.conflate),
            signal: Signal::default(),
            reporter: Reporter::default(),
            presence: Watched::new(Presence::Open { peers: 0 }),
            counters: Counters::default(),
            subscription_changes: Watched::new(0),
            handshakes: Arc::new(Semaphore::new(options.max_pending_handshakes.min(Semaphore::MAX_PERMITS))),
            attachments: Mutex::new(Some(Vec::new())),
            next_attachment: AtomicU64::new(0),
            options,
        }
    }

    /// Tells those who wait for subscriptions to look again.
    #[inline]
    pub(crate) fn subscriptions_changed(&self) {
        self.subscription_changes.modify(|changes| {
            *changes += 1;
            true
        });
    }

    pub(crate) fn next_attachment(&self) -> AttachmentId {
        AttachmentId(self.next_attachment.fetch_add(1, Ordering::Relaxed))
    }

    /// Keeps an attachment, made by `start`; `None` if the socket is closed.
    pub(crate) fn attach(&self, start: impl FnOnce() -> Attachment) -> Option<()> {
        lock(&self.attachments).as_mut().map(|attachments| attachments.push(start()))
    }

    /// The same, unless there is one to this endpoint already.
    pub(crate) fn attach_once(&self, endpoint: &Endpoint, start: impl FnOnce() -> Attachment) -> Option<()> {
        let mut attachments = lock(&self.attachments);
        let attachments = attachments.as_mut()?;
        let same =
            |attachment: &Attachment| attachment.kind == AttachmentKind::Connected && attachment.requested == *endpoint;
        if !attachments.iter().any(same) {
            attachments.push(start());
        }
        Some(())
    }

    /// Removes the attachments of this kind and endpoint; `None` if the socket is closed.
    pub(crate) fn detach(&self, kind: AttachmentKind, endpoint: &Endpoint) -> Option<Vec<Attachment>> {
        let mut attachments = lock(&self.attachments);
        let attachments = attachments.as_mut()?;
        let matches = |attachment: &Attachment| {
            attachment.kind == kind && (attachment.resolved == *endpoint || attachment.requested == *endpoint)
        };
        let (gone, kept) = std::mem::take(attachments).into_iter().partition(matches);
        *attachments = kept;
        Some(gone)
    }

    /// Removes all attachments and allows no more.
    pub(crate) fn detach_all(&self) -> Vec<Attachment> {
        lock(&self.attachments).take().unwrap_or_default()
    }

    /// Whether this attachment has not been removed since.
    pub(crate) fn has(&self, id: AttachmentId) -> bool {
        lock(&self.attachments).iter().flatten().any(|attachment| attachment.id == id)
    }

    pub(crate) fn is_attached(&self) -> bool {
        lock(&self.attachments).as_ref().is_some_and(|attachments| !attachments.is_empty())
    }

    /// Marks the end, unless it is marked already.
    pub(crate) fn end(&self, end: Presence) {
        self.presence.modify(|presence| {
            let open = matches!(presence, Presence::Open { .. });
            if open {
                *presence = end;
                if let Presence::Closed(closed) = end {
                    self.reporter.report(|| Event::Closed(closed));
                }
            }
            open
        });
        self.reporter.close();
    }
}
