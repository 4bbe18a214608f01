//! Subscribers that read too slowly: what each policy drops, exactly how much, and who else notices.

use std::time::Duration;

use futures::future::join_all;
use sinew::{DisconnectReason, Endpoint, Event, Monitor, PeerId, PubBuilder, PubSocket, SlowSubscriber, TrySendError};

use crate::common::raw::*;
use crate::common::topics::*;
use crate::common::*;

crate::behaviours! {
    a_subscriber_that_does_not_read_holds_exactly_the_mark_and_gets_all_of_it,
    a_subscriber_that_does_not_read_holds_at_most_the_bytes_of_the_mark,
    a_message_over_the_byte_mark_passes_when_nothing_is_queued_for_the_subscriber,
    with_drop_oldest_the_newest_of_the_mark_arrive,
    with_keep_latest_at_most_one_message_waits_and_it_is_the_last,
    with_keep_latest_a_multipart_message_is_replaced_whole,
    with_keep_latest_a_subscriber_that_keeps_up_gets_everything,
    with_wait_nothing_is_dropped,
    with_wait_what_nobody_wants_waits_for_nobody,
    with_wait_the_slowest_sets_the_pace_until_it_goes,
    with_disconnect_the_slow_one_is_sent_away,
    without_a_mark_nothing_is_dropped,
    a_burst_of_the_mark_arrives_whole_again_and_again,
    a_burst_of_the_bytes_of_the_mark_arrives_whole_again_and_again,
    a_burst_of_exactly_the_mark_is_accepted_and_received,
    what_has_been_received_no_longer_counts_towards_the_mark,
    a_subscriber_that_recovers_loses_nothing_more,
    a_subscriber_that_loses_is_reported_when_it_begins_and_when_it_ends,
    a_subscriber_that_reads_a_little_is_reported_once,
    keeping_the_latest_only_is_not_reported_as_a_loss,
    what_is_lost_with_a_connection_is_counted,
    a_subscriber_whose_own_queue_is_full_loses_at_the_publisher_alone,
    a_stuck_subscriber_slows_nobody,
    losses_are_counted_for_each_subscriber,
    closing_does_not_wait_longer_than_it_may_for_one_that_is_stuck,
}

/// Of these the kernel takes few.
const BODY: usize = 8 * 1024;

/// The kernel's buffer for each subscriber. Much smaller, and TCP waits for timers.
const KERNEL: usize = 256 * 1024;

/// Far more than any kernel takes from a peer that does not read.
const PLENTY: u64 = 5_000;

const DROPPING: [SlowSubscriber; 3] =
    [SlowSubscriber::DropNewest, SlowSubscriber::DropOldest, SlowSubscriber::KeepLatest];

/// A publisher and a raw subscriber to everything, which does not read.
async fn stuck(place: &Place, builder: PubBuilder) -> (PubSocket, Endpoint, Raw) {
    let (publisher, endpoint) = bound_pub(place, builder.kernel_send_buffer(KERNEL)).await;
    let raw = raw_subscriber(&endpoint, &[b""]).await;
    publisher.known("", 1).await;
    (publisher, endpoint, raw)
}

fn dropped(publisher: &PubSocket) -> u64 {
    publisher.stats().messages_dropped
}

/// What is queued for the subscriber that has most.
fn queued(publisher: &PubSocket) -> (usize, usize) {
    publisher.peers().iter().map(|peer| (peer.queued_messages, peer.queued_bytes)).max().unwrap_or_default()
}

/// Publishes numbers until some are lost and the kernel takes no more; gives the next number.
async fn publish_until_full(publisher: &PubSocket, first: u64) -> u64 {
    let mut next = first;
    let mut before = dropped(publisher);
    loop {
        while dropped(publisher) == before {
            assert!(next < first + PLENTY, "{PLENTY} messages, and the kernel has taken them all");
            next = publish(publisher, next, 1).await;
        }
        // The kernel may make room a little later; until the next message is lost, too, and nothing else changes.
        settled(|| publisher.stats().messages_sent).await;
        before = dropped(publisher);
        let waiting = queued(publisher).0;
        next = publish(publisher, next, 1).await;
        settled(|| publisher.stats().messages_sent).await;
        if (dropped(publisher), queued(publisher).0) == (before + 1, waiting) {
            return next;
        }
        before = dropped(publisher);
    }
}

