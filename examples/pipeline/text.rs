//! Text: which files are text, the pieces that they are cut into, and the words in them.
//!
//! A text file is a regular file with no NUL byte in its first 8 KiB. Folders named `target` or `.git` and symbolic
//! links are left out. A word is a run of letters and digits, in lower case; bytes that are not UTF-8 separate words.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Folders that hold no sources.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// A NUL byte within this much says that a file is not text.
const PROBE: u64 = 8 * 1024;

/// A piece without any white space may grow to so many times the usual length before it is cut in the middle of a word.
const STRETCH: usize = 16;

/// Words and how often they were seen.
pub(crate) type Counts = HashMap<String, u64>;

/// A text file that was found.
#[derive(Debug)]
pub(crate) struct TextFile {
    pub(crate) path: PathBuf,
    /// The path below the folder, as bytes.
    pub(crate) name: Vec<u8>,
    pub(crate) bytes: u64,
}

/// What a folder holds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// In the order of their names.
    pub(crate) files: Vec<TextFile>,
    /// What could not be read, and why.
    pub(crate) unreadable: Vec<(PathBuf, io::Error)>,
}

/// Finds the text files in and below a folder.
pub(crate) fn walk(folder: &Path) -> Found {
    let mut found = Found::default();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        match fs::read_dir(&folder) {
            Ok(entries) => entries.for_each(|entry| {
                let looked_at = entry.and_then(|entry| look(&entry, &mut folders, &mut found.files));
                found.unreadable.extend(looked_at.err().map(|error| (folder.clone(), error)));
            }),
            Err(error) => found.unreadable.push((folder, error)),
        }
    }
    for file in &mut found.files {
        let below = file.path.strip_prefix(folder).unwrap_or(&file.path);
        file.name = below.as_os_str().as_encoded_bytes().to_vec();
    }
    found.files.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn look(entry: &fs::DirEntry, folders: &mut Vec<PathBuf>, files: &mut Vec<TextFile>) -> io::Result<()> {
    let (path, kind) = (entry.path(), entry.file_type()?);
    if kind.is_dir() && !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
        folders.push(path);
    } else if kind.is_file() && is_text(&path)? {
        files.push(TextFile { bytes: entry.metadata()?.len(), path, name: Vec::new() });
    }
    Ok(())
}

fn is_text(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(PROBE).read_to_end(&mut start)?;
    Ok(!start.contains(&0))
}

/// Cuts a text into pieces of about `limit` bytes: at line ends, or else at white space, so that no word is cut. Gives
/// each with its offset; an empty text is one empty piece.
#[derive(Debug)]
pub(crate) struct Pieces<R> {
    reader: R,
    limit: usize,
    /// Read already, but belongs to the next piece.
    carried: Vec<u8>,
    offset: u64,
    ended: bool,
}

impl<R: Read> Pieces<R> {
    pub(crate) fn new(reader: R, limit: usize) -> Self {
        Self { reader, limit, carried: Vec::new(), offset: 0, ended: false }
    }

    fn piece(&mut self) -> io::Result<Vec<u8>> {
        let mut piece = std::mem::take(&mut self.carried);
        for stretch in 1..=STRETCH {
            let wanted = (self.limit * stretch).saturating_sub(piece.len()) as u64;
            let read = self.reader.by_ref().take(wanted).read_to_end(&mut piece)? as u64;
            if read < wanted {
                self.ended = true;
                return Ok(piece);
            }
            let line_end = piece.iter().rposition(|byte| *byte == b'\n');
            if let Some(last) = line_end.or_else(|| piece.iter().rposition(u8::is_ascii_whitespace)) {
                self.carried = piece.split_off(last + 1);
                break;
            }
        }
        Ok(piece)
    }
}

impl<R: Read> Iterator for Pieces<R> {
    type Item = io::Result<(u64, Vec<u8>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let offset = self.offset;
        let piece = self.piece();
        match &piece {
            Ok(piece) if piece.is_empty() && offset > 0 => return None,
            Ok(piece) => self.offset += piece.len() as u64,
            Err(_) => self.ended = true,
        }
        Some(piece.map(|piece| (offset, piece)))
    }
}

/// The pieces of a file.
pub(crate) fn pieces(path: &Path, limit: usize) -> io::Result<Pieces<File>> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    Ok(Pieces::new(File::open(path).map_err(named)?, limit))
}

/// Adds the words of a text to `counts`; gives their number.
pub(crate) fn count_words(text: &[u8], counts: &mut Counts) -> u64 {
    let mut total = 0;
    let text = String::from_utf8_lossy(text);
    for word in text.split(|letter: char| !letter.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
        total += 1;
    }
    total
}
