//! The examples of publish/subscribe: weather, last_value_cache and proxy.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use sinew::{Endpoint, Event, Message, PubSocket, SubSocket};
use tempfile::TempDir;
use tokio::process::Child;
use tokio::task::JoinSet;

use crate::{assert_exit, end, example, interrupt, line_after, lines_after, listening, run, utf8, within};

const ANYWHERE: &str = "tcp://127.0.0.1:*";

/// An endpoint for each transport; its file lies in the folder.
fn anywhere(transport: &str, folder: &TempDir) -> String {
    match transport {
        "ipc" => format!("ipc://{}", folder.path().join("feed").display()),
        _ => ANYWHERE.to_owned(),
    }
}

/// The line of a summary that begins so.
#[track_caller]
fn line<'a>(summary: &'a str, label: &str) -> &'a str {
    summary.lines().find(|line| line.starts_with(label)).unwrap_or_else(|| panic!("no {label:?} in:\n{summary}"))
}

/// The first number of a line, behind its label.
#[track_caller]
fn number(line: &str) -> u64 {
    let number = line[10..].split(' ').next().unwrap().replace(',', "");
    number.parse().unwrap_or_else(|_| panic!("{line}"))
}

async fn bound() -> (PubSocket, Endpoint) {
    let publisher = PubSocket::new();
    let endpoint = within("bind", publisher.bind(ANYWHERE)).await.unwrap();
    (publisher, endpoint)
}

async fn publish(publisher: &PubSocket, message: impl Into<Message>) {
    within("send", publisher.send(message)).await.unwrap();
}

async fn receive(subscriber: &SubSocket) -> Message {
    within("recv", subscriber.recv()).await.unwrap()
}

fn subscriber(endpoint: &str, prefixes: &[&str]) -> SubSocket {
    let subscriber = SubSocket::new();
    for prefix in prefixes {
        subscriber.subscribe(prefix);
    }
    subscriber.connect(endpoint).unwrap();
    subscriber
}

// --- weather --------------------------------------------------------------------------------------------------------

/// A publisher that sends 3,000 updates of 50 stations once somebody wants them, and what a subscriber says about it.
async fn weather(transport: &str, filters: &[&str], count: u64) -> String {
    let folder = tempfile::tempdir().unwrap();
    let arguments =
        ["publish", "--bind", &anywhere(transport, &folder), "--stations", "50", "--zip", "1", "--seed", "7"];
    let more = ["--rate", "0", "--count", "3000", "--subscribers", "1", "--wait"];
    let (publisher, endpoint) = listening("weather", &[&arguments[..], &more].concat(), "Listening on ").await;

    let count = count.to_string();
    let subscriber =
        run("weather", &[&["subscribe", "--connect", &endpoint, "--count", &count], filters].concat()).await;
    assert_exit(&subscriber, 0);
    let publisher = end("publisher", publisher).await;
    assert_exit(&publisher, 0);
    let sent = utf8(&publisher.stdout);
    assert!(sent.starts_with("sent      3,000 updates of 50 stations, "), "{sent}");
    utf8(&subscriber.stdout).to_owned()
}

#[tokio::test]
async fn the_weather_comes_to_who_wants_it_from_the_first_update_to_the_last() {
    for transport in ["tcp", "ipc"] {
        let all = weather(transport, &["1", "10", "12"], 3_000).await;
        assert!(all.starts_with("received  3,000 updates of 50 stations, "), "{all}");
        assert!(line(&all, "1 ").starts_with("1         3,000 updates of 50 stations, on average "), "{all}");
        assert_eq!(line(&all, "missed"), "missed    nothing");

        // The same weather once more, a part of it only.
        let expected = line(&all, "10 ");
        let part = weather(transport, &["10"], number(expected)).await;
        assert_eq!(line(&part, "10 "), expected);
        assert_eq!(number(line(&part, "received")), number(expected));
        assert_eq!(line(&part, "missed"), "missed    nothing");
    }
}