/// Publishes so many more; gives the next number.
async fn publish(publisher: &PubSocket, first: u64, count: u64) -> u64 {
    for number in first..first + count {
        publisher.say(padded(number, BODY)).await;
    }
    first + count
}

/// Reads so many whole numbered messages, in order; gives their numbers.
async fn read_numbers(raw: &mut Raw, count: u64) -> Vec<u64> {
    let mut numbers = Vec::<u64>::new();
    for _ in 0..count {
        let frames = raw.message().await.expect("the publisher is there");
        assert_eq!((frames.len(), frames[0].len() + frames[1].len()), (2, BODY));
        let number = std::str::from_utf8(&frames[0]).unwrap().parse().unwrap();
        assert!(numbers.last().is_none_or(|last| *last < number), "{number} comes after {:?}", numbers.last());
        numbers.push(number);
    }
    numbers
}

/// What is published now is the next thing that the subscriber reads.
async fn up_to_date(publisher: &PubSocket, raw: &mut Raw) {
    publisher.say("up to date").await;
    assert_eq!(raw.message().await.unwrap(), [b"up to date"]);
}

async fn a_subscriber_that_does_not_read_holds_exactly_the_mark_and_gets_all_of_it(place: Place) {
    let place = &place;
    join_all([1, 10, 200].map(|mark| async move {
        let (publisher, _, mut raw) = stuck(place, pub_builder().send_high_water_mark(mark)).await;
        let sent = publish_until_full(&publisher, 0).await;
        assert_eq!(queued(&publisher).0, mark);
        let before = dropped(&publisher);
        let sent = publish(&publisher, sent, 50).await;
        eventually(|| dropped(&publisher) == before + 50).await;
        let numbers = read_numbers(&mut raw, sent - dropped(&publisher)).await;
        assert_eq!(numbers[0], 0);
        up_to_date(&publisher, &mut raw).await;
        assert_eq!(dropped(&publisher), before + 50);
    }))
    .await;
}

async fn a_subscriber_that_does_not_read_holds_at_most_the_bytes_of_the_mark(place: Place) {
    let builder = pub_builder().send_high_water_mark(0).send_high_water_mark_bytes(10 * BODY);
    let (publisher, _, mut raw) = stuck(&place, builder).await;
    let sent = publish_until_full(&publisher, 0).await;
    assert_eq!(queued(&publisher), (10, 10 * BODY));
    let before = dropped(&publisher);
    // What is smaller does not slip through.
    publisher.say("small").await;
    let sent = publish(&publisher, sent, 20).await;
    eventually(|| dropped(&publisher) == before + 21).await;
    read_numbers(&mut raw, sent + 1 - dropped(&publisher)).await;
    up_to_date(&publisher, &mut raw).await;
}

async fn a_message_over_the_byte_mark_passes_when_nothing_is_queued_for_the_subscriber(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder().send_high_water_mark_bytes(1_000)).await;
    let subscriber = subscriber(&endpoint, &[""]);
    publisher.known("", 1).await;
    for number in 0..20 {
        publisher.say(padded(number, 500_000)).await;
        assert_eq!(subscriber.next().await, padded(number, 500_000));
    }
    assert_eq!(dropped(&publisher), 0);
}

async fn with_drop_oldest_the_newest_of_the_mark_arrive(place: Place) {
    let place = &place;
    join_all([1_u64, 10, 200].map(|mark| async move {
        let builder = pub_builder().slow_subscriber(SlowSubscriber::DropOldest);
        let (publisher, _, mut raw) = stuck(place, builder.send_high_water_mark(mark as usize)).await;
        let sent = publish_until_full(&publisher, 0).await;
        // The newest one waits even behind one that is being written, which is all that a mark of 1 allows.
        let most = (mark as usize).max(2);
        assert!((mark as usize..=most).contains(&queued(&publisher).0), "{:?}", queued(&publisher));
        let before = dropped(&publisher);
        let sent = publish(&publisher, sent, 2 * mark).await;
        eventually(|| dropped(&publisher) == before + 2 * mark).await;
        let numbers = read_numbers(&mut raw, sent - dropped(&publisher)).await;
        let (_, newest) = numbers.split_at(numbers.len() - mark as usize);
        // One that was being written is not taken back.
        let expected = (sent - mark..sent).collect::<Vec<_>>();
        assert_eq!(newest[1..], expected[1..]);
        up_to_date(&publisher, &mut raw).await;
    }))
    .await;
}

