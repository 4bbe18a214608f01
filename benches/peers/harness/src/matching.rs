//! PUB with many topics of which one is wanted: what a message costs that nobody wants.
//!
//! The publisher goes round all topics. The only SUB has subscribed to the first of them and, where it is to have more
//! subscriptions, to others of the same form that are never published. Topics have even numbers, these have odd ones, spread
//! over the same range: what nobody wants shares nearly all of its bytes with something that somebody wants. A body begins
//! with the topic; the head that other cells have at its beginning follows.

use anyhow::{Context, Result, anyhow, ensure};

use crate::{
    Args, Meter, PubSub, Publish, Pull, Report,
    payload::{FILL, marker, read_head, read_mark},
    pipeline::{announce, check_size},
    pubsub::{END, PROBE, PROBE_INTERVAL, Stage},
};

/// Bytes in a topic.
const LENGTH: usize = 16;

/// What all topics begin with; a number fills the rest.
const STEM: &str = "topic/";

/// Probes at a time: fewer than any library's high-water mark.
const PROBES: u64 = 256;

type Topic = [u8; LENGTH];

/// The topics that are published, and those that are subscribed to.
#[derive(Debug, Clone, Copy)]
struct Topics {
    published: u64,
    subscribed: u64,
}

impl Topics {
    fn new(args: &Args, published: usize, subscribed: u64) -> Result<Self> {
        check_size(args)?;
        ensure!(args.size >= LENGTH + 16, "a payload with a topic has {} bytes at least", LENGTH + 16);
        ensure!(published > 0 && args.sockets == 1 && args.peers == 1, "one topic at least, and one subscriber");
        Ok(Self { published: published as u64, subscribed })
    }

    /// The number of a published topic.
    fn topic(index: u64) -> u64 {
        2 * index
    }

    fn name(number: u64) -> String {
        format!("{STEM}{number:0width$}", width = LENGTH - STEM.len())
    }

    fn number(topic: &[u8]) -> Option<u64> {
        std::str::from_utf8(topic).ok()?.strip_prefix(STEM)?.parse().ok()
    }

    /// The number of a subscription: only the first is one of a published topic.
    fn subscription(&self, index: u64) -> u64 {
        if index == 0 { 0 } else { 2 * index * self.stride() + 1 }
    }

    fn stride(&self) -> u64 {
        (self.published / self.subscribed).max(1)
    }

    /// The reverse of [`Topics::subscription`].
    fn index_of(&self, number: u64) -> Option<u64> {
        let index = number / 2 / self.stride();
        Some(index).filter(|index| *index < self.subscribed && self.subscription(*index) == number)
    }
}

fn body(topic: &Topic, size: usize, head: u64) -> Vec<u8> {
    let mut body = vec![FILL; size];
    body[..LENGTH].copy_from_slice(topic);
    body[LENGTH..LENGTH + 8].copy_from_slice(&head.to_le_bytes());
    body
}

fn marked(number: u64, size: usize, mark: u64) -> Vec<u8> {
    let mut body = Topics::name(number).into_bytes();
    body.extend(marker(size - LENGTH, mark));
    body
}

/// Publishes `count` messages when all subscriptions are there.
pub(crate) async fn publish<L: PubSub>(library: &L, args: &Args, published: usize, subscribed: u64) -> Result<()> {
    let topics = Topics::new(args, published, subscribed)?;
    let names: Vec<Topic> = (0..topics.published)
        .map(|index| Topics::name(Topics::topic(index)).into_bytes().try_into().map_err(|_| anyhow!("too many topics")))
        .collect::<Result<_>>()?;
    let (mut publisher, endpoint) = library.publisher(&args.endpoint[0], args.lossy).await?;
    announce(&format!("ready {endpoint}"))?;
    publisher.admit(&Topics::name(0), 1).await?;

    let stage = Stage::new();
    let mut probes = (0..subscribed).cycle();
    while !stage.all_have_joined() {
        for index in probes.by_ref().take(PROBES.min(subscribed) as usize) {
            publisher.send(marked(topics.subscription(index), args.size, PROBE)).await?;
        }
        library.pause(PROBE_INTERVAL).await;
    }

    let meter = Meter::start();
    let mut next = 0;
    for counter in 0..args.count {
        publisher.send(body(&names[next], args.size, counter)).await?;
        next = if next + 1 == names.len() { 0 } else { next + 1 };
    }
    let (seconds, _) = meter.elapsed();
    while !stage.all_have_finished() {
        publisher.send(marked(0, args.size, END)).await?;
        library.pause(PROBE_INTERVAL).await;
    }
    let (_, cpu_seconds) = meter.elapsed();
    Report::new(args.count, args.size, (seconds, cpu_seconds))?.print()
}