#[tokio::test]
async fn a_subscriber_of_the_weather_says_what_it_has_missed() {
    let (publisher, endpoint) = bound().await;
    let arguments = ["subscribe", "--connect", &endpoint.to_string(), "--count", "7", "1"];
    let subscriber = example("weather", &arguments).spawn().unwrap();
    within("subscription", publisher.wait_subscribed("10115", 1)).await.unwrap();
    // What came before the subscriber is not missed; the other three are.
    for message in [
        ["10115", "8 10.0 50"],
        ["10115", "9 11.0 50"],
        ["20095", "1 99.9 99"],
        ["10115", "12 12.0 60"],
        ["10117", "1 -1.0 20"],
        ["10117", "3 -1.0 20"],
        ["10115", "strange"],
        ["10115", "1 -1.0 40"],
    ] {
        publish(&publisher, message).await;
    }
    let subscriber = end("subscriber", subscriber).await;
    assert_exit(&subscriber, 0);
    let lines: Vec<_> = utf8(&subscriber.stdout).lines().collect();
    assert!(lines[0].starts_with("received  7 updates of 2 stations, "), "{lines:?}");
    assert_eq!(
        lines[1..],
        [
            "1         6 updates of 2 stations, on average 5.0 °C and 40 %",
            "missed    3 updates of 2 stations",
            "          10115: 2",
            "          10117: 1",
            "anew      1 times a station began anew to count",
            "strange   1 of the messages are no updates",
        ]
    );
}

#[tokio::test]
async fn both_ends_of_the_weather_sum_up_on_ctrl_c() {
    let arguments = ["publish", "--bind", ANYWHERE, "--rate", "5000", "--stations", "10"];
    let (publisher, endpoint) = listening("weather", &arguments, "Listening on ").await;
    assert_exit(&run("weather", &["subscribe", "--connect", &endpoint, "--count", "100"]).await, 0);
    let publisher = interrupt("publisher", publisher).await;
    assert_exit(&publisher, 0);
    assert!(number(line(utf8(&publisher.stdout), "sent")) >= 100, "{}", utf8(&publisher.stdout));

    let (publisher, endpoint) = bound().await;
    let subscriber = example("weather", &["subscribe", "--connect", &endpoint.to_string(), "5", "7"]).spawn().unwrap();
    within("subscription", publisher.wait_subscribed("70000", 1)).await.unwrap();
    let subscriber = interrupt("subscriber", subscriber).await;
    assert_exit(&subscriber, 0);
    let lines: Vec<_> = utf8(&subscriber.stdout).lines().collect();
    assert_eq!(
        lines,
        [
            "received  0 updates of 0 stations, 0/s",
            "5         0 updates of 0 stations",
            "7         0 updates of 0 stations",
            "missed    nothing",
        ]
    );
}

#[tokio::test]
async fn a_weather_publisher_with_more_stations_than_zip_codes_says_so() {
    let output = run("weather", &["publish", "--bind", ANYWHERE, "--zip", "1234", "--stations", "11"]).await;
    assert_exit(&output, 1);
    assert_eq!(utf8(&output.stderr), "weather: there are only 10 zip codes that begin with '1234'\n");
}

// --- last_value_cache -----------------------------------------------------------------------------------------------

/// A cache with a publisher to which it connects, one that connects to it, and a subscriber from the beginning.
struct Stand {
    cache: Child,
    publishers: [PubSocket; 2],
    /// Where further subscribers connect to.
    endpoint: String,
    early: SubSocket,
    /// How often each of the topics was published.
    rounds: u64,
    topics: usize,
    /// The last frame of each message.
    padding: Vec<u8>,
}

impl Stand {
    async fn new(high_water_mark: &str, topics: usize) -> Self {
        let (first, feed) = bound().await;
        let feed = feed.to_string();
        let arguments =
            ["--connect", &feed, "--bind", ANYWHERE, "--serve", ANYWHERE, "--high-water-mark", high_water_mark];
        let mut cache = example("last_value_cache", &arguments).spawn().unwrap();
        let announcements = ["Subscribers connect to ", "Publishers connect to "];
        let [endpoint, publishers] = lines_after(announcements, &mut cache.stderr).await;
        let second = PubSocket::new();
        second.connect(publishers.as_str()).unwrap();
        for publisher in [&first, &second] {
            within("the cache", publisher.wait_subscribed("", 1)).await.unwrap();
        }
        let mut stand = Self {
            cache,
            publishers: [first, second],
            early: subscriber(&endpoint, &["topic."]),
            endpoint,
            rounds: 0,
            topics,
            padding: Vec::new(),
        };
        stand.warm_up().await;
        stand
    }