async fn with_keep_latest_at_most_one_message_waits_and_it_is_the_last(place: Place) {
    let builder = pub_builder().slow_subscriber(SlowSubscriber::KeepLatest);
    let (publisher, _, mut raw) = stuck(&place, builder).await;
    let mut sent = 0;
    for _ in 0..2 {
        let before = sent - dropped(&publisher);
        sent = publish_until_full(&publisher, sent).await;
        sent = publish(&publisher, sent, 100).await;
        settled(|| dropped(&publisher)).await;
        // One waits, and one may be half written.
        assert!(queued(&publisher).0 <= 2, "{:?}", queued(&publisher));
        let numbers = read_numbers(&mut raw, sent - dropped(&publisher) - before).await;
        assert_eq!(numbers.last(), Some(&(sent - 1)));
    }
    up_to_date(&publisher, &mut raw).await;
}

async fn with_keep_latest_a_multipart_message_is_replaced_whole(place: Place) {
    let builder = pub_builder().slow_subscriber(SlowSubscriber::KeepLatest);
    let (publisher, _, mut raw) = stuck(&place, builder).await;
    let frames = |number: u64| (0..=number % 5).map(|_| number.to_string().repeat(500)).collect::<Vec<_>>();
    for number in 0..PLENTY {
        publisher.say(frames(number)).await;
    }
    settled(|| dropped(&publisher) + publisher.stats().messages_sent).await;
    assert_ne!(dropped(&publisher), 0);
    for left in (0..PLENTY - dropped(&publisher)).rev() {
        let message = raw.message().await.unwrap();
        let text = String::from_utf8(message[0].clone()).unwrap();
        let number = text[..text.len() / 500].parse().unwrap();
        assert!(message.iter().eq(frames(number).iter().map(|frame| frame.as_bytes())), "{number} is not whole");
        assert!(left > 0 || number == PLENTY - 1, "the last one is {number}");
    }
    up_to_date(&publisher, &mut raw).await;
}

async fn with_keep_latest_a_subscriber_that_keeps_up_gets_everything(place: Place) {
    let (publisher, endpoint) = bound_pub(&place, pub_builder().slow_subscriber(SlowSubscriber::KeepLatest)).await;
    let subscriber = subscriber(&endpoint, &[""]);
    publisher.known("", 1).await;
    for expected in 0..500 {
        publisher.say(numbered(expected)).await;
        assert_eq!(number(&subscriber.next().await), expected);
    }
    assert_eq!(dropped(&publisher), 0);
}

async fn with_wait_nothing_is_dropped(place: Place) {
    let place = &place;
    join_all([1, 10, 100].map(|mark| async move {
        let builder = pub_builder().slow_subscriber(SlowSubscriber::Wait).send_high_water_mark(mark);
        let (publisher, _, mut raw) = stuck(place, builder).await;
        let sending = tokio::spawn({
            let publisher = publisher.clone();
            async move { publish(&publisher, 0, 1_000).await }
        });
        settled(|| publisher.stats().messages_sent).await;
        assert!(!sending.is_finished());
        assert!(queued(&publisher).0 <= mark, "{:?} at a mark of {mark}", queued(&publisher));
        assert_eq!(publisher.try_send("one more"), Err(TrySendError::Full("one more".into())));
        assert_eq!(read_numbers(&mut raw, 1_000).await, (0..1_000).collect::<Vec<_>>());
        within(sending).await.unwrap();
        up_to_date(&publisher, &mut raw).await;
        assert_eq!(dropped(&publisher), 0);
    }))
    .await;
}

async fn with_wait_what_nobody_wants_waits_for_nobody(place: Place) {
    let builder = pub_builder().slow_subscriber(SlowSubscriber::Wait).send_high_water_mark(10);
    let (publisher, endpoint) = bound_pub(&place, builder).await;
    let mut raw = raw_subscriber(&endpoint, &[b"A"]).await;
    publisher.known("A", 1).await;
    let mut wanted = 0;
    settled(|| {
        while publisher.try_send(["A", &"x".repeat(BODY)]).is_ok() {
            wanted += 1;
            assert!(wanted < PLENTY, "{PLENTY} messages, and there is still room");
        }
        wanted
    })
    .await;
    // As long as somebody wants it, it has to wait, whether that one cancels or goes.
    let sub = new_sub();
    sub.connect(&endpoint).unwrap();
    for leaves in [false, true] {
        sub.subscribe("B");
        publisher.known("B", 1).await;
        assert!(matches!(publisher.try_send("B"), Err(TrySendError::Full(_))));
        if leaves {
            within(sub.close()).await.unwrap();
        } else {
            sub.unsubscribe("B");
        }
        let mut accepted = 0;
        eventually(|| {
            accepted += u64::from(publisher.try_send(["B", "nobody wants it"]).is_ok());
            accepted == 100
        })
        .await;
        assert_eq!(publisher.stats().messages_unmatched, if leaves { 200 } else { 100 });
    }
    assert!(matches!(publisher.try_send("A"), Err(TrySendError::Full(_))));
    for _ in 0..wanted {
        assert_eq!(raw.message().await.unwrap()[0], b"A");
    }
}

