//! Messages of every shape arrive as they were sent, whoever pushes, whoever binds, over every transport.

use interop::{End, Frames, Library, Place, Puller, Pusher, Transport, meet};

/// On both sides of every boundary: inline messages, short frames, libzmq's buffers, ours, two-byte lengths.
const SIZES: [usize; 10] = [0, 1, 64, 65, 255, 256, 8191, 8192, 65_535, 1 << 20];

/// A body that is different at every place and in every frame.
fn body(size: usize, frame: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 31 + at / 256 + frame * 7) as u8).collect()
}

/// What is sent: a name for each message, and the message.
fn shapes() -> Vec<(String, Frames)> {
    let frames = |sizes: &[usize]| sizes.iter().enumerate().map(|(frame, size)| body(*size, frame)).collect::<Frames>();
    let mut shapes = Vec::new();
    for size in SIZES {
        let mut shape = |name: &str, sizes: &[usize]| shapes.push((format!("{name} of {size}"), frames(sizes)));
        shape("one frame", &[size]);
        shape("two frames", &[size, size]);
        shape("an empty frame before one", &[0, size]);
        shape("an empty frame after one", &[size, 0]);
        shape("one among empty frames", &[0, 0, size, 0, 0]);
        // One frame in ten has the size, the others are tiny and empty ones.
        let hundred: Vec<_> = (0..100).map(|frame| if frame % 10 == 4 { size } else { frame % 3 }).collect();
        shape("100 frames, some", &hundred);
    }
    shapes
}

/// Says where two messages differ without printing a megabyte.
fn assert_same(name: &str, sent: &Frames, received: &Frames) {
    let sizes = |message: &Frames| message.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(sent), sizes(received), "{name}: the sizes of the frames");
    let damaged = sent.iter().zip(received).position(|(sent, received)| sent != received);
    assert_eq!(damaged, None, "{name}: a frame whose bytes have changed");
}

async fn every_shape_arrives(pushes: Library, binder: End, transport: Transport) {
    let place = Place::new(transport);
    let (mut pusher, mut puller) = (Pusher::new(pushes), Puller::new(pushes.other()));
    meet(&mut pusher, &mut puller, binder, &place).await;
    let shapes = shapes();

    // Each on its own.
    for (name, message) in &shapes {
        pusher.send(message).await;
        assert_same(name, message, &puller.recv().await);
    }

    // All together, as fast as they go: large and small share batches, buffers and reads.
    let sender = {
        let messages: Vec<_> = shapes.iter().map(|(_, message)| message.clone()).collect();
        tokio::spawn(async move {
            for message in messages.iter().rev() {
                pusher.send(message).await;
            }
            pusher
        })
    };
    for (name, message) in shapes.iter().rev() {
        assert_same(name, message, &puller.recv().await);
    }
    sender.await.expect("everything is sent").close().await;
    puller.close().await;
}

macro_rules! matrix {
    ($($name:ident: $library:ident pushes, $binder:ident binds, $transport:ident;)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            every_shape_arrives(Library::$library, End::$binder, Transport::$transport).await;
        }
    )+};
}

matrix! {
    from_a_bound_sinew_push_over_tcp: Sinew pushes, Push binds, Tcp;
    from_a_bound_sinew_push_over_ipc: Sinew pushes, Push binds, Ipc;
    from_a_connecting_sinew_push_over_tcp: Sinew pushes, Pull binds, Tcp;
    from_a_connecting_sinew_push_over_ipc: Sinew pushes, Pull binds, Ipc;
    to_a_connecting_sinew_pull_over_tcp: Libzmq pushes, Push binds, Tcp;
    to_a_connecting_sinew_pull_over_ipc: Libzmq pushes, Push binds, Ipc;
    to_a_bound_sinew_pull_over_tcp: Libzmq pushes, Pull binds, Tcp;
    to_a_bound_sinew_pull_over_ipc: Libzmq pushes, Pull binds, Ipc;
}
