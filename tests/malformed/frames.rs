//! After the handshake: illegal flags, sizes beyond every limit, messages that never end, and odd but legal streams.

use sinew::{DisconnectReason, Message, ProtocolError};

use crate::common::raw::*;
use crate::common::*;
use crate::stand::{End, Stand};

crate::common::over_each_transport! {
    every_illegal_flag_byte_is_refused,
    frames_over_the_limit_are_refused_by_their_size_alone,
    a_message_over_the_limit_in_sum_is_refused,
    a_frame_over_its_own_limit_is_refused_by_its_size_alone,
    a_message_of_too_many_frames_is_refused,
    limits_are_reached_exactly,
    messages_before_a_bad_frame_are_delivered,
    a_message_cut_short_is_not_delivered,
    a_session_in_single_bytes_works,
    long_headers_around_small_bodies_work,
    messages_to_a_push_reach_nobody_and_are_counted,
    bad_frames_to_a_push_cost_it_one_peer_and_no_message,
}

async fn stand(place: &Place) -> Stand {
    Stand::pull(place, new_pull()).await
}

async fn every_illegal_flag_byte_is_refused(place: Place) {
    let mut stand = stand(&place).await;
    for flags in (0..=u8::MAX).filter(|flags| ![0, 1, 2, 3, 4, 6].contains(flags)) {
        let wire = [&[flags][..], b"\x05Hello\0\0\0"].concat();
        stand.casts_out("illegal flags", &wire, ProtocolError::IllegalFlags(flags)).await;
    }
    stand.goes_on().await;
}

const LIMIT: u64 = 1_000;
const FRAMES: usize = 5;

async fn limited_stand(place: &Place) -> Stand {
    #[allow(clippy::cast_possible_truncation)]
    let pull = pull_builder().max_message_size(LIMIT as usize).max_frames(FRAMES).build().unwrap();
    Stand::pull(place, pull).await
}

async fn frames_over_the_limit_are_refused_by_their_size_alone(place: Place) {
    let mut stand = limited_stand(&place).await;
    for size in [LIMIT + 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX - 8, u64::MAX] {
        for flags in [0, MORE] {
            let reason = ProtocolError::MessageTooLarge { size, limit: LIMIT };
            stand.casts_out("a frame", &long_header(flags, size), reason).await;
        }
    }
    for size in [16 * 1024 + 1, 1 << 63, u64::MAX] {
        let reason = ProtocolError::CommandTooLarge { size, limit: 16 * 1024 };
        stand.casts_out("a command", &long_header(COMMAND, size), reason).await;
    }
    stand.goes_on().await;
}

async fn a_message_over_the_limit_in_sum_is_refused(place: Place) {
    let mut stand = limited_stand(&place).await;
    for (last, size) in [(201, LIMIT + 1), (u64::MAX - 800, u64::MAX), (u64::MAX, u64::MAX)] {
        let parts = [frame(MORE, &[0; 400]), frame(MORE, &[0; 400]), long_header(0, last)].concat();
        let reason = ProtocolError::MessageTooLarge { size, limit: LIMIT };
        stand.casts_out("in sum", &parts, reason).await;
    }
    stand.goes_on().await;
}

async fn a_frame_over_its_own_limit_is_refused_by_its_size_alone(place: Place) {
    let pull = pull_builder().max_message_size(1_000_000).max_frame_size(100_000).build().unwrap();
    let mut stand = Stand::pull(&place, pull).await;
    for size in [100_001, 900_000] {
        let reason = ProtocolError::FrameTooLarge { size, limit: 100_000 };
        stand.casts_out("the only one", &long_header(0, size), reason.clone()).await;
        let second = [frame(MORE, &[7; 100_000]), long_header(0, size)].concat();
        stand.casts_out("the second one", &second, reason).await;
    }
    // Together they may be longer than one alone.
    let mut raw = stand.peer().await;
    raw.send(&[frame(MORE, &[7; 100_000]).repeat(9), frame(0, &[7; 100_000])].concat()).await;
    assert_eq!(within(stand.pull.recv()).await.unwrap(), vec![vec![7; 100_000]; 10].into());
    drop(raw);
    stand.end().await;
    stand.goes_on().await;
}

async fn a_message_of_too_many_frames_is_refused(place: Place) {
    let mut stand = limited_stand(&place).await;
    let reason = ProtocolError::TooManyFrames { limit: FRAMES };
    stand.casts_out("empty frames", &frame(MORE, b"").repeat(FRAMES + 1), reason.clone()).await;
    stand.casts_out("the last one", &[frame(MORE, b"").repeat(FRAMES), frame(0, b"")].concat(), reason.clone()).await;
    // Also when commands come between.
    let commands = [frame(MORE, b"x"), ping(b"")].concat().repeat(FRAMES + 1);
    stand.casts_out("between commands", &commands, reason).await;
    stand.goes_on().await;
}

async fn limits_are_reached_exactly(place: Place) {
    let mut stand = limited_stand(&place).await;
    let mut raw = stand.peer().await;
    raw.send(&frame(0, &[7; 1_000])).await;
    assert_eq!(within(stand.pull.recv()).await.unwrap(), vec![7; 1_000].into());
    raw.send(&[frame(MORE, &[7; 200]).repeat(FRAMES - 1), frame(0, &[7; 200])].concat()).await;
    assert_eq!(within(stand.pull.recv()).await.unwrap(), vec![vec![7; 200]; FRAMES].into());
    drop(raw);
    stand.end().await;
    stand.goes_on().await;
}