async fn with_wait_the_slowest_sets_the_pace_until_it_goes(place: Place) {
    let builder = pub_builder().slow_subscriber(SlowSubscriber::Wait).send_high_water_mark(10);
    let (publisher, endpoint, raw) = stuck(&place, builder).await;
    let mut monitor = publisher.monitor();
    let mut other = raw_subscriber(&endpoint, &[b""]).await;
    publisher.known("", 2).await;
    let sending = tokio::spawn({
        let publisher = publisher.clone();
        async move { publish(&publisher, 0, 1_000).await }
    });
    let reading = tokio::spawn(async move { read_numbers(&mut other, 1_000).await });
    settled(|| publisher.stats().messages_sent).await;
    assert!(!sending.is_finished() && !reading.is_finished());
    drop(raw);
    wait_disconnected(&mut monitor).await;
    within(sending).await.unwrap();
    assert_eq!(within(reading).await.unwrap(), (0..1_000).collect::<Vec<_>>());
}

async fn with_disconnect_the_slow_one_is_sent_away(place: Place) {
    const MARK: u64 = 10;
    let builder = pub_builder().slow_subscriber(SlowSubscriber::Disconnect).send_high_water_mark(MARK as usize);
    let (publisher, endpoint, mut raw) = stuck(&place, builder).await;
    let other = subscriber(&endpoint, &[""]);
    publisher.known("", 2).await;
    let mut monitor = publisher.monitor();
    let mut sent = 0;
    while publisher.peers().len() == 2 {
        assert!(sent < PLENTY, "{PLENTY} messages, and the slow one is still there");
        publisher.say(padded(sent, BODY)).await;
        assert_eq!(number(&other.next().await), sent);
        sent += 1;
    }
    assert_eq!(wait_reason(&mut monitor).await, DisconnectReason::TooSlow);
    assert!(dropped(&publisher) >= MARK, "what was queued is lost, and counted");
    raw.end().await;
    // It may come again, and the other one has noticed nothing.
    let mut raw = raw_subscriber(&endpoint, &[b""]).await;
    publisher.known("", 2).await;
    publisher.say("again").await;
    assert_eq!(raw.message().await.unwrap(), [b"again"]);
    assert_eq!(other.next().await, "again".into());
}

async fn without_a_mark_nothing_is_dropped(place: Place) {
    let builder = pub_builder().send_high_water_mark(0).send_high_water_mark_bytes(0);
    let (publisher, _, mut raw) = stuck(&place, builder).await;
    publish(&publisher, 0, 3_000).await;
    assert_eq!(read_numbers(&mut raw, 3_000).await, (0..3_000).collect::<Vec<_>>());
    assert_eq!(dropped(&publisher), 0);
}

async fn a_burst_of_the_mark_arrives_whole_again_and_again(place: Place) {
    const MARK: u64 = 5;
    let policies =
        [SlowSubscriber::DropNewest, SlowSubscriber::DropOldest, SlowSubscriber::Wait, SlowSubscriber::Disconnect];
    let place = &place;
    join_all(policies.map(|policy| async move {
        let builder = pub_builder().slow_subscriber(policy).send_high_water_mark(MARK as usize);
        let (publisher, endpoint, mut raw) = stuck(place, builder).await;
        let subscriber = sub_builder().receive_high_water_mark(MARK as usize).build().unwrap();
        subscriber.subscribe("");
        subscriber.connect(&endpoint).unwrap();
        publisher.known("", 2).await;
        for round in 0..200 {
            let burst = (round * MARK..(round + 1) * MARK).collect::<Vec<_>>();
            for number in &burst {
                publisher.try_send(padded(*number, BODY)).unwrap();
            }
            assert_eq!(read_numbers(&mut raw, MARK).await, burst);
            for expected in burst {
                assert_eq!(number(&subscriber.next().await), expected);
            }
        }
        assert_eq!(dropped(&publisher), 0);
    }))
    .await;
}

