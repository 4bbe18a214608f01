//! Before the handshake is finished: other protocols, other versions, bad metadata, silence.

use std::time::{Duration, Instant};

use sinew::{DisconnectReason, ProtocolError};

use crate::common::raw::*;
use crate::common::*;
use crate::stand::{End, Stand};

crate::common::over_each_transport! {
    what_is_not_zmtp_is_refused,
    older_versions_are_refused,
    newer_versions_and_meaningless_bytes_are_accepted,
    other_mechanisms_are_refused,
    what_comes_in_place_of_ready_is_refused,
    bad_metadata_is_refused_and_the_peer_is_told,
    other_socket_types_are_refused_and_the_peer_is_told,
    a_push_refuses_other_socket_types,
    an_error_is_reported_with_its_text,
    an_oversized_ready_is_refused_before_it_has_come,
    how_much_a_peer_may_say_about_itself_can_be_chosen,
    illegal_flags_in_the_handshake_are_refused,
    a_connection_that_ends_in_the_handshake_is_reported,
    a_slow_greeting_runs_out_of_time,
    silence_runs_out_of_time,
    a_ready_that_does_not_come_runs_out_of_time,
    silent_connections_keep_nobody_out_for_longer_than_the_handshake_timeout,
}

async fn stand(place: &Place) -> Stand {
    Stand::pull(place, new_pull()).await
}

/// A proper greeting followed by this.
fn greeted(rest: &[u8]) -> Vec<u8> {
    [&proper_greeting(), rest].concat()
}

async fn what_is_not_zmtp_is_refused(place: Place) {
    let mut stand = stand(&place).await;
    for wire in [&b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], b"\x16\x03\x01\x02\x00\x01", b"\0", &[0x7F; 100]] {
        stand.refuses("another protocol", wire, ProtocolError::NotZmtp { first: wire[0] }).await;
    }
    stand.goes_on().await;
}

async fn older_versions_are_refused(place: Place) {
    let mut stand = stand(&place).await;
    // ZMTP 1.0: an anonymous greeting in the short form, and an identity in the long form.
    stand.refuses("1.0", b"\x01\x00\x06\x00Hello", ProtocolError::NotZmtp { first: 1 }).await;
    let long_form = b"\xFF\0\0\0\0\0\0\0\x04\x00id1";
    stand.refuses("1.0 with identity", long_form, ProtocolError::VersionTooOld { major: 1 }).await;
    for revision in [0, 1, 2] {
        let wire = [&b"\xFF\0\0\0\0\0\0\0\x01\x7F"[..], &[revision, 8, 0, 0]].concat();
        stand.refuses("2.0", &wire, ProtocolError::VersionTooOld { major: 2 }).await;
    }
    stand.goes_on().await;
}

async fn newer_versions_and_meaningless_bytes_are_accepted(place: Place) {
    let mut stand = stand(&place).await;
    let mut padded = proper_greeting();
    for at in [1, 2, 7, 8, 32, 33, 63] {
        padded[at] = 0xA5;
    }
    for greeting in [greeting([3, 0], "NULL"), greeting([3, 9], "NULL"), greeting([4, 0], "NULL"), padded] {
        let mut raw = stand.dial().await;
        raw.send(&[&greeting[..], READY_PUSH, b"\x00\x02ok"].concat()).await;
        assert_eq!(within(stand.pull.recv()).await.unwrap(), "ok".into());
        drop(raw);
        assert!(matches!(stand.end().await, End::Disconnected(_)));
    }
    stand.goes_on().await;
}

async fn other_mechanisms_are_refused(place: Place) {
    let mut stand = stand(&place).await;
    for theirs in ["PLAIN", "CURVE", "GSSAPI", "null", "Null", "NULL ", "NULLX", "NUL", ""] {
        let wire = [&greeting([3, 1], theirs)[..], READY_PUSH].concat();
        let reason = ProtocolError::MechanismMismatch { ours: "NULL", theirs: theirs.into() };
        stand.refuses("another mechanism", &wire, reason).await;
    }
    // All twenty bytes count.
    let mut hidden = proper_greeting();
    hidden[31] = b'X';
    let reason = ProtocolError::MechanismMismatch { ours: "NULL", theirs: "NULL".into() };
    stand.refuses("bytes behind the name", &hidden, reason).await;
    stand.goes_on().await;
}

