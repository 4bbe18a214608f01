//! Commands after the handshake: unknown ones, malformed ones, floods, and answers that keep out of messages.

use sinew::{DisconnectReason, Message, ProtocolError};
use tokio::io::AsyncWriteExt;

use crate::common::raw::*;
use crate::common::*;
use crate::stand::{End, Stand};

crate::common::over_each_transport! {
    commands_that_a_pull_does_not_know_never_reach_the_user,
    a_malformed_ping_is_refused,
    a_ping_is_answered_with_its_context,
    a_ping_inside_of_a_message_is_answered_at_once,
    a_ping_is_answered_while_the_inbound_queue_is_full,
    pings_without_reading_the_answers_are_refused,
    pongs_keep_out_of_frames_and_messages_when_a_push_is_held_back,
}

async fn stand(place: &Place) -> Stand {
    Stand::pull(place, new_pull()).await
}

async fn commands_that_a_pull_does_not_know_never_reach_the_user(place: Place) {
    let mut stand = stand(&place).await;
    let mut raw = stand.peer().await;
    let commands = [
        command("SUBSCRIBE", b"A"),
        command("CANCEL", b"A"),
        command("JOIN", b"group"),
        command("PONG", b"nobody asked"),
        command("READY", b""),
        command("ERROR", b"\x03400"),
        command("HELLO", &[0; 194]),
        command("X-UNKNOWN", &[1; 10_000]),
        frame(COMMAND, b""),
        frame(COMMAND, b"\0"),
        frame(COMMAND, b"\xFFshort"),
        [&long_header(COMMAND, 16 * 1024)[..], &[1; 16 * 1024]].concat(),
    ];
    for (index, command) in commands.iter().enumerate() {
        let message = format!("after {index}");
        // Between messages, and inside of one.
        raw.send(&[&command[..], &frame(MORE, message.as_bytes()), command, &frame(0, b"")].concat()).await;
        assert_eq!(within(stand.pull.recv()).await.unwrap(), [&message, ""].into());
    }
    assert_eq!(stand.pull.stats().peers, 2, "the connection stays");
    drop(raw);
    stand.end().await;
    stand.goes_on().await;
}

async fn a_malformed_ping_is_refused(place: Place) {
    let mut stand = stand(&place).await;
    for data in [&b""[..], b"\0", &[0; 2 + 17], &[0; 1_000]] {
        let reason = ProtocolError::MalformedCommand("PING");
        stand.casts_out("a PING", &command("PING", data), reason).await;
    }
    stand.goes_on().await;
}

async fn a_ping_is_answered_with_its_context(place: Place) {
    for mut stand in [stand(&place).await, Stand::push(&place, new_push()).await] {
        let mut raw = stand.peer().await;
        for context in [&b""[..], b"x", b"\0\xFF\0", &[7; 16]] {
            raw.send(&ping(context)).await;
            let pong = raw.frame().await.unwrap();
            assert_eq!((pong.flags, pong.body), (COMMAND, [b"\x04PONG", context].concat()));
        }
        drop(raw);
        stand.end().await;
        stand.goes_on().await;
    }
}

async fn a_ping_inside_of_a_message_is_answered_at_once(place: Place) {
    let mut stand = stand(&place).await;
    let mut raw = stand.peer().await;
    // Frames below and above the sizes at which messages are put together in another way.
    for size in [1, 300, 100_000] {
        raw.send(&[frame(MORE, &vec![1; size]), ping(b"inside")].concat()).await;
        assert_eq!(raw.frame().await.unwrap().body, b"\x04PONGinside");
        assert!(stand.pull.try_recv().is_err(), "half a message is none");
        raw.send(&frame(0, b"end")).await;
        let expected: Message = [vec![1; size], b"end".to_vec()].into_iter().collect();
        assert_eq!(within(stand.pull.recv()).await.unwrap(), expected);
    }
    drop(raw);
    stand.end().await;
    stand.goes_on().await;
}

