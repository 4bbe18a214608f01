//! The parts that processes play: a PULL or SUB that records what it gets, a PUSH or PUB that counts what it sends.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use sinew::{Closed, Endpoint, Event, Message, Monitor, PubSocket, PullSocket, PushSocket, SlowSubscriber, SubSocket};
use tokio::process::Command;

use crate::common::*;
use crate::crowd::{SENDERS, SUBSCRIBERS, stand};
use crate::process::{Process, given, name_of, part, this_program, told_to_end};

/// The test that a process with a part to play is started with.
pub(crate) const ENTRY: &str = "parts::a_process_plays_its_part_or_fails";

pub(crate) const PULL: &str = "pull";
pub(crate) const SUB: &str = "sub";
pub(crate) const PUSH: &str = "push";
pub(crate) const PUB: &str = "pub";
/// Does nothing until it is told to end.
pub(crate) const STAY: &str = "stay";

const NO_SUCH_PART: i32 = 4;

const ENDPOINT: &str = "SINEW_FAULT_ENDPOINT";
const RECORD: &str = "SINEW_FAULT_RECORD";
const NAME: &str = "SINEW_FAULT_NAME";

#[test]
fn a_process_plays_its_part_or_fails() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match part().as_deref() {
            Some(PULL) => {
                let pull =
                    PullSocket::builder().kernel_receive_buffer(KERNEL_BUFFER).receive_high_water_mark(RECEIVE_MARK);
                record(pull.build().unwrap()).await;
            }
            Some(SUB) => {
                let sub =
                    SubSocket::builder().kernel_receive_buffer(KERNEL_BUFFER).receive_high_water_mark(RECEIVE_MARK);
                let sub = sub.build().unwrap();
                sub.subscribe("");
                record(sub).await;
            }
            Some(PUSH) => count(PushSocket::builder().kernel_send_buffer(KERNEL_BUFFER).build().unwrap()).await,
            Some(PUB) => {
                let publisher =
                    PubSocket::builder().kernel_send_buffer(KERNEL_BUFFER).slow_subscriber(SlowSubscriber::Wait);
                count(publisher.build().unwrap()).await;
            }
            Some(SENDERS) => stand(false).await,
            Some(SUBSCRIBERS) => stand(true).await,
            Some(STAY) => told_to_end().await,
            Some(_) => std::process::exit(NO_SUCH_PART),
            None => {
                assert_eq!(name_of(a_process_plays_its_part_or_fails), ENTRY);
                assert!(Process::start(STAY, &[]).end().await.success());
                assert_eq!(Process::start("nobody", &[]).ended().await.code(), Some(NO_SUCH_PART));
            }
        }
    });
}

/// The size of a message's body.
pub(crate) const BODY: usize = 500;
/// The size of a message on the wire: flags, eight bytes of length, the body (RFC 37).
pub(crate) const WIRE: usize = 1 + 8 + BODY;

/// What a recording PULL asks the kernel to hold; Linux doubles it for its own needs.
pub(crate) const KERNEL_BUFFER: usize = 64 * 1024;
/// The messages that wait inside of a recording PULL …
pub(crate) const RECEIVE_MARK: usize = 100;
/// … and that it takes before it writes them down.
const RECORDED_AT_ONCE: usize = 64;

/// The most messages that a killed PULL takes with it: what the kernel holds for its connection at both ends, and what the
/// process had read.
pub(crate) const LOST_WITH_A_PULL: usize = {
    // The kernel lets one segment, up to 64 KiB on loopback, pass each of its limits.
    let at_one_end = 2 * KERNEL_BUFFER + 64 * 1024;
    // Up to the read-ahead, and one read more.
    let inside = 64 * 1024 + at_one_end;
    (2 * at_one_end + inside) / WIRE + RECEIVE_MARK + RECORDED_AT_ONCE
};

/// A message with two numbers.
pub(crate) fn message(name: u64, number: u64) -> Message {
    let mut body = vec![0; BODY];
    body[..8].copy_from_slice(&name.to_le_bytes());
    body[8..16].copy_from_slice(&number.to_le_bytes());
    body.into()
}

/// Its two numbers.
pub(crate) fn numbers(message: &Message) -> (u64, u64) {
    assert_eq!((message.frame_count(), message.byte_len()), (1, BODY));
    let number = |at: usize| u64::from_le_bytes(message[0][at..at + 8].try_into().unwrap());
    (number(0), number(8))
}

/// A process with a PULL, or a SUB that wants everything, that writes down the number of every message, until its one connection ends.
pub(crate) struct Recorder {
    pub(crate) process: Process,
    record: PathBuf,
}

impl Recorder {
    /// `record` is the file to write to, which does not exist yet.
    pub(crate) fn start(kind: &str, endpoint: &Endpoint, record: PathBuf) -> Self {
        Self::start_by(this_program(), kind, endpoint, record)
    }

    pub(crate) fn start_by(command: Command, kind: &str, endpoint: &Endpoint, record: PathBuf) -> Self {
        let endpoint = endpoint.to_string();
        let variables: [(_, &OsStr); 2] = [(ENDPOINT, endpoint.as_ref()), (RECORD, record.as_ref())];
        Self { process: Process::start_by(command, kind, &variables), record }
    }

