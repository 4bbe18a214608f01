//! The messages between the processes of the pipeline: a name and fields, a frame each; numbers are decimal text.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use sinew::{Frame, Message};

use crate::text::Counts;

/// Words or pieces that go into one message of the sink's report.
pub(crate) const BATCH: usize = 1_000;

/// Any failure; the processes only report them.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A part of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Piece {
    /// The file's name below the folder.
    pub(crate) file: Vec<u8>,
    /// Where in the file it begins, in bytes.
    pub(crate) offset: u64,
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.file))?;
        if self.offset > 0 {
            write!(f, " from byte {}", self.offset)?;
        }
        Ok(())
    }
}

/// What was counted in a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) bytes: u64,
    pub(crate) words: u64,
}

/// The pieces of a count; those without a size were lost.
pub(crate) type Ledger = BTreeMap<Piece, Option<Size>>;

/// From the ventilator to a worker.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) piece: Piece,
    pub(crate) text: Frame,
}

/// To the sink.
#[derive(Debug)]
pub(crate) enum ToSink {
    /// From the ventilator, first: so much is to be done.
    Total { files: u64, bytes: u64 },
    /// From the ventilator: this piece goes to some worker, or would have gone if there were one.
    Sent(Piece),
    /// From the ventilator, last.
    AllSent,
    /// From a worker.
    Counted { worker: usize, piece: Piece, size: Size, words: Counts },
    /// From a worker, last: it has sent so many counts.
    Done { worker: usize, pieces: u64 },
}

/// To the parent.
#[derive(Debug)]
pub(crate) enum ToParent {
    /// From the ventilator and the sink: where the others find it.
    Bound { role: String, endpoint: String },
    /// From the worker that is to be killed: now.
    Halfway { worker: usize },
    /// From the sink: a part of its ledger.
    Pieces(Vec<(Piece, Option<Size>)>),
    /// From the sink: a part of its words.
    Words(Counts),
    /// From the sink, last.
    Reported,
}

/// Builds a message.
struct Writer(Vec<Frame>);

impl Writer {
    fn new(name: &str) -> Self {
        Self(vec![name.into()])
    }

    fn number(self, number: impl Into<u64>) -> Self {
        self.bytes(number.into().to_string())
    }

    fn bytes(mut self, bytes: impl Into<Frame>) -> Self {
        self.0.push(bytes.into());
        self
    }

    fn piece(self, piece: &Piece) -> Self {
        self.bytes(piece.file.as_slice()).number(piece.offset)
    }

    fn words(self, words: &Counts) -> Self {
        self.bytes(words.iter().map(|(word, count)| format!("{count} {word}\n")).collect::<String>())
    }
}

impl From<Writer> for Message {
    fn from(writer: Writer) -> Self {
        writer.0.into()
    }
}

/// Takes a message apart.
struct Reader(std::vec::IntoIter<Frame>);

impl Reader {
    fn new(message: Message) -> Self {
        Self(message.into_frames().into_iter())
    }

    fn frame(&mut self) -> Result<Frame, Failure> {
        self.0.next().ok_or_else(|| "a message is too short".into())
    }

    fn text(&mut self) -> Result<String, Failure> {
        Ok(std::str::from_utf8(&self.frame()?)?.to_owned())
    }

    fn number<N>(&mut self) -> Result<N, Failure>
    where
        N: std::str::FromStr,
        N::Err: Error + Send + Sync + 'static,
    {
        Ok(self.text()?.parse()?)
    }

    fn piece(&mut self) -> Result<Piece, Failure> {
        Ok(Piece { file: self.frame()?.to_vec(), offset: self.number()? })
    }

    fn size(&mut self) -> Result<Size, Failure> {
        Ok(Size { bytes: self.number()?, words: self.number()? })
    }