async fn what_comes_in_place_of_ready_is_refused(place: Place) {
    let mut stand = stand(&place).await;
    let unexpected = |what: &str| ProtocolError::Unexpected(what.into());
    let hello = command("HELLO", b"\x05admin\x06secret");
    let rows = [
        ("HELLO", hello, unexpected("HELLO command")),
        ("PING", ping(b""), unexpected("PING command")),
        ("SUBSCRIBE", command("SUBSCRIBE", b"A"), unexpected("SUBSCRIBE command")),
        ("ready", command("ready", b""), unexpected("ready command")),
        ("a message", frame(0, b"Hello"), unexpected("message")),
        ("a part of a message", frame(MORE, b"Hello"), unexpected("message")),
        ("READY without the command flag", [&[0], &READY_PUSH[1..]].concat(), unexpected("message")),
        ("no name", frame(COMMAND, b""), ProtocolError::MalformedCommand("handshake")),
        ("an empty name", frame(COMMAND, b"\0READY"), ProtocolError::MalformedCommand("handshake")),
        ("a name that is cut", frame(COMMAND, b"\x09READY"), ProtocolError::MalformedCommand("handshake")),
    ];
    for (what, wire, reason) in rows {
        stand.refuses(what, &greeted(&wire), reason).await;
    }
    stand.goes_on().await;
}

/// The reason in an ERROR command at the end of what a peer was sent.
fn error_text(wire: &[u8]) -> String {
    let after_greeting = wire.get(64..).unwrap_or_default();
    let error = after_greeting.get(2 + usize::from(*after_greeting.get(1).unwrap_or(&0))..).unwrap_or_default();
    match error {
        [COMMAND, size, rest @ ..] if usize::from(*size) == rest.len() && rest.starts_with(b"\x05ERROR") => {
            assert_eq!(usize::from(rest[6]), rest.len() - 7);
            String::from_utf8(rest[7..].to_vec()).unwrap()
        }
        _ => panic!("no ERROR at the end of {:?}", wire.escape_ascii().to_string()),
    }
}

async fn bad_metadata_is_refused_and_the_peer_is_told(place: Place) {
    let mut stand = stand(&place).await;
    let with = |tail: &[u8]| {
        let metadata = [b"\x0bSocket-Type\0\0\0\x04PUSH", tail].concat();
        command("READY", &metadata)
    };
    let invalid = ProtocolError::InvalidMetadata;
    let cut = || invalid("a property is cut short");
    let long = "a value is longer than 2^31-1 bytes";
    let identity = "an identity is too long or begins with zero";
    let rows = [
        ("no Socket-Type", ready(&[]), invalid("there is no Socket-Type")),
        ("only others", ready(&[("Identity", b"me")]), invalid("there is no Socket-Type")),
        ("one byte left over", with(b"\x01"), cut()),
        ("a name that is cut", with(b"\x05X-a"), cut()),
        ("a length that is cut", with(b"\x03X-a\0\0\0"), cut()),
        ("a value that is cut", with(b"\x03X-a\0\0\0\x02v"), cut()),
        ("a value that is far longer", with(b"\x03X-a\x7F\xFF\xFF\xFF"), cut()),
        ("a property without a name", with(b"\0\0\0\0\x01v"), invalid("a property has no name")),
        ("a value of 2^31", with(b"\x03X-a\x80\0\0\0"), invalid(long)),
        ("a value of 2^32-1", with(b"\x03X-a\xFF\xFF\xFF\xFF"), invalid(long)),
        ("a long identity", ready(&[("Socket-Type", b"PUSH"), ("Identity", &[b'x'; 256])]), invalid(identity)),
        ("a reserved identity", ready(&[("Socket-Type", b"PUSH"), ("Identity", b"\0me")]), invalid(identity)),
    ];
    for (what, wire, reason) in rows {
        let told = stand.refuses(what, &greeted(&wire), reason.clone()).await;
        assert_eq!(error_text(&told), reason.to_string(), "{what}");
    }
    stand.goes_on().await;

    // What is unusual and not forbidden.
    let name = "X-".repeat(127);
    let long_identity = [b'x'; 255];
    for properties in [
        vec![("socket-type", &b"PUSH"[..])],
        vec![("Socket-Type", b"PUSH"), ("Identity", b"")],
        vec![("Identity", &long_identity), ("Socket-Type", b"PUSH"), ("X-Empty", b"")],
        vec![(&name, &[0; 10_000]), ("Socket-Type", b"PUSH")],
    ] {
        let mut raw = Raw::peer(&stand.endpoint, &ready(&properties)).await;
        raw.send(b"\x00\x02ok").await;
        assert_eq!(within(stand.pull.recv()).await.unwrap(), "ok".into());
        drop(raw);
        stand.end().await;
    }
    stand.goes_on().await;
}

