//! Long streams and several peers: order, completeness, and whose turn it is.

use std::time::Duration;

use interop::{End, Library, Libzmq, Place, Puller, Pusher, Role, Transport, meet, number, numbered, within};
use sinew::{PullSocket, PushSocket};

/// Enough to fill every queue on the way many times.
const MANY: usize = 100_000;

async fn many_messages_arrive_in_order(pushes: Library, transport: Transport) {
    let place = Place::new(transport);
    let (mut pusher, mut puller) = (Pusher::new(pushes), Puller::new(pushes.other()));
    meet(&mut pusher, &mut puller, End::Pull, &place).await;
    let sender = tokio::spawn(async move {
        for n in 0..MANY {
            pusher.send(&numbered(n, 64)).await;
        }
        pusher
    });
    for n in 0..MANY {
        assert_eq!(number(&puller.recv().await), n, "the number of the next message");
    }
    sender.await.expect("everything is sent").close().await;
    puller.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_arrive_in_order_at_libzmq_over_tcp() {
    many_messages_arrive_in_order(Library::Sinew, Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_arrive_in_order_at_libzmq_over_ipc() {
    many_messages_arrive_in_order(Library::Sinew, Transport::Ipc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_arrive_in_order_at_sinew_over_tcp() {
    many_messages_arrive_in_order(Library::Libzmq, Transport::Tcp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_messages_arrive_in_order_at_sinew_over_ipc() {
    many_messages_arrive_in_order(Library::Libzmq, Transport::Ipc).await;
}

/// Three libzmq PULLs, each with the third message after its last one, and none without its share.
async fn three_pulls_take_exact_turns(push_binds: bool, transport: Transport) {
    const ROUNDS: usize = 100;
    let place = Place::new(transport);
    let push = PushSocket::new();
    let pulls: Vec<_> = (0..3).map(|_| Libzmq::new(zmq::PULL)).collect();
    if push_binds {
        let endpoint = within("sinew binds", push.bind(place.endpoint())).await.unwrap().to_string();
        pulls.iter().for_each(|pull| drop(pull.attach(Role::Connects, &endpoint)));
    } else {
        pulls.iter().for_each(|pull| push.connect(pull.attach(Role::Binds, &place.endpoint())).unwrap());
    }
    within("three peers", push.wait_connected(3)).await.unwrap();
    for n in 0..3 * ROUNDS {
        let message = numbered(n, 64);
        within("sinew sends", push.send(message)).await.unwrap();
    }
    let mut firsts = Vec::new();
    for pull in &pulls {
        let first = number(&pull.pull());
        for round in 1..ROUNDS {
            assert_eq!(
                number(&pull.pull()),
                first + 3 * round,
                "after {round} turns of the peer that got {first} first"
            );
        }
        firsts.push(first);
    }
    firsts.sort_unstable();
    assert_eq!(firsts, [0, 1, 2], "what the three peers got first");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_pulls_take_exact_turns_at_a_bound_push() {
    three_pulls_take_exact_turns(true, Transport::Tcp).await;
    three_pulls_take_exact_turns(true, Transport::Ipc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_pulls_take_exact_turns_at_a_connecting_push() {
    three_pulls_take_exact_turns(false, Transport::Tcp).await;
    three_pulls_take_exact_turns(false, Transport::Ipc).await;
}

/// Three libzmq PUSHes: everything comes once, and in the order of each.
async fn three_pushes_keep_their_order(pull_binds: bool, transport: Transport) {
    const EACH: usize = 5_000;
    let place = Place::new(transport);
    let pull = PullSocket::new();
    let pushes: Vec<_> = (0..3).map(|_| Libzmq::new(zmq::PUSH)).collect();
    if pull_binds {
        let endpoint = within("sinew binds", pull.bind(place.endpoint())).await.unwrap().to_string();
        pushes.iter().for_each(|push| drop(push.attach(Role::Connects, &endpoint)));
    } else {
        pushes.iter().for_each(|push| pull.connect(push.attach(Role::Binds, &place.endpoint())).unwrap());
    }
    let senders: Vec<_> = (0_u8..)
        .zip(pushes)
        .map(|(peer, push)| {
            tokio::spawn(async move {
                for n in 0..EACH {
                    let mut message = vec![vec![peer]];
                    message.extend(numbered(n, 64));
                    push.push(&message);
                }
                push
            })
        })
        .collect();
    let mut next = [0; 3];
    for _ in 0..3 * EACH {
        let message = within("sinew receives", pull.recv()).await.unwrap();
        let peer = usize::from(message[0][0]);
        assert_eq!(number(&vec![message[1].to_vec()]), next[peer], "the number of the next message of peer {peer}");
        next[peer] += 1;
    }
    assert_eq!(next, [EACH; 3]);
    for sender in senders {
        sender.await.expect("everything is sent");
    }
    let more = tokio::time::timeout(Duration::from_millis(50), pull.recv()).await;
    assert!(more.is_err(), "one more than was sent: {more:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_pushes_keep_their_order_at_a_bound_pull() {
    three_pushes_keep_their_order(true, Transport::Tcp).await;
    three_pushes_keep_their_order(true, Transport::Ipc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_pushes_keep_their_order_at_a_connecting_pull() {
    three_pushes_keep_their_order(false, Transport::Tcp).await;
    three_pushes_keep_their_order(false, Transport::Ipc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_name_reaches_a_libzmq_that_listens_on_ipv4_only() {
    let pull = Libzmq::new(zmq::PULL);
    let endpoint = pull.attach(Role::Binds, "tcp://127.0.0.1:*");
    let port = endpoint.rsplit(':').next().unwrap();
    let push = PushSocket::new();
    push.connect(format!("tcp://localhost:{port}")).unwrap();
    within("sinew sends", push.send("found")).await.unwrap();
    assert_eq!(pull.pull(), [b"found"]);
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abstract_ipc_name_means_the_same_to_both() {
    let endpoint = format!("ipc://@sinew-interop-{}", std::process::id());
    let pull = PullSocket::new();
    within("sinew binds", pull.bind(&endpoint)).await.unwrap();
    let push = Libzmq::new(zmq::PUSH);
    push.attach(Role::Connects, &endpoint);
    push.push(&vec![b"found".to_vec()]);
    let message = within("sinew receives", pull.recv()).await.unwrap();
    assert_eq!(&message[0], b"found");
}
