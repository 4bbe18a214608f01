//! Small messages cost no allocation each, sent or received.

use allocation_counter::measure;
use sinew::{Message, PullSocket, PushSocket};

const MESSAGES: u64 = 1_000;

/// Room for the growth of buffers and queues, which does not depend on the number of messages but on its logarithm.
const GROWTH: u64 = 40;

#[test]
fn a_message_of_up_to_64_bytes_is_made_and_cloned_without_an_allocation() {
    let body = [7; 64];
    let allocations = measure(|| {
        for length in 0..=64 {
            let message = Message::from(&body[..length]);
            assert_eq!(message.clone(), message);
        }
    });
    assert_eq!(allocations.count_total, 0);
    let larger = measure(|| drop(Message::from(&[7; 65])));
    assert_ne!(larger.count_total, 0, "the counter counts");
}

#[test]
fn small_messages_are_sent_and_received_without_an_allocation_each() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (push, pull) = (PushSocket::new(), PullSocket::new());
        push.connect(pull.bind("tcp://127.0.0.1:*").await.unwrap()).unwrap();
        push.wait_connected(1).await.unwrap();
        let body = [7; 64];

        let sending = measure(|| {
            for _ in 0..MESSAGES {
                push.try_send(&body).unwrap();
            }
        });
        assert!(sending.count_total < GROWTH, "{sending:?} for {MESSAGES} messages sent");

        let first = pull.recv().await.unwrap();
        assert_eq!(&first[0], body);
        let (mut received, mut receiving) = (1, 0);
        while received < MESSAGES {
            let step = measure(|| {
                while let Ok(message) = pull.try_recv() {
                    assert_eq!(&message[0], body);
                    received += 1;
                }
            });
            receiving += step.count_total;
            // Until the rest has come.
            if received < MESSAGES {
                assert_eq!(&pull.recv().await.unwrap()[0], body);
                received += 1;
            }
        }
        assert!(receiving < GROWTH, "{receiving} allocations for {MESSAGES} messages received");
    });
}