async fn other_socket_types_are_refused_and_the_peer_is_told(place: Place) {
    let stand = stand(&place).await;
    refuses_socket_types(stand, "PULL", &["PULL", "PUB", "SUB", "REQ", "DEALER", "PAIR", "push", "Push", "PUSH ", ""])
        .await;
}

async fn a_push_refuses_other_socket_types(place: Place) {
    let stand = Stand::push(&place, new_push()).await;
    refuses_socket_types(stand, "PUSH", &["PUSH", "XSUB", "ROUTER", "pull", "PULLX", "\0\n"]).await;
}

async fn refuses_socket_types(mut stand: Stand, ours: &'static str, types: &[&str]) {
    for theirs in types {
        let wire = greeted(&ready(&[("Socket-Type", theirs.as_bytes())]));
        let theirs = theirs.as_bytes().escape_ascii().to_string();
        let reason = ProtocolError::SocketTypeMismatch { ours, theirs };
        let told = stand.refuses("another socket type", &wire, reason.clone()).await;
        assert_eq!(error_text(&told), reason.to_string());
    }
    stand.goes_on().await;
}

async fn an_error_is_reported_with_its_text(place: Place) {
    let mut stand = stand(&place).await;
    for reason in ["400", "", "no entry", &"x".repeat(255)] {
        let data = [&[u8::try_from(reason.len()).unwrap()], reason.as_bytes()].concat();
        let refused = ProtocolError::Refused { reason: reason.into() };
        stand.refuses("ERROR", &greeted(&command("ERROR", &data)), refused).await;
    }
    for data in [&b""[..], b"\x04400", b"\x02400"] {
        let malformed = ProtocolError::MalformedCommand("ERROR");
        stand.refuses("a malformed ERROR", &greeted(&command("ERROR", data)), malformed).await;
    }
    stand.goes_on().await;
}

async fn an_oversized_ready_is_refused_before_it_has_come(place: Place) {
    let mut stand = stand(&place).await;
    for size in [16 * 1024 + 1, 1 << 20, 1 << 40, 1 << 63, u64::MAX] {
        let wire = greeted(&[&long_header(COMMAND, size)[..], b"\x05READY"].concat());
        stand.refuses("oversized", &wire, ProtocolError::CommandTooLarge { size, limit: 16 * 1024 }).await;
    }
    stand.goes_on().await;
}

async fn how_much_a_peer_may_say_about_itself_can_be_chosen(place: Place) {
    let ready = |size: usize| {
        let value = vec![b'x'; size - b"\x05READY\x0bSocket-Type\0\0\0\x04PUSH\x02X-\0\0\0\0".len()];
        let length = u32::try_from(value.len()).unwrap().to_be_bytes();
        command("READY", &[&b"\x0bSocket-Type\0\0\0\x04PUSH\x02X-"[..], &length, &value].concat())
    };
    for limit in [100, 100_000] {
        let mut stand = Stand::pull(&place, pull_builder().max_metadata_size(limit).build().unwrap()).await;
        let mut raw = stand.dial().await;
        raw.send(&greeted(&ready(limit))).await;
        raw.send(&frame(0, b"after so much")).await;
        assert_eq!(within(stand.pull.recv()).await.unwrap(), "after so much".into());
        drop(raw);
        assert!(matches!(stand.end().await, End::Disconnected(_)));
        let reason = ProtocolError::CommandTooLarge { size: limit as u64 + 1, limit: limit as u64 };
        stand.refuses("a byte more", &greeted(&ready(limit + 1)), reason).await;
        stand.goes_on().await;
    }
}

