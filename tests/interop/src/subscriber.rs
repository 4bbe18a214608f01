//! The end that subscribes, of either library and of either kind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sinew::{Message, Monitor, RecvError, SubSocket, XSubSocket};
use zmq::SocketEvent;

use crate::{Frames, Kind, Library, Libzmq, Publisher, Role, disconnect, within};

/// How long a publisher that says nothing about its subscriptions is given before it is asked again; each time longer.
const PATIENCE: Duration = Duration::from_millis(5);

/// How the topics of [`Subscriber::settle`] begin; others who get such a message forget it.
const SETTLED: &[u8] = b"(settled ";

/// How those begin that the subscriber has not asked for.
const UNWANTED: &[u8] = b"(unwanted ";

/// A SUB or XSUB socket of either library.
#[derive(Debug)]
pub enum Subscribing {
    /// sinew's SUB, with its monitor.
    Plain(SubSocket, Monitor),
    /// sinew's XSUB, with its monitor.
    Extended(XSubSocket, Monitor),
    /// libzmq's, either of them.
    Libzmq(Libzmq),
}

/// A SUB or XSUB socket, and whether it wants everything.
#[derive(Debug)]
pub struct Subscriber {
    /// The socket.
    pub socket: Subscribing,
    /// How often it has subscribed to everything.
    everything: usize,
    /// Whether it ever has.
    wanted_everything: bool,
}

impl Subscriber {
    /// A socket that finds its peer again quickly.
    #[must_use]
    pub fn new(library: Library, kind: Kind) -> Self {
        Self::from(Self::socket(library, kind))
    }

    fn socket(library: Library, kind: Kind) -> Subscribing {
        let (first, longest) = (Duration::from_millis(10), Duration::from_millis(100));
        match (library, kind) {
            (Library::Sinew, Kind::Plain) => {
                let socket = SubSocket::builder().reconnect_delay(first, longest).build().expect("a socket");
                let monitor = socket.monitor();
                Subscribing::Plain(socket, monitor)
            }
            (Library::Sinew, Kind::Extended) => {
                let socket = XSubSocket::builder().reconnect_delay(first, longest).build().expect("a socket");
                let monitor = socket.monitor();
                Subscribing::Extended(socket, monitor)
            }
            (Library::Libzmq, kind) => {
                let socket = Libzmq::new(if kind == Kind::Plain { zmq::SUB } else { zmq::XSUB });
                // Or it would lose all subscriptions but the first thousand.
                socket.set_sndhwm(0).expect("no high-water mark");
                Subscribing::Libzmq(socket)
            }
        }
    }

    /// Binds or connects; gives the endpoint with nothing left to choose.
    pub async fn attach(&mut self, role: Role, endpoint: &str) -> String {
        match (&mut self.socket, role) {
            (Subscribing::Plain(socket, _), Role::Binds) => {
                within("sinew binds", socket.bind(endpoint)).await.expect("an endpoint").to_string()
            }
            (Subscribing::Extended(socket, _), Role::Binds) => {
                within("sinew binds", socket.bind(endpoint)).await.expect("an endpoint").to_string()
            }
            (Subscribing::Plain(socket, _), Role::Connects) => {
                socket.connect(endpoint).expect("an endpoint");
                endpoint.into()
            }
            (Subscribing::Extended(socket, _), Role::Connects) => {
                socket.connect(endpoint).expect("an endpoint");
                endpoint.into()
            }
            (Subscribing::Libzmq(socket), role) => socket.attach(role, endpoint),
        }
    }

    /// Subscribes, as an XSUB by a message.
    pub async fn subscribe(&mut self, topic: impl AsRef<[u8]>) {
        let topic = topic.as_ref();
        self.everything += usize::from(topic.is_empty());
        self.wanted_everything |= topic.is_empty();
        match &mut self.socket {
            Subscribing::Plain(socket, _) => socket.subscribe(topic),
            Subscribing::Libzmq(socket) if socket.get_socket_type() == Ok(zmq::SUB) => {
                socket.set_subscribe(topic).expect("a subscription");
            }
            _ => self.send([[b"\x01", topic].concat()]).await,
        }
    }

    /// Takes a subscription back, as an XSUB by a message.
    pub async fn unsubscribe(&mut self, topic: impl AsRef<[u8]>) {
        let topic = topic.as_ref();
        if topic.is_empty() {
            self.everything = self.everything.saturating_sub(1);
        }
        match &mut self.socket {
            Subscribing::Plain(socket, _) => socket.unsubscribe(topic),
            Subscribing::Libzmq(socket) if socket.get_socket_type() == Ok(zmq::SUB) => {
                socket.set_unsubscribe(topic).expect("a cancellation");
            }
            _ => self.send([[b"\x00", topic].concat()]).await,
        }
    }

    /// Sends a message to the publishers, which an XSUB can.
    pub async fn send<T: AsRef<[u8]>>(&mut self, message: impl IntoIterator<Item = T>) {
        let frames: Frames = message.into_iter().map(|frame| frame.as_ref().to_vec()).collect();
        match &mut self.socket {
            Subscribing::Plain(..) => panic!("a SUB does not send"),
            Subscribing::Extended(socket, _) => {
                within("sinew sends upstream", socket.send(Message::from(frames))).await.expect("an open socket");
            }
            Subscribing::Libzmq(socket) => socket.push(&frames),
        }
    }