    fn words(&mut self) -> Result<Counts, Failure> {
        let line = |line: &str| {
            let (count, word) = line.split_once(' ').ok_or("a count without a word")?;
            Ok((word.to_owned(), count.parse()?))
        };
        self.text()?.lines().map(line).collect()
    }
}

impl From<Task> for Message {
    fn from(Task { piece, text }: Task) -> Self {
        Writer::new("count").piece(&piece).bytes(text).into()
    }
}

impl TryFrom<Message> for Task {
    type Error = Failure;

    fn try_from(message: Message) -> Result<Self, Failure> {
        let mut fields = Reader::new(message);
        match fields.text()?.as_str() {
            "count" => Ok(Self { piece: fields.piece()?, text: fields.frame()? }),
            other => Err(format!("a worker got {other:?}").into()),
        }
    }
}

impl From<ToSink> for Message {
    fn from(message: ToSink) -> Self {
        match message {
            ToSink::Total { files, bytes } => Writer::new("total").number(files).number(bytes),
            ToSink::Sent(piece) => Writer::new("sent").piece(&piece),
            ToSink::AllSent => Writer::new("all sent"),
            ToSink::Counted { worker, piece, size, words } => Writer::new("counted")
                .number(worker as u64)
                .piece(&piece)
                .number(size.bytes)
                .number(size.words)
                .words(&words),
            ToSink::Done { worker, pieces } => Writer::new("done").number(worker as u64).number(pieces),
        }
        .into()
    }
}

impl TryFrom<Message> for ToSink {
    type Error = Failure;

    fn try_from(message: Message) -> Result<Self, Failure> {
        let mut fields = Reader::new(message);
        Ok(match fields.text()?.as_str() {
            "total" => Self::Total { files: fields.number()?, bytes: fields.number()? },
            "sent" => Self::Sent(fields.piece()?),
            "all sent" => Self::AllSent,
            "counted" => Self::Counted {
                worker: fields.number()?,
                piece: fields.piece()?,
                size: fields.size()?,
                words: fields.words()?,
            },
            "done" => Self::Done { worker: fields.number()?, pieces: fields.number()? },
            other => return Err(format!("the sink got {other:?}").into()),
        })
    }
}

impl From<ToParent> for Message {
    fn from(message: ToParent) -> Self {
        match message {
            ToParent::Bound { role, endpoint } => Writer::new("bound").bytes(role).bytes(endpoint),
            ToParent::Halfway { worker } => Writer::new("halfway").number(worker as u64),
            ToParent::Pieces(pieces) => {
                let sum = |writer: Writer, (piece, size): &(Piece, Option<Size>)| match size {
                    Some(size) => writer.bytes("counted").piece(piece).number(size.bytes).number(size.words),
                    None => writer.bytes("lost").piece(piece),
                };
                pieces.iter().fold(Writer::new("pieces").number(pieces.len() as u64), sum)
            }
            ToParent::Words(words) => Writer::new("words").words(&words),
            ToParent::Reported => Writer::new("reported"),
        }
        .into()
    }
}

impl TryFrom<Message> for ToParent {
    type Error = Failure;

    fn try_from(message: Message) -> Result<Self, Failure> {
        let mut fields = Reader::new(message);
        Ok(match fields.text()?.as_str() {
            "bound" => Self::Bound { role: fields.text()?, endpoint: fields.text()? },
            "halfway" => Self::Halfway { worker: fields.number()? },
            "pieces" => {
                let count: usize = fields.number()?;
                let mut piece = || match fields.text()?.as_str() {
                    "counted" => Ok((fields.piece()?, Some(fields.size()?))),
                    "lost" => Ok((fields.piece()?, None)),
                    other => Err(Failure::from(format!("a piece is {other:?}"))),
                };
                Self::Pieces((0..count).map(|_| piece()).collect::<Result<_, _>>()?)
            }
            "words" => Self::Words(fields.words()?),
            "reported" => Self::Reported,
            other => return Err(format!("the parent got {other:?}").into()),
        })
    }
}
