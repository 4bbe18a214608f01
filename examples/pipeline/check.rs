//! The check: a plain single-threaded count of the same files, and what the pipeline's count differs in.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use crate::text::{self, Counts};
use crate::wire::{Ledger, Piece, Size};

/// The words and pieces of a whole folder.
#[derive(Debug, Default)]
pub(crate) struct Count {
    pub(crate) words: Counts,
    pub(crate) ledger: Ledger,
}

impl Count {
    /// Counts on this thread, but for the pieces in `lost`.
    pub(crate) fn plain(folder: &Path, limit: usize, lost: &BTreeSet<Piece>) -> io::Result<Self> {
        let mut count = Self::default();
        for file in text::walk(folder).files {
            for piece in text::pieces(&file.path, limit)? {
                let (offset, text) = piece?;
                let piece = Piece { file: file.name.clone(), offset };
                let size = (!lost.contains(&piece))
                    .then(|| Size { bytes: text.len() as u64, words: text::count_words(&text, &mut count.words) });
                count.ledger.insert(piece, size);
            }
        }
        Ok(count)
    }

    /// The pieces that nobody has counted.
    pub(crate) fn lost(&self) -> BTreeSet<Piece> {
        self.ledger.iter().filter(|(_, size)| size.is_none()).map(|(piece, _)| piece.clone()).collect()
    }

    /// One line for each difference from the right count.
    pub(crate) fn differences(&self, right: &Self) -> Vec<String> {
        let show = |size: Option<&Option<Size>>| match size {
            Some(Some(Size { bytes, words })) => format!("{words} words in {bytes} bytes"),
            Some(None) => "not counted".to_owned(),
            None => "unknown".to_owned(),
        };
        let pieces: BTreeSet<_> = self.ledger.keys().chain(right.ledger.keys()).collect();
        let pieces = pieces.into_iter().filter_map(|piece| {
            let (ours, theirs) = (self.ledger.get(piece), right.ledger.get(piece));
            (ours != theirs).then(|| format!("{piece}: {}, but {} by the plain count", show(ours), show(theirs)))
        });
        let mut words: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        self.words.iter().for_each(|(word, count)| words.entry(word).or_default().0 = *count);
        right.words.iter().for_each(|(word, count)| words.entry(word).or_default().1 = *count);
        let words = words
            .into_iter()
            .filter(|(_, (ours, theirs))| ours != theirs)
            .map(|(word, (ours, theirs))| format!("{word:?}: {ours} times, but {theirs} by the plain count"));
        pieces.chain(words).collect()
    }
}
