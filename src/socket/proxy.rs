//! The proxy: forwards whole messages between two sockets, both ways.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{self, Either};
use tokio::task::JoinSet;

use crate::engine::watched::Watched;
use crate::error::{RecvError, SendError};
use crate::message::Message;
use crate::socket::handle::Core;
use crate::socket::publish::PubSocket;
use crate::socket::pull::PullSocket;
use crate::socket::push::PushSocket;
use crate::socket::receiving;
use crate::socket::sending::SendMessage;
use crate::socket::subscribe::SubSocket;
use crate::socket::xpublish::XPubSocket;
use crate::socket::xsubscribe::XSubSocket;
use crate::stats::Counter;

/// So many messages are taken from one side before the other side gets them.
const TAKEN_AT_ONCE: usize = 256;

use sealed::Way;

/// One side of a proxy. Implemented by all sockets, and by nothing else.
pub trait ProxySocket: sealed::Side {}

mod sealed {
    use super::{Arc, Core};

    /// A socket in one direction.
    #[derive(Debug, Clone)]
    pub struct Way(pub(super) Arc<Core>);

    pub trait Side {
        /// What can be received from.
        fn source(&self) -> Option<Way>;
        /// What can be sent to.
        fn target(&self) -> Option<Way>;
    }
}

macro_rules! sides {
    ($($socket:ident: $receives:literal, $sends:literal;)+) => {$(
        impl ProxySocket for $socket {}

        impl sealed::Side for $socket {
            fn source(&self) -> Option<Way> {
                $receives.then(|| Way(self.core().clone()))
            }

            fn target(&self) -> Option<Way> {
                $sends.then(|| Way(self.core().clone()))
            }
        }
    )+};
}

sides! {
    PushSocket: false, true;
    PullSocket: true, false;
    PubSocket: false, true;
    SubSocket: true, false;
    XPubSocket: true, true;
    XSubSocket: true, true;
}

/// Forwards messages between two sockets until one of them is closed: from the publishers that an XSUB is connected to, to
/// the subscribers of an XPUB, and the subscriptions back; or from a PULL to a PUSH.
///
/// See [`Proxy`] for one that can be paused, stopped and looked at.
///
/// # Cancel safety
///
/// When it is dropped forwarding stops. A message that was taken from one side and not yet handed to the other is still
/// handed over, for the linger time at most.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use sinew::{XPubSocket, XSubSocket, proxy};
///
/// let frontend = XSubSocket::new();
/// frontend.bind("tcp://*:5555").await?; // publishers connect here
/// let backend = XPubSocket::new();
/// backend.bind("tcp://*:5556").await?; // and subscribers here
/// proxy(&frontend, &backend).await;
/// # Ok(()) }
/// ```
pub async fn proxy(frontend: &impl ProxySocket, backend: &impl ProxySocket) {
    Proxy::new(frontend, backend).start().wait().await;
}

/// A proxy that has not been started.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use sinew::{Proxy, PullSocket, PushSocket};
///
/// let (frontend, backend) = (PullSocket::new(), PushSocket::new());
/// let (source, sink) = (PushSocket::new(), PullSocket::new());
/// source.connect(&frontend.bind("tcp://127.0.0.1:*").await?)?;
/// backend.connect(&sink.bind("tcp://127.0.0.1:*").await?)?;
///
/// let proxy = Proxy::new(&frontend, &backend).start();
/// source.send("through").await?;
/// assert_eq!(&sink.recv().await?[0], b"through");
/// assert_eq!(proxy.stop().await.frontend_to_backend.messages, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "a proxy does nothing until it is started"]
pub struct Proxy {
    forward: Option<(Way, Way)>,
    back: Option<(Way, Way)>,
    capture: Option<Way>,
}

impl Proxy {
    /// Between these sockets: what one of them receives the other one sends, as far as their types can.
    pub fn new(frontend: &impl ProxySocket, backend: &impl ProxySocket) -> Self {
        Self {
            forward: frontend.source().zip(backend.target()),
            back: backend.source().zip(frontend.target()),
            capture: None,
        }
    }

    /// Sends a copy of everything that is forwarded, in both directions, to this socket as well. While it has no room the
    /// proxy waits. A socket that cannot send captures nothing.
    pub fn capture(mut self, capture: &impl ProxySocket) -> Self {
        self.capture = capture.target();
        self
    }

    /// Starts forwarding, in the background.
    ///
    /// # Panics
    ///
    /// If it is called outside of a tokio runtime.
    pub fn start(self) -> ProxyHandle {
        let control = Arc::new(Watched::new(Control::Run));
        let flows = Arc::new(Flows::default());
        let mut tasks = JoinSet::new();
        if let Some((from, to)) = self.forward {
            let (capture, control, flows) = (self.capture.clone(), control.clone(), flows.clone());
            tasks.spawn(async move { forward(&from, &to, capture.as_ref(), &control, &flows.forward).await });
        }
        if let Some((from, to)) = self.back {
            let (capture, control, flows) = (self.capture, control.clone(), flows.clone());
            tasks.spawn(async move { forward(&from, &to, capture.as_ref(), &control, &flows.back).await });
        }
        ProxyHandle { control, flows, tasks, is_over: false }
    }
}

/// What has been forwarded in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Flow {
    /// Whole messages.
    pub messages: u64,
    /// Their bodies, in bytes.
    pub bytes: u64,
    /// Messages that were taken from one side and could not be handed to the other before it was closed, or before the
    /// linger time was over after a stop.
    pub undelivered: u64,
}

