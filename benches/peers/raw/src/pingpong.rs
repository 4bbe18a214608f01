//! Round trips over one connection, used both ways.
//!
//! `--variant spin` never sleeps in the kernel: it reads again and again until something is there.

use std::{
    io::{ErrorKind, Read},
    time::Instant,
};

use anyhow::{Result, ensure};
use harness::{Args, Meter, Payload, Report};

use crate::{
    frames::{Frames, Outgoing},
    stream::{Listener, Stream},
};

const WARM_UP: u64 = 1_000;

/// One end of the conversation.
struct End {
    stream: Stream,
    frames: Frames,
    payload: Payload,
    outgoing: Outgoing,
    size: usize,
}

impl End {
    fn new(stream: Stream, args: &Args) -> Result<Self> {
        if args.variant == "spin" {
            stream.set_nonblocking()?;
        }
        Ok(Self {
            stream,
            frames: Frames::new(args.size),
            payload: Payload::new(args.size, 0),
            outgoing: Outgoing::new(),
            size: args.size,
        })
    }

    fn send(&mut self) -> Result<()> {
        self.outgoing.add(&mut self.stream, &mut self.payload)?;
        Ok(self.outgoing.flush(&mut self.stream)?)
    }

    fn receive(&mut self) -> Result<()> {
        let mut got = None;
        while got.is_none() {
            self.frames.read(&mut Persistent(&mut self.stream), |body| {
                got = Some(body.len());
                true
            })?;
        }
        ensure!(got == Some(self.size), "an answer of {got:?} bytes instead of {}", self.size);
        Ok(())
    }
}

/// Reads until there is something.
struct Persistent<'a>(&'a mut Stream);

impl Read for Persistent<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                outcome => return outcome,
            }
        }
    }
}

/// Sends, waits for the answer, and so on.
pub(crate) fn ping(args: &Args) -> Result<()> {
    let mut end = End::new(Stream::connect(&args.endpoint[0], false)?, args)?;
    for _ in 0..WARM_UP {
        end.send()?;
        end.receive()?;
    }
    let mut trips = Vec::with_capacity(usize::try_from(args.count)?);
    let meter = Meter::start();
    for _ in 0..args.count {
        let start = Instant::now();
        end.send()?;
        end.receive()?;
        trips.push(start.elapsed().as_nanos() as f64 / 1e3);
    }
    Report::new(args.count, args.size, meter.elapsed())?.with_trips(trips).print()
}

/// Answers.
pub(crate) fn pong(args: &Args) -> Result<()> {
    let (listener, endpoint) = Listener::bind(&args.endpoint[0], 0)?;
    println!("ready {endpoint}");
    let mut end = End::new(listener.accept()?, args)?;
    let mut meter = Meter::start();
    for trip in 0..WARM_UP + args.count {
        if trip == WARM_UP {
            meter = Meter::start();
        }
        end.receive()?;
        end.send()?;
    }
    Report::new(args.count, args.size, meter.elapsed())?.print()
}
