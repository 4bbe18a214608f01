//! Runtimes: none, one of each kind, two at a time, and one that ends under its sockets.

use std::time::Duration;

use futures::executor::block_on;
use futures::{StreamExt, poll};
use sinew::{
    BindError, CloseError, ConnectError, PullSocket, PushSocket, RecvError, SendError, TryRecvError, TrySendError,
    WaitError,
};
use tokio::runtime::{Builder, Runtime};

use crate::common::*;

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Ipc];

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn several_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn outside_of_a_runtime_bind_and_connect_say_so() {
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let push = PushSocket::new();
        assert_eq!(push.connect(place.fresh()), Err(ConnectError::NoRuntime));
        assert!(matches!(block_on(push.bind(place.wildcard())), Err(BindError::NoRuntime)));
        // What needs no runtime works, and the socket is not harmed.
        push.try_send("x").unwrap();
        assert_eq!(push.stats().outbound_messages, 1);
        assert_eq!(block_on(push.close()).unwrap().unsent, 1);
    }
}

#[test]
fn a_socket_made_outside_of_a_runtime_works_inside() {
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let (push, pull) = (new_push(), new_pull());
        push.try_send(numbered(0)).unwrap();
        one_thread().block_on(async {
            let (push, pull) = join(&place, push, pull).await;
            send_numbers(&push, 1..3).await;
            assert_eq!(recv_numbers(&pull, 3).await, [0, 1, 2]);
        });
    }
}

#[test]
fn two_runtimes_talk_to_each_other() {
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let endpoint = place.fresh();
        let sender = std::thread::spawn({
            let endpoint = endpoint.clone();
            move || {
                one_thread().block_on(async {
                    let push = new_push();
                    push.connect(&endpoint).unwrap();
                    send_numbers(&push, 0..1_000).await;
                    within(push.close()).await.unwrap()
                })
            }
        });
        several_threads().block_on(async {
            let pull = new_pull();
            within(pull.bind(&endpoint)).await.unwrap();
            assert_eq!(recv_numbers(&pull, 1_000).await, (0..1_000).collect::<Vec<_>>());
        });
        assert_eq!(sender.join().unwrap().unsent, 0);
    }
}

#[test]
fn messages_are_sent_and_received_from_outside_of_the_runtime_that_drives_the_sockets() {
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let runtime = several_threads();
        let push = push_builder().send_high_water_mark(5).build().unwrap();
        let (push, pull) = runtime.block_on(join(&place, push, new_pull()));
        let sender = std::thread::spawn(move || {
            for number in 0..2_000 {
                block_on(push.send(numbered(number))).unwrap();
            }
            block_on(push.close()).unwrap()
        });
        for expected in 0..2_000 {
            assert_eq!(number(&block_on(pull.recv()).unwrap()), expected);
        }
        assert_eq!(sender.join().unwrap().unsent, 0);
    }
}

/// Both ends of a pair, connected, on a runtime that is then ended.
fn pair_on_ended(runtime: Runtime, place: &Place) -> (PushSocket, PullSocket) {
    let push = push_builder().send_high_water_mark(1).build().unwrap();
    let (push, pull) = runtime.block_on(join(place, push, new_pull()));
    runtime.shutdown_timeout(Duration::from_secs(10));
    (push, pull)
}

#[test]
fn when_the_runtime_has_ended_everything_says_so_and_nothing_hangs() {
    for transport in TRANSPORTS {
        for runtime in [one_thread(), several_threads()] {
            let place = Place::new(transport);
            let (push, pull) = pair_on_ended(runtime, &place);
            one_thread().block_on(async {
                assert_eq!(within(push.send("x")).await, Err(SendError::Closed("x".into())));
                assert_eq!(push.try_send("x"), Err(TrySendError::Closed("x".into())));
                assert_eq!(within(pull.recv()).await, Err(RecvError::Closed));
                assert_eq!(pull.try_recv(), Err(TryRecvError::Closed));
                assert_eq!(within(push.wait_connected(1)).await, Err(WaitError::Closed));
                assert_eq!(within(pull.monitor().next()).await, None);
                assert_eq!(push.connect(place.fresh()), Err(ConnectError::Closed));
                assert!(matches!(within(pull.bind(place.wildcard())).await, Err(BindError::Closed)));
                assert_eq!(within(push.close()).await, Err(CloseError::RuntimeEnded));
                assert_eq!(within(pull.close()).await, Err(CloseError::RuntimeEnded));
                assert_eq!((push.stats().peers, pull.stats().peers), (0, 0));
            });
        }
    }
}

#[test]
fn a_runtime_that_ends_before_it_has_run_anything_ends_its_sockets_too() {
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let (push, pull) = (new_push(), new_pull());
        {
            let runtime = one_thread();
            // Nothing is polled here but what is waited for.
            let endpoint = runtime.block_on(pull.bind(place.wildcard())).unwrap();
            let _inside = runtime.enter();
            push.connect(&endpoint).unwrap();
        }
        one_thread().block_on(async {
            assert_eq!(within(pull.recv()).await, Err(RecvError::Closed));
            assert_eq!(within(push.send("x")).await, Err(SendError::Closed("x".into())));
            assert_eq!(within(pull.close()).await, Err(CloseError::RuntimeEnded));
            assert_eq!(within(push.close()).await, Err(CloseError::RuntimeEnded));
        });
    }
}