/// What a proxy has forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ProxyCounters {
    /// From the frontend to the backend.
    pub frontend_to_backend: Flow,
    /// From the backend to the frontend.
    pub backend_to_frontend: Flow,
}

/// A proxy that runs. It stops when this is dropped.
#[derive(Debug)]
pub struct ProxyHandle {
    control: Arc<Watched<Control>>,
    flows: Arc<Flows>,
    /// Ended by `control`, or by a socket that is closed; never aborted, so that nothing in hand is lost.
    tasks: JoinSet<()>,
    /// One of the sockets has been closed.
    is_over: bool,
}

impl ProxyHandle {
    /// Takes no more messages from either side until [`resume`](Self::resume): they wait in the sockets' queues.
    pub fn pause(&self) {
        self.control.set(Control::Pause);
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        self.control.set(Control::Run);
    }

    /// What has been forwarded so far.
    pub fn counters(&self) -> ProxyCounters {
        ProxyCounters { frontend_to_backend: self.flows.forward.get(), backend_to_frontend: self.flows.back.get() }
    }

    /// Stops, and says what has been forwarded. Messages that were taken are handed over first, for the linger time of the
    /// receiving socket at most.
    ///
    /// # Cancel safety
    ///
    /// Once polled the proxy stops, also if the future is dropped then.
    pub async fn stop(mut self) -> ProxyCounters {
        self.control.set(Control::Stop);
        while self.tasks.join_next().await.is_some() {}
        self.counters()
    }

    /// Waits until one of the sockets is closed, and says what has been forwarded.
    ///
    /// # Cancel safety
    ///
    /// Waiting changes nothing.
    pub async fn wait(&mut self) -> ProxyCounters {
        if !self.is_over {
            self.tasks.join_next().await;
            self.is_over = true;
        }
        self.counters()
    }
}

impl Drop for ProxyHandle {
    fn drop(&mut self) {
        self.control.set(Control::Stop);
        self.tasks.detach_all();
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Run,
    Pause,
    Stop,
}

#[derive(Debug, Default)]
struct Flows {
    forward: FlowCounters,
    back: FlowCounters,
}

#[derive(Debug, Default)]
struct FlowCounters {
    messages: Counter,
    bytes: Counter,
    undelivered: Counter,
}

impl FlowCounters {
    fn get(&self) -> Flow {
        Flow { messages: self.messages.get(), bytes: self.bytes.get(), undelivered: self.undelivered.get() }
    }
}

/// Forwards in one direction until it is told to stop or a socket is closed.
async fn forward(
    Way(from): &Way,
    Way(to): &Way,
    capture: Option<&Way>,
    control: &Watched<Control>,
    flow: &FlowCounters,
) {
    let mut taken = Vec::new();
    loop {
        match take(from, to, &mut taken, control).await {
            Some(Ok(_)) => {}
            None | Some(Err(RecvError::Closed)) => return,
        }
        let handed = hand_over(to, capture, &mut taken, flow);
        if until_too_late(handed, control, to.shared.options.linger).await != Some(Ok(())) {
            flow.undelivered.add(taken.len());
            return;
        }
    }
}

/// Takes what is there, once something is; `None` when the proxy is to stop, or there is nobody to hand it to.
async fn take(
    from: &Core,
    to: &Core,
    taken: &mut Vec<Message>,
    control: &Watched<Control>,
) -> Option<Result<usize, RecvError>> {
    loop {
        if control.wait_for(|control| control != Control::Pause).await == Control::Stop {
            return None;
        }
        if to.is_closed() {
            return None;
        }
        let interrupted = pin!(async {
            match future::select(pin!(control.wait_for(|control| control != Control::Run)), pin!(to.closed())).await {
                Either::Left(_) => Some(()),
                Either::Right(((), _)) => None,
            }
        });
        match future::select(interrupted, pin!(receiving::recv_many(from, taken, TAKEN_AT_ONCE))).await {
            Either::Left((Some(()), _)) => {}
            Either::Left((None, _)) => return None,
            Either::Right((result, _)) => return Some(result),
        }
    }
}

/// Sends what was taken, in order; what could not be sent is left.
async fn hand_over(
    to: &Core,
    capture: Option<&Way>,
    taken: &mut Vec<Message>,
    flow: &FlowCounters,
) -> Result<(), SendError> {
    // Taken from the end, which is cheap.
    taken.reverse();
    while let Some(message) = taken.last() {
        let size = message.byte_len();
        if let Some(Way(capture)) = capture {
            // A capture that is closed captures no more.
            let _ = SendMessage::new(capture, message.clone()).await;
        }
        match SendMessage::new(to, message.clone()).await {
            Ok(()) => {}
            // Larger than this socket may send: there is nobody to be told but the numbers.
            Err(SendError::TooLarge(_)) => {
                flow.undelivered.add(1);
                taken.pop();
                continue;
            }
            Err(closed) => return Err(closed),
        }
        taken.pop();
        flow.messages.add(1);
        flow.bytes.add(size);
    }
    Ok(())
}

/// Waits for a future; for so long only once the proxy is to stop.
async fn until_too_late<F: Future>(future: F, control: &Watched<Control>, linger: Duration) -> Option<F::Output> {
    let future = pin!(future);
    let stopped = pin!(async {
        control.wait_for(|control| control == Control::Stop).await;
    });
    match future::select(future, stopped).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(((), future)) => tokio::time::timeout(linger, future).await.ok(),
    }
}