async fn a_ping_is_answered_while_the_inbound_queue_is_full(place: Place) {
    const MESSAGES: usize = 100;
    let mut stand = Stand::pull(&place, pull_builder().receive_high_water_mark(3).build().unwrap()).await;
    let mut raw = stand.peer().await;
    for round in 0..3 {
        raw.send(&frame(0, b"waits").repeat(MESSAGES)).await;
        raw.send(&ping(format!("round {round}").as_bytes())).await;
        assert_eq!(raw.frame().await.unwrap().body, format!("\x04PONGround {round}").as_bytes());
        assert_eq!(stand.pull.stats().inbound_messages, 3);
    }
    for _ in 0..3 * MESSAGES {
        assert_eq!(within(stand.pull.recv()).await.unwrap(), "waits".into());
    }
    drop(raw);
    stand.end().await;
    stand.goes_on().await;
}

async fn pings_without_reading_the_answers_are_refused(place: Place) {
    let small = pull_builder().kernel_send_buffer(4_096).build().unwrap();
    let pull = Stand::pull(&place, small).await;
    let small = push_builder().kernel_send_buffer(4_096).build().unwrap();
    let push = Stand::push(&place, small).await;
    for mut stand in [pull, push] {
        let mut raw = stand.peer().await;
        let flood = ping(&[7; 16]).repeat(1_000);
        // Bounded: buffers of some hundred KiB are full long before.
        for _ in 0..10_000 {
            if raw.try_send(&flood).await.is_err() {
                break;
            }
        }
        let flooded = DisconnectReason::Protocol(ProtocolError::CommandFlood);
        assert_eq!(stand.end().await, End::Disconnected(flooded));
        stand.goes_on().await;
    }
}

/// Message `number` that a held-back PUSH sends: small and large frames, short and long.
fn held_back(number: usize) -> Message {
    let large = [10, 300, 20_000, 70_000][number % 4];
    let first = number.to_string().into_bytes();
    match number % 3 {
        0 => [first, vec![1; large]].into_iter().collect(),
        1 => [first, vec![], vec![2; large], vec![3; 100]].into_iter().collect(),
        _ => first.into(),
    }
}

async fn pongs_keep_out_of_frames_and_messages_when_a_push_is_held_back(place: Place) {
    const MESSAGES: usize = 600;
    const PINGS: usize = 200;
    let push = push_builder().kernel_send_buffer(4_096).build().unwrap();
    let endpoint = within(push.bind(place.wildcard())).await.unwrap();
    let raw = Raw::peer(&endpoint, READY_PULL).await;
    let (mut reader, mut writer) = raw.split();
    let sending = tokio::spawn(async move {
        for number in 0..MESSAGES {
            within(push.send(held_back(number))).await.unwrap();
        }
        push
    });
    let pinging = tokio::spawn(async move {
        for number in 0..PINGS {
            within(writer.write_all(&ping(&number.to_be_bytes()))).await.unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        writer
    });

    let (mut messages, mut pongs) = (0, 0);
    let mut parts: Vec<Vec<u8>> = Vec::new();
    while messages < MESSAGES || pongs < PINGS {
        let frame = within(read_frame(&mut reader)).await.unwrap();
        assert!([0, 1, 2, 3, 4, 6].contains(&frame.flags), "not a frame's start: {:#x}", frame.flags);
        if frame.is_command() {
            assert!(parts.is_empty(), "a PONG inside of a message");
            assert_eq!(frame.body, [&b"\x04PONG"[..], &pongs.to_be_bytes()].concat());
            pongs += 1;
            continue;
        }
        let more = frame.more();
        parts.push(frame.body);
        if !more {
            assert_eq!(std::mem::take(&mut parts).into_iter().collect::<Message>(), held_back(messages));
            messages += 1;
            // Reads slowly, so that writes stop in the middle of frames.
            tokio::task::yield_now().await;
        }
    }
    drop((within(sending).await.unwrap(), within(pinging).await.unwrap()));
}