async fn a_burst_of_the_bytes_of_the_mark_arrives_whole_again_and_again(place: Place) {
    let builder = pub_builder().send_high_water_mark(0).send_high_water_mark_bytes(3 * BODY);
    let (publisher, _, mut raw) = stuck(&place, builder).await;
    for round in 0..200 {
        publish(&publisher, 3 * round, 3).await;
        assert_eq!(read_numbers(&mut raw, 3).await, [3 * round, 3 * round + 1, 3 * round + 2]);
    }
    assert_eq!(dropped(&publisher), 0);
}

async fn a_burst_of_exactly_the_mark_is_accepted_and_received(place: Place) {
    for mark in [1_000, 100] {
        let (publisher, endpoint) = bound_pub(&place, pub_builder().send_high_water_mark(mark)).await;
        let subscriber = subscriber(&endpoint, &[""]);
        publisher.known("", 1).await;
        for number in 0..mark as u64 {
            publisher.try_send(numbered(number)).unwrap();
        }
        for expected in 0..mark as u64 {
            assert_eq!(number(&subscriber.next().await), expected);
        }
        assert_eq!(dropped(&publisher), 0);
    }
}

async fn what_has_been_received_no_longer_counts_towards_the_mark(place: Place) {
    const MARK: usize = 11_024;
    let (publisher, endpoint) = bound_pub(&place, pub_builder().send_high_water_mark(MARK)).await;
    let subscriber = sub_builder().receive_high_water_mark(MARK).build().unwrap();
    subscriber.subscribe("");
    subscriber.connect(&endpoint).unwrap();
    publisher.known("", 1).await;
    for count in [9_999, 1_100, MARK] {
        for _ in 0..count {
            publisher.try_send("").unwrap();
        }
        assert_eq!(texts(&subscriber, count).await.len(), count);
    }
    assert_eq!(dropped(&publisher), 0);
}

async fn a_subscriber_that_recovers_loses_nothing_more(place: Place) {
    const MARK: u64 = 20;
    let place = &place;
    join_all(DROPPING.map(|policy| async move {
        let builder = pub_builder().slow_subscriber(policy).send_high_water_mark(MARK as usize);
        let (publisher, _, mut raw) = stuck(place, builder).await;
        let (mut sent, mut read) = (0, 0);
        for _ in 0..2 {
            sent = publish_until_full(&publisher, sent).await;
            let lost = dropped(&publisher);
            read_numbers(&mut raw, sent - lost - read).await;
            // One by one now; with the two policies that queue, also a whole mark at once.
            let burst = if matches!(policy, SlowSubscriber::KeepLatest) { 1 } else { MARK };
            for _ in 0..20 {
                let numbers = (sent..sent + burst).collect::<Vec<_>>();
                sent = publish(&publisher, sent, burst).await;
                assert_eq!(read_numbers(&mut raw, burst).await, numbers);
            }
            assert_eq!(dropped(&publisher), lost);
            read = sent - lost;
        }
    }))
    .await;
}

enum Loss {
    Began(PeerId),
    Ended(PeerId, u64),
}

async fn next_loss(monitor: &mut Monitor) -> Loss {
    wait_for(monitor, |event| match event {
        Event::LosingBegan { peer } => Some(Loss::Began(peer.id)),
        Event::LosingEnded { peer, dropped } => Some(Loss::Ended(peer.id, dropped)),
        _ => None,
    })
    .await
}

async fn a_subscriber_that_loses_is_reported_when_it_begins_and_when_it_ends(place: Place) {
    let place = &place;
    join_all([SlowSubscriber::DropNewest, SlowSubscriber::DropOldest].map(|policy| async move {
        let builder = pub_builder().slow_subscriber(policy).send_high_water_mark(10);
        let (publisher, _, mut raw) = stuck(place, builder).await;
        let peer = publisher.peers()[0].peer.id;
        let mut monitor = publisher.monitor();
        let (mut sent, mut read, mut lost) = (0, 0, 0);
        for _ in 0..2 {
            sent = publish_until_full(&publisher, sent).await;
            sent = publish(&publisher, sent, 10).await;
            settled(|| dropped(&publisher)).await;
            let now = dropped(&publisher);
            read_numbers(&mut raw, sent - now - read).await;
            read = sent - now;
            up_to_date(&publisher, &mut raw).await;
            // The kernel may have made room in between: then it ended, and began again.
            while lost < now {
                assert!(matches!(next_loss(&mut monitor).await, Loss::Began(id) if id == peer));
                match next_loss(&mut monitor).await {
                    Loss::Ended(id, count) => {
                        assert!(id == peer && count > 0);
                        lost += count;
                    }
                    Loss::Began(_) => panic!("it began twice"),
                }
            }
            assert_eq!(lost, now);
        }
    }))
    .await;
}