    /// Until something published has come out: that the early subscriber is there cannot be seen from outside.
    async fn warm_up(&mut self) {
        let ready = async {
            loop {
                publish(&self.publishers[0], ["topic.ready", "0"]).await;
                let answer = tokio::time::timeout(Duration::from_millis(50), self.early.recv()).await;
                if let Ok(message) = answer {
                    break message.unwrap();
                }
            }
        };
        assert_eq!(within("the first value", ready).await, ["topic.ready", "0"].into());
    }

    fn topic(&self, number: usize) -> String {
        format!("topic.{}.{number}", ["a", "b"][number % 2])
    }

    /// Publishes each topic once more, and waits until all of it is through.
    async fn round(&mut self) {
        self.rounds += 1;
        for number in 0..self.topics {
            let (topic, round) = (self.topic(number), self.rounds.to_string());
            let update = Message::from([topic.as_bytes(), round.as_bytes(), &self.padding]);
            publish(&self.publishers[number % 2], &update).await;
            // One at a time, so that no queue is ever full.
            let mut message = receive(&self.early).await;
            while &message[0] == b"topic.ready" {
                message = receive(&self.early).await;
            }
            assert_eq!(message, update);
        }
    }
}

/// Receives until each of so many topics has come to `last`; gives what came first. Each value must be the next one.
async fn follow(subscriber: SubSocket, topics: usize, last: u64) -> BTreeMap<String, u64> {
    let (mut first, mut values) = (BTreeMap::new(), BTreeMap::new());
    while values.len() < topics || values.values().any(|value| *value < last) {
        let message = receive(&subscriber).await;
        let topic = utf8(&message[0]).to_owned();
        let value: u64 = utf8(&message[1]).parse().unwrap();
        if topic == "topic.ready" {
            continue;
        }
        first.entry(topic.clone()).or_insert(value);
        let before = values.insert(topic.clone(), value);
        assert_eq!(before.unwrap_or(value - 1) + 1, value, "{topic}");
    }
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_subscriber_of_the_cache_gets_the_last_values_and_then_every_update() {
    const ROUNDS: u64 = 150;
    let mut stand = Stand::new("10000", 20).await;
    let mut late = JoinSet::new();
    while stand.rounds < ROUNDS {
        stand.round().await;
        if stand.rounds % 10 == 0 {
            // The cache has all of this round, and the next ones come while the subscriber does.
            let (joined, socket) = (stand.rounds, subscriber(&stand.endpoint, &["topic.b."]));
            late.spawn(async move { (joined, follow(socket, 10, ROUNDS).await) });
        }
    }
    while let Some(ended) = within("late subscribers", late.join_next()).await {
        let (joined, first) = ended.unwrap();
        assert_eq!(first.len(), 10);
        assert!(first.values().all(|value| *value >= joined), "joined after {joined}: {first:?}");
    }

    // Overlapping filters bring each value once.
    let last = follow(subscriber(&stand.endpoint, &["topic.a.1", "topic", "topic.a"]), 20, ROUNDS).await;
    assert!(last.values().all(|value| *value == ROUNDS), "{last:?}");

    let cache = interrupt("the cache", stand.cache).await;
    assert_exit(&cache, 0);
    assert!(utf8(&cache.stdout).starts_with("21 topics, "), "{}", utf8(&cache.stdout));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_subscriber_of_the_cache_gets_more_values_than_its_queue_holds() {
    const ROUNDS: u64 = 4;
    let mut stand = Stand::new("400", 500).await;
    stand.round().await;
    let late = tokio::spawn(follow(subscriber(&stand.endpoint, &["topic"]), 500, ROUNDS));
    while stand.rounds < ROUNDS {
        stand.round().await;
    }
    let first = within("the late subscriber", late).await.unwrap();
    assert_eq!(first.len(), 500);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_is_too_slow_for_the_cache_comes_again_and_gets_the_last_value() {
    const ROUNDS: u64 = 300;
    let mut stand = Stand::new("10", 1).await;
    stand.round().await;
    let slow = SubSocket::builder()
        .receive_high_water_mark(1)
        .kernel_receive_buffer(64 * 1024)
        .reconnect_delay(Duration::from_millis(1), Duration::from_millis(10))
        .build()
        .unwrap();
    let mut monitor = slow.monitor();
    slow.subscribe("topic.a.0");
    slow.connect(stand.endpoint.as_str()).unwrap();
    assert_eq!(receive(&slow).await[1], b"1"[..]);

    // It reads no more, until there is more than it, the cache and both kernels can hold.
    stand.padding = vec![0; 64 * 1024];
    while stand.rounds < ROUNDS {
        stand.round().await;
    }
    let (mut values, mut last) = (1, 1);
    while last < ROUNDS {
        let value = utf8(&receive(&slow).await[1]).parse().unwrap();
        assert!(value > last, "{value} after {last}");
        (values, last) = (values + 1, value);
    }
    assert!(values < ROUNDS, "all {values} have come");
    let disconnected = async { while !matches!(monitor.next().await.unwrap(), Event::Disconnected { .. }) {} };
    within("the end of the first connection", disconnected).await;
}

// --- proxy ----------------------------------------------------------------------------------------------------------

#[tokio::test]
async fn the_proxy_carries_from_many_publishers_to_many_subscribers_and_counts() {
    let arguments = ["--frontend", ANYWHERE, "--backend", ANYWHERE, "--capture", ANYWHERE, "--wait"];
    let mut proxy = example("proxy", &arguments).spawn().unwrap();
    let announcements = ["What passes is published on ", "Publishers connect to ", "Subscribers connect to "];
    let [capture, frontend, backend] = lines_after(announcements, &mut proxy.stderr).await;

    // Each of them has a filter of its own, its last one, so that it can be seen that all have arrived.
    let subscribe = |count: &str, filters: &[&str]| {
        let arguments = ["subscribe", "--connect", &backend, "--count", count];
        example("weather", &[&arguments[..], filters].concat()).spawn().unwrap()
    };
    let (both, one) = (subscribe("2000", &["2", "3"]), subscribe("1000", &["2", "9"]));
    let here = subscriber(&backend, &["probe"]);
    let probe = PubSocket::new();
    probe.connect(frontend.as_str()).unwrap();
    for topic in ["30000", "90000", "probe"] {
        within("subscriptions", probe.wait_subscribed(topic, 1)).await.unwrap();
    }
    // Until something captured has come: that its subscriber is there cannot be seen from outside.
    let captured = subscriber(&capture, &["2", "3", "probe"]);
    let mut probes = 0;
    let first = async {
        loop {
            publish(&probe, "probe").await;
            probes += 1;
            receive(&here).await;
            let answer = tokio::time::timeout(Duration::from_millis(50), captured.recv()).await;
            if let Ok(message) = answer {
                break message.unwrap();
            }
        }
    };
    assert_eq!(within("what is captured", first).await, "probe".into());

    let publishers = ["2", "3"].map(|zip| {
        let arguments = ["publish", "--connect", &frontend, "--zip", zip, "--stations", "100"];
        let more = ["--rate", "0", "--count", "1000", "--subscribers", "1", "--wait"];
        example("weather", &[&arguments[..], &more].concat()).spawn().unwrap()
    });
    for publisher in publishers {
        let publisher = end("publisher", publisher).await;
        assert_exit(&publisher, 0);
        assert_eq!(number(line(utf8(&publisher.stdout), "sent")), 1_000);
    }
    for (subscriber, filter, count) in [(both, "3", "2,000"), (one, "9", "1,000")] {
        let subscriber = end("subscriber", subscriber).await;
        assert_exit(&subscriber, 0);
        let out = utf8(&subscriber.stdout);
        assert!(out.starts_with(&format!("received  {count} updates of ")), "{out}");
        assert!(line(out, "2 ").starts_with("2         1,000 updates of "), "{out}");
        let others = number(line(out, &format!("{filter} ")));
        assert_eq!(others, if filter == "3" { 1_000 } else { 0 });
        assert_eq!(line(out, "missed"), "missed    nothing");
    }
    let mut updates = 0;
    while updates < 2_000 {
        updates += u64::from(receive(&captured).await.frame_count() == 2);
    }

    let rates = line_after("passing   ", &mut proxy.stdout).await;
    assert!(rates.contains(" messages/s ("), "{rates}");
    let proxy = interrupt("the proxy", proxy).await;
    assert_exit(&proxy, 0);
    let out = utf8(&proxy.stdout);
    assert_eq!(number(line(out, "forwarded")), 2_000 + probes, "{out}");
    assert_eq!(line(out, "dropped"), "dropped   0 messages for slow subscribers");
}