/// Receives what is wanted: the very first message, every one that comes after a round of all topics, and the end mark
/// behind the last message. So the span between the first and the end mark is that of all messages that were published.
pub(crate) async fn subscribe<L: PubSub>(library: &L, args: &Args, published: usize, subscribed: u64) -> Result<()> {
    let topics = Topics::new(args, published, subscribed)?;
    // The one that is wanted comes last, as an application that adds it later would do it.
    let prefixes: Vec<String> = (0..subscribed).rev().map(|index| Topics::name(topics.subscription(index))).collect();
    let mut sub = library.subscriber(&args.endpoint[0], &prefixes).await?;
    let mut books = Books::new(topics, args.size);
    while books.measured.is_none() {
        let mut outcome = Ok(());
        sub.recv(&mut |body| {
            if outcome.is_ok() {
                outcome = books.take(body);
            }
        })
        .await?;
        outcome?;
    }
    let measured = books.measured.context("no end mark came")?;
    Report::new(books.received, args.size, measured)?.print()
}

/// The subscriber's books.
#[derive(Debug)]
struct Books {
    topics: Topics,
    size: usize,
    /// By subscription: whether a probe has come through it.
    effective: Vec<bool>,
    missing: u64,
    /// The smallest counter that may come next.
    next: u64,
    received: u64,
    meter: Option<Meter>,
    measured: Option<(f64, f64)>,
}

impl Books {
    fn new(topics: Topics, size: usize) -> Self {
        let effective = vec![false; topics.subscribed as usize];
        Self { topics, size, effective, missing: topics.subscribed, next: 0, received: 0, meter: None, measured: None }
    }

    fn take(&mut self, body: &[u8]) -> Result<()> {
        ensure!(body.len() == self.size, "a message of {} bytes instead of {}", body.len(), self.size);
        let (topic, body) = body.split_at(LENGTH);
        let number = Topics::number(topic).context("a message without a topic")?;
        match (read_mark(body), &self.meter) {
            (Some(PROBE), _) => self.take_probe(number),
            (Some(_), Some(meter)) => {
                let elapsed = meter.elapsed();
                self.measured.get_or_insert(elapsed);
                Ok(())
            }
            (Some(_), None) => Err(anyhow!("the first message was lost")),
            (None, _) => self.take_message(number, body),
        }
    }

    fn take_probe(&mut self, number: u64) -> Result<()> {
        let index = self.topics.index_of(number).with_context(|| format!("a probe of the topic {number}"))?;
        if !std::mem::replace(&mut self.effective[index as usize], true) {
            self.missing -= 1;
            if self.missing == 0 {
                announce("joined")?;
            }
        }
        Ok(())
    }

    fn take_message(&mut self, number: u64, body: &[u8]) -> Result<()> {
        ensure!(number == 0, "a message of the topic {number}, which nobody wants");
        let (_, counter) = read_head(body).context("a message without a counter")?;
        ensure!(
            counter >= self.next && counter % self.topics.published == 0,
            "message {counter} came where {} was due",
            self.next
        );
        self.meter.get_or_insert_with(Meter::start);
        self.next = counter + self.topics.published;
        self.received += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOPICS: Topics = Topics { published: 10, subscribed: 3 };

    #[test]
    fn one_subscription_is_published_and_the_others_are_not() {
        let numbers: Vec<_> = (0..3).map(|index| TOPICS.subscription(index)).collect();
        assert_eq!(numbers, [0, 7, 13]);
        let indexes: Vec<_> = [0, 7, 13, 1, 8, 19].map(|number| TOPICS.index_of(number)).to_vec();
        assert_eq!(indexes, [Some(0), Some(1), Some(2), None, None, None]);
        assert_eq!(Topics::number(Topics::name(13).as_bytes()), Some(13));
    }

    #[test]
    fn the_books_take_what_is_wanted_until_the_end_mark() {
        let name: Topic = *b"topic/0000000000";
        let mut books = Books::new(TOPICS, 64);
        let bodies = [body(&name, 64, 0), body(&name, 64, 10), body(&name, 64, 30), marked(0, 64, END)];
        assert!(bodies.iter().all(|body| books.take(body).is_ok()));
        assert!(books.measured.is_some());
        assert_eq!(books.received, 3);
    }

    #[test]
    fn what_is_not_wanted_or_comes_twice_is_noticed() {
        let wanted: Topic = *b"topic/0000000000";
        let mut books = Books::new(TOPICS, 64);
        assert!(books.take(&body(b"topic/0000000001", 64, 1)).is_err());
        assert!(books.take(&body(&wanted, 64, 5)).is_err());
        assert!(books.take(&marked(0, 64, END)).is_err());
        assert!(books.take(&body(&wanted, 64, 10)).is_ok());
        assert!(books.take(&body(&wanted, 64, 10)).is_err());
    }
}
