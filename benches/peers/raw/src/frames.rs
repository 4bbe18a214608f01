//! ZMTP framing: flags, length (one byte up to 255, eight bytes above), body.

use std::io::{self, IoSlice, Read, Write};

use anyhow::{Result, bail, ensure};
use harness::Payload;

/// What one write or one read moves at most.
pub(crate) const BUFFER: usize = 256 * 1024;

/// From this size on, bodies are not copied into the buffer but written from where they are.
const DIRECT: usize = BUFFER;

const LONG: u8 = 0x02;

/// Flags and a length of eight bytes.
const LONGEST_HEAD: usize = 9;

/// Collects frames, and writes them whenever the buffer is full.
pub(crate) struct Outgoing {
    buffer: Vec<u8>,
}

impl Outgoing {
    pub(crate) fn new() -> Self {
        Self { buffer: Vec::with_capacity(BUFFER) }
    }

    /// Adds one frame; true if something was written for it.
    #[inline]
    pub(crate) fn add(&mut self, output: &mut impl Write, payload: &mut Payload) -> io::Result<bool> {
        let size = payload.size();
        if size >= DIRECT {
            self.head(size);
            let (head, body) = payload.split();
            self.buffer.extend_from_slice(&head);
            write_both(output, &self.buffer, body)?;
            self.buffer.clear();
            return Ok(true);
        }
        let full = self.buffer.len() + LONGEST_HEAD + size > BUFFER;
        if full {
            self.flush(output)?;
        }
        self.head(size);
        payload.append_to(&mut self.buffer);
        Ok(full)
    }

    /// Writes what is there.
    pub(crate) fn flush(&mut self, output: &mut impl Write) -> io::Result<()> {
        output.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    #[inline]
    fn head(&mut self, size: usize) {
        match u8::try_from(size) {
            Ok(short) => self.buffer.extend_from_slice(&[0, short]),
            Err(_) => {
                self.buffer.push(LONG);
                self.buffer.extend_from_slice(&(size as u64).to_be_bytes());
            }
        }
    }
}

/// Writes two slices with as few calls as it takes.
fn write_both(output: &mut impl Write, first: &[u8], second: &[u8]) -> io::Result<()> {
    let written = output.write_vectored(&[IoSlice::new(first), IoSlice::new(second)])?;
    match written.checked_sub(first.len()) {
        Some(of_second) => output.write_all(&second[of_second..]),
        None => {
            output.write_all(&first[written..])?;
            output.write_all(second)
        }
    }
}

/// Reads and parses one connection's frames.
pub(crate) struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    /// Room for one read behind the largest incomplete frame.
    pub(crate) fn new(size: usize) -> Self {
        Self { buffer: vec![0; BUFFER + size + LONGEST_HEAD], start: 0, end: 0 }
    }

    /// Does one read and gives `take` every body that is complete, until it has enough.
    pub(crate) fn read(&mut self, input: &mut impl Read, mut take: impl FnMut(&[u8]) -> bool) -> Result<()> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let count = input.read(&mut self.buffer[self.end..][..BUFFER])?;
        ensure!(count > 0, "the connection ended early");
        self.end += count;
        while let Some(body) = next_frame(&self.buffer[self.start..self.end])? {
            let body_start = self.start + body.start;
            self.start += body.end;
            if take(&self.buffer[body_start..self.start]) {
                break;
            }
        }
        Ok(())
    }
}

/// Where the first frame's body is, if all of it has come.
#[inline]
fn next_frame(input: &[u8]) -> Result<Option<std::ops::Range<usize>>> {
    let (head, size) = match *input {
        [0, size, ..] => (2, usize::from(size)),
        [LONG, ..] => match input.get(1..9).and_then(|length| length.first_chunk()) {
            Some(length) => (9, usize::try_from(u64::from_be_bytes(*length))?),
            None => return Ok(None),
        },
        [] | [0] => return Ok(None),
        [flags, ..] => bail!("a frame with the flags {flags:#x}"),
    };
    Ok((input.len() >= head + size).then(|| head..head + size))
}
