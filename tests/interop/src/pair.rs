//! A publisher of one library and a subscriber of the other one, joined.

use crate::{Frames, Kind, Library, Place, Publisher, Role, Subscriber, Transport, join};

/// Both ends, and where they meet.
#[derive(Debug)]
pub struct Pair {
    /// The end that publishes.
    pub publisher: Publisher,
    /// The end that subscribes.
    pub subscriber: Subscriber,
    /// Where one of them is bound and the other one connected.
    pub endpoint: String,
    /// Keeps the folder.
    _place: Place,
}

impl Pair {
    /// Joins a publisher of `publishes` and a subscriber of the other library.
    pub async fn new(publishes: Library, kinds: [Kind; 2], publisher_role: Role, transport: Transport) -> Self {
        let place = Place::new(transport);
        let mut publisher = Publisher::new(publishes, kinds[0]);
        let mut subscriber = Subscriber::new(publishes.other(), kinds[1]);
        let endpoint = join(&mut publisher, &mut subscriber, publisher_role, &place).await;
        Self { publisher, subscriber, endpoint, _place: place }
    }

    /// Publishes a message.
    pub async fn publish<T: AsRef<[u8]>>(&mut self, message: impl IntoIterator<Item = T>) {
        self.publisher.send(message).await;
    }

    /// Waits for the next message, which must be this one.
    pub async fn expect<T: AsRef<[u8]>>(&mut self, message: impl IntoIterator<Item = T>) {
        let expected: Frames = message.into_iter().map(|frame| frame.as_ref().to_vec()).collect();
        let received = self.subscriber.recv().await;
        let text = |frames: &Frames| frames.iter().map(|frame| frame.escape_ascii().to_string()).collect::<Vec<_>>();
        assert!(received == expected, "{:?} has come instead of {:?}", text(&received), text(&expected));
    }

    /// Waits until all subscriptions have their effect; an unexpected message is an error.
    pub async fn settle(&mut self) {
        self.subscriber.settle(&mut self.publisher).await;
    }

    /// Closes both ends; nothing must be left at either.
    pub async fn close(self) {
        self.publisher.close().await;
        self.subscriber.close().await;
    }
}

/// Plays a scenario with every pair of types that fits, over every transport, one after the other.
pub async fn on_every_pair(publishes: Library, publisher_role: Role, scenario: impl AsyncFn(&mut Pair)) {
    for transport in [Transport::Tcp, Transport::Ipc] {
        for publisher in [Kind::Plain, Kind::Extended] {
            for subscriber in [Kind::Plain, Kind::Extended] {
                println!("{publisher:?} publisher, {subscriber:?} subscriber, {transport:?}");
                let mut pair = Pair::new(publishes, [publisher, subscriber], publisher_role, transport).await;
                scenario(&mut pair).await;
                pair.close().await;
            }
        }
    }
}
