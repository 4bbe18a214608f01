//! A libzmq PUSH or PULL that a test can kill: `libzmq-peer push|pull bind|connect ENDPOINT SIZE HEARTBEAT`.
//!
//! Its first line of output is its endpoint. A PUSH then sends numbered messages of SIZE bytes without end. A PULL
//! receives as many messages as each line of input says, and answers each with a line that holds its number.

use std::io::{BufRead, Write};

use interop::{Libzmq, Role, number, numbered};

/// So few messages wait in this process that its share is soon full.
const HIGH_WATER_MARK: i32 = 10;
const KERNEL_BUFFER: i32 = 64 * 1024;
/// No heartbeat is missed in the time of a test.
const HEARTBEAT_TIMEOUT: i32 = 600_000;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, end, role, endpoint, size, heartbeat] = &arguments[..] else {
        panic!("push|pull bind|connect ENDPOINT SIZE HEARTBEAT");
    };
    let role = if role == "bind" { Role::Binds } else { Role::Connects };
    let socket = Libzmq::new(if end == "push" { zmq::PUSH } else { zmq::PULL });
    socket.set_rcvhwm(HIGH_WATER_MARK).expect("a high-water mark");
    socket.set_rcvbuf(KERNEL_BUFFER).expect("a kernel buffer");
    socket.set_heartbeat_ivl(heartbeat.parse().expect("milliseconds")).expect("an interval of heartbeats");
    socket.set_heartbeat_timeout(HEARTBEAT_TIMEOUT).expect("a limit for heartbeats");
    say(&socket.attach(role, endpoint));
    if end == "push" {
        // Whoever started this process may be gone without having killed it.
        std::thread::spawn(|| {
            obey(|_| ());
            std::process::exit(0);
        });
        let size = size.parse().expect("a size");
        for n in 0.. {
            socket.push(&numbered(n, size));
        }
    }
    obey(|reads| (0..reads).for_each(|_| say(&number(&socket.pull()).to_string())));
    std::process::exit(0);
}

/// Does what each line of input says, until there is nobody to say more.
fn obey(mut order: impl FnMut(usize)) {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        order(line.parse().expect("a number of messages"));
    }
}

/// A line, at once: the next moment may be the last.
fn say(line: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "{line}").and_then(|()| out.flush()).expect("somebody listens");
}