async fn a_subscriber_that_reads_a_little_is_reported_once(place: Place) {
    const MARK: usize = 200;
    let messages = pub_builder().send_high_water_mark(MARK);
    let bytes = pub_builder().send_high_water_mark(0).send_high_water_mark_bytes(MARK * BODY);
    let place = &place;
    join_all([messages, bytes].map(|builder| async move {
        let (publisher, _, mut raw) = stuck(place, builder.clone()).await;
        let peer = publisher.peers()[0].peer.id;
        let mut monitor = publisher.monitor();
        let (mut sent, mut read) = (0, 0);
        for _ in 0..3 {
            sent = publish_until_full(&publisher, sent).await;
            // More than half is still waiting.
            read_numbers(&mut raw, 60).await;
            read += 60;
        }
        let lost = dropped(&publisher);
        assert_eq!(publisher.stats().messages_dropped_slow, lost);
        assert!(publisher.peers()[0].is_losing);
        read_numbers(&mut raw, sent - lost - read).await;
        up_to_date(&publisher, &mut raw).await;
        assert!(!publisher.peers()[0].is_losing);
        assert!(matches!(next_loss(&mut monitor).await, Loss::Began(id) if id == peer));
        match next_loss(&mut monitor).await {
            Loss::Ended(id, count) => assert_eq!((id, count), (peer, lost), "{builder:?}"),
            Loss::Began(_) => panic!("it began twice"),
        }
    }))
    .await;
}

async fn keeping_the_latest_only_is_not_reported_as_a_loss(place: Place) {
    let (publisher, endpoint, mut raw) = stuck(&place, pub_builder().slow_subscriber(SlowSubscriber::KeepLatest)).await;
    let mut monitor = publisher.monitor();
    let sent = publish_until_full(&publisher, 0).await;
    read_numbers(&mut raw, sent - dropped(&publisher)).await;
    up_to_date(&publisher, &mut raw).await;
    let _next = raw_subscriber(&endpoint, &[b""]).await;
    wait_for(&mut monitor, |event| match event {
        Event::HandshakeSucceeded { .. } => Some(()),
        Event::LosingBegan { .. } | Event::LosingEnded { .. } => panic!("{event:?}"),
        // That it takes nothing is no loss; it is told of if it lasts.
        _ => None,
    })
    .await;
}

async fn what_is_lost_with_a_connection_is_counted(place: Place) {
    let place = &place;
    join_all(DROPPING.map(|policy| async move {
        let builder = pub_builder().slow_subscriber(policy).send_high_water_mark(10);
        let (publisher, _, raw) = stuck(place, builder).await;
        let mut monitor = publisher.monitor();
        let sent = publish_until_full(&publisher, 0).await;
        drop(raw);
        wait_disconnected(&mut monitor).await;
        let stats = publisher.stats();
        assert_eq!(stats.messages_sent + stats.messages_dropped, sent, "{policy:?}: {stats:?}");
        assert_eq!(stats.messages_dropped_slow + stats.messages_dropped_lost, stats.messages_dropped);
        assert_ne!(stats.messages_dropped_lost, 0, "{policy:?}: {stats:?}");
        assert_eq!(stats.messages_unmatched, 0);
    }))
    .await;
}

async fn a_subscriber_whose_own_queue_is_full_loses_at_the_publisher_alone(place: Place) {
    let builder = pub_builder().send_high_water_mark(10).kernel_send_buffer(KERNEL);
    let (publisher, endpoint) = bound_pub(&place, builder).await;
    let subscriber = sub_builder().receive_high_water_mark(10).kernel_receive_buffer(KERNEL).build().unwrap();
    subscriber.subscribe("");
    subscriber.connect(&endpoint).unwrap();
    publisher.known("", 1).await;
    let sent = publish_until_full(&publisher, 0).await;
    assert!(subscriber.stats().inbound_messages <= 10);
    let kept = sent - dropped(&publisher);
    let mut last = None;
    for _ in 0..kept {
        let message = subscriber.next().await;
        assert_eq!(message.byte_len(), BODY);
        assert!(last.replace(number(&message)).is_none_or(|last| last < number(&message)));
    }
    publisher.say("end").await;
    assert_eq!(subscriber.next().await, "end".into());
    assert_eq!(subscriber.stats().messages_dropped, 0);
}