#[test]
fn what_is_attached_from_another_runtime_outlives_it() {
    for transport in TRANSPORTS {
        let (place, other) = (Place::new(transport), Place::new(transport));
        let first = several_threads();
        let (pull, push, bound) = (new_pull(), new_push(), new_pull());
        let (unused, bound_at) = first.block_on(async {
            let unused = pull.bind(place.wildcard()).await.unwrap();
            push.connect(&unused).unwrap();
            (unused, bound.bind(other.wildcard()).await.unwrap())
        });
        let endpoint = one_thread().block_on(async {
            push.connect(&bound_at).unwrap();
            within(push.wait_connected(2)).await.unwrap();
            within(pull.bind(other.fresh())).await.unwrap()
        });
        // The second runtime has ended.
        first.block_on(async {
            assert_eq!(push.stats().peers, 2);
            for number in 0..2 {
                within(push.send(numbered(number))).await.unwrap();
            }
            let received = [within(pull.recv()).await.unwrap(), within(bound.recv()).await.unwrap()];
            assert_eq!(received.iter().map(number).sum::<u64>(), 1);
            let late = new_push();
            late.connect(&endpoint).unwrap();
            within(late.send("late")).await.unwrap();
            assert_eq!(within(pull.recv()).await.unwrap(), "late".into());
            within(pull.unbind(&unused)).await.unwrap();
        });
    }
}

#[test]
fn an_address_is_free_after_unbind_also_while_its_runtime_stands_still() {
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let standing = one_thread();
        let (first, second) = (new_pull(), new_pull());
        let endpoint = standing.block_on(first.bind(place.fresh())).unwrap();
        // From here on nothing of the first socket's is polled.
        one_thread().block_on(async {
            within(first.unbind(&endpoint)).await.unwrap();
            within(second.bind(&endpoint)).await.unwrap();
        });
    }
}

#[test]
fn the_end_of_the_runtime_wakes_those_who_wait() {
    for transport in TRANSPORTS {
        for runtime in [one_thread(), several_threads()] {
            let place = Place::new(transport);
            // Nobody reads and nobody takes: a send waits, and a recv waits.
            let push = push_builder().send_high_water_mark(1).linger(Duration::from_secs(3_600)).build().unwrap();
            let lonely = push.clone();
            let (idle, pull) = runtime.block_on(async {
                lonely.connect(place.fresh()).unwrap();
                lonely.try_send("full").unwrap();
                pair(&place).await
            });
            one_thread().block_on(async {
                let mut send = Box::pin(push.send("x"));
                let mut recv = Box::pin(pull.recv());
                let mut wait = Box::pin(pull.wait_connected(2));
                let mut monitor = pull.monitor();
                let mut event = monitor.next();
                assert!(poll!(&mut send).is_pending());
                assert!(poll!(&mut recv).is_pending());
                assert!(poll!(&mut wait).is_pending());
                assert!(poll!(&mut event).is_pending());
                let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10)));
                assert_eq!(within(send).await, Err(SendError::Closed("x".into())));
                assert_eq!(within(recv).await, Err(RecvError::Closed));
                assert_eq!(within(wait).await, Err(WaitError::Closed));
                within(async { while monitor.next().await.is_some() {} }).await;
                within(ended).await.unwrap();
            });
            drop(idle);
        }
    }
}

#[test]
fn the_end_of_the_runtime_ends_a_close_that_lingers() {
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let runtime = several_threads();
        let push = push_builder().linger(Duration::from_secs(3_600)).build().unwrap();
        runtime.block_on(async {
            push.connect(place.fresh()).unwrap();
            push.try_send("nobody takes this").unwrap();
        });
        one_thread().block_on(async {
            let mut close = Box::pin(push.close());
            assert!(poll!(&mut close).is_pending());
            let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10)));
            assert_eq!(within(close).await, Err(CloseError::RuntimeEnded));
            within(ended).await.unwrap();
        });
    }
}

#[test]
fn the_end_of_the_runtime_ends_the_connections_and_frees_the_address() {
    for transport in TRANSPORTS {
        let place = Place::new(transport);
        let endpoint = place.fresh();
        let runtime = several_threads();
        let kept = new_pull();
        runtime.block_on(kept.bind(&endpoint)).unwrap();
        one_thread().block_on(async {
            let push = new_push();
            let mut monitor = push.monitor();
            push.connect(&endpoint).unwrap();
            within(push.wait_connected(1)).await.unwrap();
            let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(10)));
            wait_disconnected(&mut monitor).await;
            within(ended).await.unwrap();
            let next = new_pull();
            within(next.bind(&endpoint)).await.unwrap();
            within(push.send("x")).await.unwrap();
            assert_eq!(within(next.recv()).await.unwrap(), "x".into());
        });
    }
}