async fn messages_before_a_bad_frame_are_delivered(place: Place) {
    let mut stand = stand(&place).await;
    let wire = [frame(0, b"one"), frame(MORE, b"two"), frame(0, b"three"), b"\xFF".to_vec()].concat();
    stand.casts_out("behind good ones", &wire, ProtocolError::IllegalFlags(0xFF)).await;
    assert_eq!(within(stand.pull.recv()).await.unwrap(), "one".into());
    assert_eq!(within(stand.pull.recv()).await.unwrap(), ["two", "three"].into());
    stand.goes_on().await;
}

async fn a_message_cut_short_is_not_delivered(place: Place) {
    let mut stand = stand(&place).await;
    let message = [frame(MORE, b"one"), frame(MORE, &[2; 100_000]), frame(0, b"three")].concat();
    let cuts = [1, 2, 4, 5, 6, 10, 14, 50_000, message.len() - 5, message.len() - 4, message.len() - 1];
    for cut in cuts {
        let mut raw = stand.peer().await;
        raw.send(&message[..cut]).await;
        drop(raw);
        match stand.end().await {
            End::Disconnected(DisconnectReason::PeerClosed | DisconnectReason::Io(_)) => {}
            end => panic!("cut after {cut} bytes: {end:?}"),
        }
        stand.goes_on().await;
    }
    let received = stand.pull.stats().messages_received;
    assert_eq!(received, 3 * cuts.len() as u64, "nothing but what the good peer sent");
}

async fn a_session_in_single_bytes_works(place: Place) {
    let mut stand = stand(&place).await;
    let mut raw = stand.dial().await;
    let session = [
        &proper_greeting()[..],
        READY_PUSH,
        &frame(0, b"Hello"),
        &frame(MORE, b"A"),
        &ping(b"context"),
        &frame(MORE, b""),
        &frame(0, &[b'x'; 300]),
        &frame(0, b"end"),
    ]
    .concat();
    for byte in session {
        raw.send(&[byte]).await;
        // Lets the byte through before the next one.
        tokio::task::yield_now().await;
    }
    let expected: [Message; 3] = ["Hello".into(), [&b"A"[..], b"", &[b'x'; 300]].into_iter().collect(), "end".into()];
    for message in expected {
        assert_eq!(within(stand.pull.recv()).await.unwrap(), message);
    }
    raw.read(64 + READY_PULL.len()).await;
    assert_eq!(raw.frame().await.unwrap().body, b"\x04PONGcontext");
    drop(raw);
    stand.end().await;
    stand.goes_on().await;
}

async fn long_headers_around_small_bodies_work(place: Place) {
    let mut stand = stand(&place).await;
    let mut raw = stand.peer().await;
    raw.send(&[&long_header(MORE, 1)[..], b"A", &long_header(0, 0)].concat()).await;
    assert_eq!(within(stand.pull.recv()).await.unwrap(), ["A", ""].into());
    raw.send(&[&long_header(COMMAND, 7)[..], b"\x04PING\0\0"].concat()).await;
    assert_eq!(raw.frame().await.unwrap().body, b"\x04PONG");
    drop(raw);
    stand.end().await;
    stand.goes_on().await;
}

async fn messages_to_a_push_reach_nobody_and_are_counted(place: Place) {
    let mut stand = Stand::push(&place, new_push()).await;
    let mut raw = stand.peer().await;
    let messages = [frame(0, b"one"), frame(MORE, b"two"), frame(0, b"parts"), frame(0, &[3; 200_000])].concat();
    raw.send(&messages.repeat(5)).await;
    raw.send(&frame(0, b"small").repeat(5_000)).await;
    raw.send(&ping(b"still here?")).await;
    assert_eq!(raw.frame().await.unwrap().body, b"\x04PONGstill here?");
    assert_eq!(stand.push.stats().messages_refused, 5 * 3 + 5_000);
    assert_eq!((stand.push.stats().messages_received, stand.push.stats().inbound_messages), (0, 0));

    // It is a peer like any other, and gets its turns.
    let sending = async {
        for _ in 0..2 {
            within(stand.push.send("work")).await.unwrap();
        }
    };
    let (message, (), ()) = tokio::join!(raw.message(), sending, async {
        assert_eq!(within(stand.pull.recv()).await.unwrap(), "work".into());
    });
    assert_eq!(message.unwrap(), [b"work"]);
    drop(raw);
    stand.end().await;
    stand.goes_on().await;
}

async fn bad_frames_to_a_push_cost_it_one_peer_and_no_message(place: Place) {
    let mut stand = Stand::push(&place, new_push()).await;
    stand.casts_out("illegal flags", b"\x09", ProtocolError::IllegalFlags(9)).await;
    let limit = 64 << 20;
    let reason = ProtocolError::MessageTooLarge { size: u64::MAX, limit };
    stand.casts_out("a size", &long_header(0, u64::MAX), reason).await;
    stand.goes_on().await;
}