async fn a_stuck_subscriber_slows_nobody(place: Place) {
    const OTHERS: usize = 7;
    const MARK: u64 = 50;
    const ROUNDS: u64 = 30;
    let place = &place;
    join_all(DROPPING.map(|policy| async move {
        let builder = pub_builder().slow_subscriber(policy).send_high_water_mark(MARK as usize);
        let (publisher, endpoint, mut raw) = stuck(place, builder).await;
        let others = (0..OTHERS).map(|_| subscriber(&endpoint, &[""])).collect::<Vec<_>>();
        publisher.known("", OTHERS + 1).await;
        // As much at once as nobody may lose any of.
        let burst = if matches!(policy, SlowSubscriber::KeepLatest) { 1 } else { MARK };
        let total = ROUNDS * MARK;
        for first in (0..total).step_by(burst as usize) {
            publish(&publisher, first, burst).await;
            for other in &others {
                for expected in first..first + burst {
                    assert_eq!(number(&other.next().await), expected, "{policy:?}");
                }
            }
        }
        let lost = dropped(&publisher);
        assert_ne!(lost, 0, "{policy:?}: the stuck one is stuck");
        let losses = publisher.peers().iter().map(|peer| peer.messages_dropped).collect::<Vec<_>>();
        assert_eq!(losses.iter().filter(|count| **count == 0).count(), OTHERS, "{policy:?}: {losses:?}");
        read_numbers(&mut raw, total - lost).await;
        up_to_date(&publisher, &mut raw).await;
    }))
    .await;
}

async fn losses_are_counted_for_each_subscriber(place: Place) {
    let (publisher, endpoint, mut first) = stuck(&place, pub_builder().send_high_water_mark(10)).await;
    let sent = publish_until_full(&publisher, 0).await;
    let at_first = dropped(&publisher);
    let mut second = raw_subscriber(&endpoint, &[b"0", b"1", b"2", b"3", b"4"]).await;
    publisher.known("0", 2).await;
    // Half of them are for the second one, which loses some, too.
    let total = publish(&publisher, sent, 1_000).await;
    settled(|| dropped(&publisher) + publisher.stats().messages_sent).await;
    let mut peers = publisher.peers();
    peers.sort_by_key(|peer| peer.peer.id);
    let losses = peers.iter().map(|peer| peer.messages_dropped).collect::<Vec<_>>();
    assert_eq!(losses.iter().sum::<u64>(), dropped(&publisher));
    assert_eq!(losses[0], at_first + 1_000);
    read_numbers(&mut first, total - losses[0]).await;
    let wanted = (sent..total).filter(|number| number.to_string().as_bytes()[0] <= b'4').count() as u64;
    assert_ne!(losses[1], 0);
    read_numbers(&mut second, wanted - losses[1]).await;
    publisher.say("0 end").await;
    for raw in [&mut first, &mut second] {
        assert_eq!(raw.message().await.unwrap(), [b"0 end"]);
    }
}

async fn closing_does_not_wait_longer_than_it_may_for_one_that_is_stuck(place: Place) {
    let place = &place;
    join_all([Duration::ZERO, Duration::from_millis(100)].map(|linger| async move {
        let (publisher, endpoint, mut raw) = stuck(place, pub_builder().linger(linger).send_high_water_mark(10)).await;
        let sent = publish_until_full(&publisher, 0).await;
        let kept = sent - dropped(&publisher);
        // Somebody who reads gets what was published, all the same.
        let other = subscriber(&endpoint, &["last"]);
        publisher.known("last", 2).await;
        let before = publisher.stats().messages_sent;
        publisher.say("last words").await;
        assert_eq!(other.next().await, "last words".into());
        let closed = within(publisher.close()).await.unwrap();
        assert_eq!(closed.unsent, kept - before, "{closed:?}");
        // What the kernel had is still there.
        assert_eq!(read_numbers(&mut raw, before).await.len() as u64, before);
    }))
    .await;
}
