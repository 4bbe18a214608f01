//! Either end goes and comes back at the same endpoint: nothing that was queued is lost, nothing comes twice.

use interop::{End, Library, Place, Puller, Pusher, Role, Transport, meet, number, numbered};

const ROUNDS: usize = 3;
const MESSAGES: usize = 100;

struct Pair {
    pusher: Pusher,
    puller: Puller,
    sent: usize,
    received: usize,
}

impl Pair {
    async fn send(&mut self) {
        for _ in 0..MESSAGES {
            self.pusher.send(&numbered(self.sent, 100)).await;
            self.sent += 1;
        }
    }

    async fn receive_all(&mut self) {
        while self.received < self.sent {
            assert_eq!(number(&self.puller.recv().await), self.received, "the number of the next message");
            self.received += 1;
        }
    }
}

async fn messages_continue(pushes: Library, binder: End, restarted: End, transport: Transport) {
    let place = Place::new(transport);
    let (mut pusher, mut puller) = (Pusher::new(pushes), Puller::new(pushes.other()));
    let endpoint = meet(&mut pusher, &mut puller, binder, &place).await;
    let mut pair = Pair { pusher, puller, sent: 0, received: 0 };
    let push_role = Role::of(End::Push, binder);
    for _ in 0..ROUNDS {
        pair.send().await;
        pair.receive_all().await;
        match restarted {
            End::Push => {
                // What it sends last arrives although it is gone.
                pair.send().await;
                let gone = std::mem::replace(&mut pair.pusher, Pusher::new(pushes));
                gone.close().await;
                pair.pusher.attach(push_role, &endpoint).await;
            }
            End::Pull => {
                let gone = std::mem::replace(&mut pair.puller, Puller::new(pushes.other()));
                gone.close().await;
                pair.pusher.notices_loss(push_role).await;
                if pair.pusher.queues_without_peer(push_role) {
                    pair.send().await;
                }
                pair.puller.attach(Role::of(End::Pull, binder), &endpoint).await;
            }
        }
        pair.receive_all().await;
    }
    pair.send().await;
    pair.receive_all().await;
    pair.pusher.close().await;
    pair.puller.close().await;
}

macro_rules! matrix {
    ($($name:ident: $library:ident pushes, $binder:ident binds, $restarted:ident restarts;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            for transport in [Transport::Tcp, Transport::Ipc] {
                messages_continue(Library::$library, End::$binder, End::$restarted, transport).await;
            }
        }
    )+};
}

matrix! {
    a_connecting_libzmq_pull_comes_back: Sinew pushes, Push binds, Pull restarts;
    a_bound_libzmq_pull_comes_back: Sinew pushes, Pull binds, Pull restarts;
    a_connecting_libzmq_push_comes_back: Libzmq pushes, Pull binds, Push restarts;
    a_bound_libzmq_push_comes_back: Libzmq pushes, Push binds, Push restarts;
    a_connecting_sinew_pull_comes_back: Libzmq pushes, Push binds, Pull restarts;
    a_bound_sinew_pull_comes_back: Libzmq pushes, Pull binds, Pull restarts;
    a_connecting_sinew_push_comes_back: Sinew pushes, Pull binds, Push restarts;
    a_bound_sinew_push_comes_back: Sinew pushes, Push binds, Push restarts;
}