    /// The numbers, in the order in which they came.
    pub(crate) fn record(&self) -> Vec<u64> {
        read_numbers(&self.record)
    }

    pub(crate) fn recorded(&self) -> usize {
        std::fs::metadata(&self.record).map_or(0, |metadata| metadata.len() as usize / 8)
    }
}

fn read_numbers(path: &Path) -> Vec<u64> {
    // A process that was killed early has not even made the file.
    let bytes = std::fs::read(path).unwrap_or_default();
    bytes.chunks_exact(8).map(|number| u64::from_le_bytes(number.try_into().unwrap())).collect()
}

/// A socket that receives.
trait Receiver {
    fn monitor(&self) -> Monitor;
    fn connect(&self, endpoint: &str);
    fn received(&self) -> u64;
    async fn take(&self, messages: &mut Vec<Message>);
}

macro_rules! receiver {
    ($socket:ty) => {
        impl Receiver for $socket {
            fn monitor(&self) -> Monitor {
                self.monitor()
            }

            fn connect(&self, endpoint: &str) {
                self.connect(endpoint).unwrap();
            }

            fn received(&self) -> u64 {
                self.stats().messages_received
            }

            async fn take(&self, messages: &mut Vec<Message>) {
                self.recv_many(messages, RECORDED_AT_ONCE).await.unwrap();
            }
        }
    };
}

receiver!(PullSocket);
receiver!(SubSocket);

async fn record(socket: impl Receiver) {
    let mut record = OpenOptions::new().create_new(true).append(true).open(given(RECORD)).unwrap();
    let mut monitor = socket.monitor();
    socket.connect(&given(ENDPOINT));
    let recording = async {
        let (mut messages, mut recorded, mut is_over) = (Vec::new(), 0, false);
        // All that has come is counted when the end of its connection is reported.
        while !is_over || recorded < socket.received() {
            tokio::select! {
                () = socket.take(&mut messages) => {
                    recorded += messages.len() as u64;
                    let numbers = messages.drain(..).flat_map(|message| numbers(&message).1.to_le_bytes());
                    record.write_all(&numbers.collect::<Vec<_>>()).unwrap();
                }
                // It has ended, or nobody was there any more when this one came.
                event = monitor.next() => {
                    is_over |= matches!(event.unwrap(), Event::Disconnected { .. } | Event::ConnectRetried { .. });
                }
            }
        }
    };
    tokio::select! { () = recording => (), () = told_to_end() => () }
}

/// A process with a PUSH, or a PUB that waits for room, that sends messages with its name and the numbers from 0 on, until it is told to end.
pub(crate) struct Counter {
    pub(crate) process: Process,
    count: PathBuf,
}

impl Counter {
    /// `count` is the file to write to, which does not exist yet.
    pub(crate) fn start(kind: &str, endpoint: &Endpoint, name: u64, count: PathBuf) -> Self {
        Self::start_by(this_program(), kind, endpoint, name, count)
    }

    pub(crate) fn start_by(command: Command, kind: &str, endpoint: &Endpoint, name: u64, count: PathBuf) -> Self {
        let (endpoint, name) = (endpoint.to_string(), name.to_string());
        let variables: [(_, &OsStr); 3] =
            [(ENDPOINT, endpoint.as_ref()), (NAME, name.as_ref()), (RECORD, count.as_ref())];
        Self { process: Process::start_by(command, kind, &variables), count }
    }

    /// So many messages at least the kernel has taken.
    pub(crate) fn handed_over(&self) -> u64 {
        read_numbers(&self.count).first().copied().unwrap_or(0)
    }
}

/// A socket that sends.
trait Sender {
    /// Connects, and returns when the first message would arrive.
    async fn connect(&self, endpoint: &str);
    async fn send(&self, message: Message);
    fn sent(&self) -> u64;
    async fn close(&self) -> Closed;
}

macro_rules! sender {
    ($socket:ty, |$this:ident| $ready:expr) => {
        impl Sender for $socket {
            async fn connect(&self, endpoint: &str) {
                let $this = self;
                self.connect(endpoint).unwrap();
                within($ready).await.unwrap();
            }

            async fn send(&self, message: Message) {
                self.send(message).await.unwrap();
            }

            fn sent(&self) -> u64 {
                self.stats().messages_sent
            }

            async fn close(&self) -> Closed {
                within(self.close()).await.unwrap()
            }
        }
    };
}

sender!(PushSocket, |push| push.wait_connected(0));
sender!(PubSocket, |publisher| publisher.wait_subscribed("", 1));

async fn count(socket: impl Sender) {
    const COUNTED_AT_ONCE: u64 = 50;
    let count = File::create_new(given(RECORD)).unwrap();
    let name: u64 = given(NAME).parse().unwrap();
    let sending = async {
        socket.connect(&given(ENDPOINT)).await;
        for number in 0.. {
            socket.send(message(name, number)).await;
            if number % COUNTED_AT_ONCE == 0 {
                count.write_all_at(&socket.sent().to_le_bytes(), 0).unwrap();
            }
        }
    };
    tokio::select! { () = sending => (), () = told_to_end() => () }
    assert_eq!(socket.close().await.unsent, 0);
    count.write_all_at(&socket.sent().to_le_bytes(), 0).unwrap();
}