async fn illegal_flags_in_the_handshake_are_refused(place: Place) {
    let mut stand = stand(&place).await;
    for flags in [COMMAND | MORE, COMMAND | MORE | LONG, 0x08, 0x0C, 0x80, 0xFF] {
        let wire = greeted(&[&[flags], &READY_PUSH[1..]].concat());
        stand.refuses("illegal flags", &wire, ProtocolError::IllegalFlags(flags)).await;
    }
    stand.goes_on().await;
}

async fn a_connection_that_ends_in_the_handshake_is_reported(place: Place) {
    let mut stand = stand(&place).await;
    let whole = greeted(READY_PUSH);
    for length in [0, 1, 10, 11, 12, 63, 64, 65, whole.len() - 1] {
        let mut raw = stand.dial().await;
        raw.send(&whole[..length]).await;
        drop(raw);
        // Whether the system calls it an end or a reset depends on what had been read.
        match stand.end().await {
            // It has shown that it speaks ZMTP, seen our greeting, and not finished its own.
            End::HandshakeFailed(DisconnectReason::Protocol(ProtocolError::GreetingRefused { ours: "NULL" }))
                if (10..64).contains(&length) => {}
            End::HandshakeFailed(DisconnectReason::PeerClosed | DisconnectReason::Io(_))
                if !(10..64).contains(&length) => {}
            end => panic!("after {length} bytes: {end:?}"),
        }
    }
    stand.goes_on().await;
}

const SHORT: Duration = Duration::from_millis(200);

async fn impatient_stand(place: &Place) -> Stand {
    Stand::pull(place, pull_builder().handshake_timeout(SHORT).build().unwrap()).await
}

async fn a_slow_greeting_runs_out_of_time(place: Place) {
    let mut stand = impatient_stand(&place).await;
    let mut raw = stand.dial().await;
    let start = Instant::now();
    let dribble = async {
        for byte in proper_greeting() {
            if raw.try_send(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let (end, ()) = tokio::join!(stand.end(), dribble);
    assert_eq!(end, End::HandshakeFailed(DisconnectReason::Protocol(ProtocolError::HandshakeTimeout)));
    assert!((SHORT..SHORT + TOLERANCE).contains(&start.elapsed()), "{:?}", start.elapsed());
    stand.goes_on().await;
}

async fn silence_runs_out_of_time(place: Place) {
    let mut stand = impatient_stand(&place).await;
    let mut silent = Vec::new();
    for _ in 0..5 {
        silent.push(stand.dial().await);
    }
    for mut raw in silent {
        let end = stand.end().await;
        assert_eq!(end, End::HandshakeFailed(DisconnectReason::Protocol(ProtocolError::HandshakeTimeout)));
        assert_eq!(raw.end().await, proper_greeting(), "it was greeted, and told nothing else");
    }
    stand.goes_on().await;
}

async fn a_ready_that_does_not_come_runs_out_of_time(place: Place) {
    let mut stand = impatient_stand(&place).await;
    let mut raw = stand.dial().await;
    raw.send(&greeted(&READY_PUSH[..READY_PUSH.len() - 1])).await;
    let end = stand.end().await;
    assert_eq!(end, End::HandshakeFailed(DisconnectReason::Protocol(ProtocolError::HandshakeTimeout)));
    raw.end().await;
    stand.goes_on().await;
}

async fn silent_connections_keep_nobody_out_for_longer_than_the_handshake_timeout(place: Place) {
    let pull = pull_builder().handshake_timeout(SHORT).max_pending_handshakes(2).build().unwrap();
    let mut stand = Stand::pull(&place, pull).await;
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(stand.dial().await);
    }
    let late = new_push();
    late.connect(&stand.endpoint).unwrap();
    within(late.send("late")).await.unwrap();
    assert_eq!(within(stand.pull.recv()).await.unwrap(), "late".into());
    drop((late, silent));
    for _ in 0..7 {
        stand.end().await;
    }
    stand.goes_on().await;
}