    /// Waits for a message.
    pub async fn recv(&mut self) -> Frames {
        loop {
            let message = match &mut self.socket {
                Subscribing::Libzmq(socket) => socket.pull(),
                _ => within("sinew receives", self.receive()).await,
            };
            if !is_about_settling(&message) {
                return message;
            }
        }
    }

    /// Waits a moment for a message.
    async fn recv_soon(&mut self, patience: Duration) -> Option<Frames> {
        match &mut self.socket {
            Subscribing::Libzmq(socket) => socket.pull_soon(patience),
            _ => tokio::time::timeout(patience, self.receive()).await.ok(),
        }
    }

    /// Waits for a message of sinew's.
    async fn receive(&mut self) -> Frames {
        let received: Result<Message, RecvError> = match &mut self.socket {
            Subscribing::Plain(socket, _) => socket.recv().await,
            Subscribing::Extended(socket, _) => socket.recv().await,
            Subscribing::Libzmq(_) => unreachable!("it blocks"),
        };
        received.expect("an open socket").iter().map(|frame| frame.to_vec()).collect()
    }

    /// Waits until it knows that its only publisher has gone.
    pub async fn notices_loss(&mut self) {
        match &mut self.socket {
            Subscribing::Plain(_, monitor) | Subscribing::Extended(_, monitor) => drop(disconnect(monitor).await),
            Subscribing::Libzmq(socket) => socket.event(SocketEvent::DISCONNECTED),
        }
    }

    /// Waits until all that it has subscribed to and cancelled up to now has its effect at `publisher`, and no message is
    /// left between the two. What was published before must have been received: another message is an error.
    ///
    /// A PUB says nothing about its subscriptions, so it is made to publish a new topic until that arrives; and one that
    /// is not even sent any more, if everything was wanted before.
    pub async fn settle(&mut self, publisher: &mut Publisher) {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("{})", COUNT.fetch_add(1, Ordering::Relaxed));
        let (topic, unwanted) = ([SETTLED, name.as_bytes()].concat(), [UNWANTED, name.as_bytes()].concat());
        self.subscribe(&topic).await;
        within("the subscriptions have their effect", async {
            let (mut last, mut is_settled) = (0_u32, false);
            'rounds: while !is_settled {
                last += 1;
                let evidence = Evidence::before(self, publisher);
                publisher.send([&unwanted[..], &last.to_be_bytes()]).await;
                publisher.send([&topic[..], &last.to_be_bytes()]).await;
                loop {
                    // libzmq blocks, and the time limit must be looked at.
                    tokio::task::yield_now().await;
                    let Some(message) = self.recv_soon(PATIENCE * last).await else {
                        continue 'rounds;
                    };
                    assert!(is_about_settling(&message), "a message that nobody should have got: {message:?}");
                    if message[0] == topic && message[1] == last.to_be_bytes() {
                        // With everything wanted all arrives, whatever else is.
                        is_settled =
                            self.everything > 0 || !self.wanted_everything || evidence.one_was_enough(self, publisher);
                        continue 'rounds;
                    }
                }
            }
        })
        .await;
        self.unsubscribe(&topic).await;
    }

    /// Closes the socket, which must have received everything; its address is free again.
    pub async fn close(self) {
        let closed = match self.socket {
            Subscribing::Plain(socket, _) => within("sinew closes", socket.close()).await,
            Subscribing::Extended(socket, _) => within("sinew closes", socket.close()).await,
            Subscribing::Libzmq(socket) => return tokio::task::block_in_place(|| drop(socket)),
        };
        let closed = closed.expect("a closed socket");
        assert_eq!(closed.unread, 0, "{closed:?}");
    }
}

/// Counts of before a topic that is wanted and one that is not were published. A subscriber sorts out what it has cancelled
/// itself, so what it receives does not tell whether its publisher knows already.
enum Evidence {
    /// What has come to sinew's subscriber, before it was sorted.
    Received(u64),
    /// What sinew's publisher found nobody for.
    Unmatched(u64),
    /// Others get something as well.
    None,
}

impl Evidence {
    fn before(subscriber: &Subscriber, publisher: &Publisher) -> Self {
        match (&subscriber.socket, publisher) {
            (Subscribing::Plain(socket, _), _) => Self::Received(socket.stats().messages_received),
            (Subscribing::Extended(socket, _), _) => Self::Received(socket.stats().messages_received),
            (_, Publisher::Plain(socket)) if socket.peers().len() == 1 => {
                Self::Unmatched(socket.stats().messages_unmatched)
            }
            (_, Publisher::Extended(socket)) if socket.peers().len() == 1 => {
                Self::Unmatched(socket.stats().messages_unmatched)
            }
            _ => Self::None,
        }
    }

    /// Whether one message was sent for the two that were published: more may have come if earlier ones were late.
    fn one_was_enough(&self, subscriber: &Subscriber, publisher: &Publisher) -> bool {
        match (self, Self::before(subscriber, publisher)) {
            (Self::Received(before), Self::Received(now)) => now == before + 1,
            (Self::Unmatched(before), Self::Unmatched(now)) => now > *before,
            _ => true,
        }
    }
}

impl From<Subscribing> for Subscriber {
    /// Which has not subscribed to everything yet.
    fn from(socket: Subscribing) -> Self {
        Self { socket, everything: 0, wanted_everything: false }
    }
}

fn is_about_settling(message: &Frames) -> bool {
    message[0].starts_with(SETTLED) || message[0].starts_with(UNWANTED)
}
