//! What celerity 0.1.1 is known for: subscribers that end or stall their publisher.

use super::stand::*;
use crate::common::raw::*;
use crate::common::*;

crate::common::over_each_transport! {
    a_peer_that_cancels_an_unknown_topic_harms_nobody,
    one_slow_subscriber_stalls_no_publisher,
}

// celerity: one subscriber that cancels what it has not subscribed to ends the publisher's socket.
async fn a_peer_that_cancels_an_unknown_topic_harms_nobody(place: Place) {
    let publisher = new_pub();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let good = subscriber(&publisher, &endpoint, "topic", 1).await;
    let mut raw = Raw::peer(&endpoint, &ready_sub()).await;
    // In both encodings; one that the other has, one that nobody has, and the empty one.
    for prefix in [&b"topic"[..], b"unknown", b""] {
        raw.send(&cancel(prefix)).await;
        raw.send(&frame(0, &[&[0], prefix].concat())).await;
    }
    raw.send(&[subscribe(b"topic"), ping(b"done")].concat()).await;
    assert_eq!(raw.frame().await.unwrap().body, b"\x04PONGdone");
    within(publisher.send("topic: news")).await.unwrap();
    assert_eq!(within(good.recv()).await.unwrap(), "topic: news".into());
    assert_eq!(raw.message().await.unwrap(), [b"topic: news"]);
}

// celerity: a publisher waits for the slowest of its subscribers.
async fn one_slow_subscriber_stalls_no_publisher(place: Place) {
    const BURSTS: u64 = 50;
    const BURST: u64 = 100;
    let publisher = pub_builder().kernel_send_buffer(4_096).send_high_water_mark(BURST as usize).build().unwrap();
    let endpoint = within(publisher.bind(place.wildcard())).await.unwrap();
    let mut slow = raw_subscriber(&publisher, &endpoint, b"").await;
    let good = subscriber(&publisher, &endpoint, "", 2).await;
    for burst in 0..BURSTS {
        let numbers: Vec<_> = (burst * BURST..(burst + 1) * BURST).collect();
        for number in &numbers {
            within(publisher.send(padded(*number, 1_000))).await.unwrap();
        }
        assert_eq!(recv_subscribed(&good, BURST as usize).await, numbers);
    }
    let dropped: Vec<_> = publisher.peers().iter().map(|peer| peer.messages_dropped).collect();
    assert!(dropped[0] > 0 && dropped[1] == 0, "{dropped:?}");
    // The slow one gets the messages that it was too slow for the others to miss.
    assert_eq!(slow.message().await.unwrap()[0], b"0");
}
