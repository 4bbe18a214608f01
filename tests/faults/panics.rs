//! User tasks that panic in the middle of a send or a receive: the socket serves the others as if nothing had been.

use std::panic::resume_unwind;
use std::pin::pin;

use futures::{SinkExt, StreamExt, poll, stream};
use sinew::{Message, PullSocket, PushSocket};
use tokio::task::JoinHandle;

use crate::common::*;

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Ipc];

/// Unwinds without a report on the terminal.
fn panics<T>() -> T {
    resume_unwind(Box::new("a fault in user code"))
}

/// Waits for the end of a task that must have panicked.
async fn has_panicked(task: JoinHandle<()>) {
    assert!(within(task).await.unwrap_err().is_panic());
}

/// The sockets serve, nothing is left in them, and they close.
async fn go_on(push: PushSocket, pull: PullSocket) {
    const MESSAGES: u64 = 3_000;
    let sending = send_numbers(&push, 0..MESSAGES);
    let receiving = recv_numbers(&pull, MESSAGES as usize);
    assert_eq!(tokio::join!(sending, receiving).1, (0..MESSAGES).collect::<Vec<_>>());
    assert_eq!(within(push.close()).await.unwrap().unsent, 0);
    assert_eq!(within(pull.close()).await.unwrap().unread, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_a_receive_waits_disturbs_nobody() {
    for transport in TRANSPORTS {
        receive_and_panic(Place::new(transport)).await;
    }
}

pub(crate) async fn receive_and_panic(place: Place) {
    let (push, pull) = pair(&place).await;
    for round in 0..100 {
        let socket = pull.clone();
        has_panicked(tokio::spawn(async move {
            let mut many = Vec::new();
            let (mut one, mut some) = (pin!(socket.recv()), pin!(socket.recv_many(&mut many, 10)));
            let mut stream = socket.stream();
            assert!(poll!(&mut one).is_pending() && poll!(&mut some).is_pending() && poll!(stream.next()).is_pending());
            panics()
        }))
        .await;
        // Its turn is nobody's now.
        send_numbers(&push, [round]).await;
        assert_eq!(recv_numbers(&pull, 1).await, [round]);
    }
    go_on(push, pull).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_between_receives_costs_the_message_in_hand_and_no_other() {
    for transport in TRANSPORTS {
        let (push, pull) = pair(&Place::new(transport)).await;
        for round in 0..100 {
            send_numbers(&push, [2 * round, 2 * round + 1]).await;
            let socket = pull.clone();
            has_panicked(tokio::spawn(async move {
                let faulty = socket.stream().map(|message| -> () {
                    assert_eq!(number(&message), 2 * round);
                    panics()
                });
                within(faulty.collect::<Vec<_>>()).await;
            }))
            .await;
            assert_eq!(recv_numbers(&pull, 1).await, [2 * round + 1]);
        }
        go_on(push, pull).await;
    }
}

/// A message whose making fails.
struct Faulty;

impl From<Faulty> for Message {
    fn from(_: Faulty) -> Self {
        panics()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_a_message_is_made_sends_nothing() {
    for transport in TRANSPORTS {
        make_and_panic(Place::new(transport)).await;
    }
}

pub(crate) async fn make_and_panic(place: Place) {
    let (push, pull) = pair(&place).await;
    for _ in 0..100 {
        let socket = push.clone();
        has_panicked(tokio::spawn(async move { within(socket.send(Faulty)).await.unwrap() })).await;
        let socket = push.clone();
        has_panicked(tokio::spawn(async move { socket.try_send(Faulty).unwrap() })).await;
        let socket = push.clone();
        has_panicked(tokio::spawn(async move {
            let frames = ["whole", "half"].into_iter().map(|part| if part == "half" { panics() } else { part });
            within(socket.send(frames.collect::<Message>())).await.unwrap();
        }))
        .await;
        let socket = push.clone();
        has_panicked(tokio::spawn(async move {
            let mut messages = stream::iter([0]).map(|_| panics::<Result<Message, _>>());
            within(socket.sink().send_all(&mut messages)).await.unwrap();
        }))
        .await;
    }
    go_on(push, pull).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_a_send_waits_for_room_takes_its_message_along() {
    const MARK: u64 = 10;
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let push = push_builder().send_high_water_mark(MARK as usize).build().unwrap();
        let endpoint = within(push.bind(place.wildcard())).await.unwrap();
        send_numbers(&push, 0..MARK).await;
        for _ in 0..100 {
            let socket = push.clone();
            has_panicked(tokio::spawn(async move {
                let (mut send, mut sink) = (pin!(socket.send(numbered(1_000))), socket.sink());
                assert!(poll!(&mut send).is_pending() && poll!(sink.feed(numbered(1_000))).is_pending());
                panics()
            }))
            .await;
        }
        let pull = new_pull();
        pull.connect(&endpoint).unwrap();
        assert_eq!(recv_numbers(&pull, MARK as usize).await, (0..MARK).collect::<Vec<_>>());
        go_on(push, pull).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_socket_that_a_panic_drops_still_delivers() {
    const MESSAGES: u64 = 500;
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let (push, pull) = pair(&place).await;
        has_panicked(tokio::spawn(async move {
            send_numbers(&push, 0..MESSAGES).await;
            panics()
        }))
        .await;
        assert_eq!(recv_numbers(&pull, MESSAGES as usize).await, (0..MESSAGES).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_that_panic_all_the_time_beside_others_cost_them_nothing() {
    const MESSAGES: u64 = 20_000;
    let (push, pull) = pair(&Place::new(Transport::Tcp)).await;
    // They begin to send and to receive, and fail at once: nothing is sent, nothing is received.
    let faulty = tokio::spawn({
        let (push, pull) = (push.clone(), pull.clone());
        async move {
            loop {
                let (push, pull) = (push.clone(), pull.clone());
                has_panicked(tokio::spawn(async move {
                    let _monitor = pull.monitor();
                    let _waiting = pin!(pull.wait_connected(2));
                    let _sink = push.sink();
                    let _stream = pull.stream();
                    within(push.send(Faulty)).await.unwrap();
                }))
                .await;
            }
        }
    });
    let sending = send_numbers(&push, 0..MESSAGES);
    let receiving = recv_numbers(&pull, MESSAGES as usize);
    assert_eq!(tokio::join!(sending, receiving).1, (0..MESSAGES).collect::<Vec<_>>());
    faulty.abort();
    // That it was aborted is all there is to hear.
    let _ = within(faulty).await;
    go_on(push, pull).await;
}
