//! Encodes documents as they are read, on all cores and with bounded memory.

use super::documents::{Side, clear_of, cut_near};
use super::read::Chunk;
use super::report::Share;
use super::text::text_bytes;
use crate::error::Result;
use crate::tokenizer::Tokenizer;
use rayon::prelude::*;

/// Bytes after which a document is cut where its tokens allow it.
const PIECE: usize = 1 << 16;

/// Bytes after which a document is cut although its tokens may not allow it.
const LONGEST: usize = 1 << 20;

/// Bytes of text encoded at once.
const BATCH: usize = 8 << 20;

/// Where ids of a side go.
pub(super) type Out<'a> = dyn FnMut(Side, &[u32]) -> Result<()> + 'a;

/// What texts become. After each document comes the end-of-document token, by its id.
struct Coder<'a> {
    tokenizer: &'a Tokenizer,
    /// Whether the spelling of a special token is that token.
    specials: bool,
    eos: Option<u32>,
}

/// Encodes documents in batches of pieces.
pub(super) struct Encoder<'a> {
    coder: Coder<'a>,
    spellings: &'a [String],
    /// Text of complete pieces, and of the piece that grows at its end.
    batch: String,
    pieces: Vec<Piece>,
    out: &'a mut Out<'a>,
    /// The parts so far.
    pub train: Share,
    pub val: Share,
    /// Places at which a document was cut although its tokens may not allow it.
    pub forced: u64,
}

/// A part of a batch that is encoded by itself.
#[derive(Clone, Copy)]
struct Piece {
    end: usize,
    side: Side,
    /// Whether a document ends here.
    last: bool,
}

impl<'a> Encoder<'a> {
    pub fn new(tokenizer: &'a Tokenizer, specials: bool, spellings: &'a [String], out: &'a mut Out<'a>) -> Self {
        Encoder {
            coder: Coder { tokenizer, specials, eos: tokenizer.eos() },
            spellings: if specials { spellings } else { &[] },
            batch: String::new(),
            pieces: Vec::new(),
            out,
            train: Share::default(),
            val: Share::default(),
            forced: 0,
        }
    }

    /// Takes the next chunk of a document.
    pub fn take(&mut self, side: Side, chunk: Chunk<'_>) -> Result<()> {
        match chunk {
            Chunk::Text(text) => {
                self.batch.push_str(text);
                self.cut(side);
            }
            Chunk::End => self.pieces.push(Piece { end: self.batch.len(), side, last: true }),
        }
        if self.batch.len() >= BATCH { self.flush() } else { Ok(()) }
    }

    /// Cuts the growing piece into complete ones as long as it is long enough.
    fn cut(&mut self, side: Side) {
        let mut start = self.start();
        while self.batch.len() - start > PIECE {
            let text = &self.batch[start..];
            let clear = |at| clear_of(text, at, self.spellings).filter(|&at| at < text.len());
            // A cut beyond would be searched for again and again.
            let end = (0..=text.len().min(LONGEST)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let cut = self.coder.tokenizer.cut(&text[..end], PIECE).and_then(clear).or_else(|| {
                let at = (text.len() > LONGEST).then(|| cut_near(text, LONGEST - PIECE, PIECE)).flatten();
                let cut = at.and_then(clear);
                self.forced += u64::from(cut.is_some());
                cut
            });
            let Some(cut) = cut else { return };
            start += cut;
            self.pieces.push(Piece { end: start, side, last: false });
        }
    }

    /// Where the growing piece starts.
    fn start(&self) -> usize {
        self.pieces.last().map_or(0, |p| p.end)
    }

    /// Encodes the complete pieces and hands on their ids in order.
    pub fn flush(&mut self) -> Result<()> {
        let (coder, batch) = (&self.coder, self.batch.as_str());
        let done = jobs(&self.pieces).into_par_iter().map(|(start, pieces)| coder.encode(batch, start, pieces));
        for Encoded { side, ids, share } in done.collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            (self.out)(side, &ids)?;
            let total = if side == Side::Train { &mut self.train } else { &mut self.val };
            total.documents += share.documents;
            total.bytes += share.bytes;
            total.tokens += ids.len() as u64;
        }
        let start = self.start();
        self.batch.drain(..start);
        self.pieces.clear();
        Ok(())
    }
}

/// The pieces in groups of about [`PIECE`] bytes: where the first starts, and all of them.
fn jobs(pieces: &[Piece]) -> Vec<(usize, &[Piece])> {
    let (mut jobs, mut from, mut start) = (Vec::new(), 0, 0);
    for (i, piece) in pieces.iter().enumerate() {
        if piece.end - start >= PIECE || i + 1 == pieces.len() {
            jobs.push((start, &pieces[from..=i]));
            (from, start) = (i + 1, piece.end);
        }
    }
    jobs
}

impl Coder<'_> {
    /// The ids of some pieces, by their side.
    fn encode(&self, batch: &str, mut start: usize, pieces: &[Piece]) -> Result<[Encoded; 2]> {
        let mut all = [Side::Train, Side::Val].map(|side| Encoded { side, ids: Vec::new(), share: Share::default() });
        for &Piece { end, side, last } in pieces {
            let text = &batch[start..end];
            start = end;
            let ids = match self.specials {
                true => self.tokenizer.encode_with_specials(text)?,
                false => self.tokenizer.encode(text)?,
            };
            let to = &mut all[side as usize];
            to.share.documents += u64::from(last);
            to.share.bytes += match self.specials {
                true => text_bytes(text, self.tokenizer, &ids),
                false => text.len() as u64,
            };
            to.ids.extend(ids);
            to.ids.extend(self.eos.filter(|_| last));
        }
        Ok(all)
    }
}

/// Ids of one side.
struct Encoded {
    side: Side,
    ids: Vec<u32>,
    share: Share,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ids of documents in chunks of `size` characters, and the number of forced cuts.
    fn encode(tokenizer: &Tokenizer, specials: bool, documents: &[&str], size: usize) -> (Vec<u32>, Share, u64) {
        let mut all = Vec::new();
        let mut out = |_: Side, ids: &[u32]| {
            all.extend_from_slice(ids);
            Ok(())
        };
        let spellings = crate::tokenizer::SPECIALS.map(String::from);
        let mut encoder = Encoder::new(tokenizer, specials, &spellings, &mut out);
        for document in documents {
            let chars: Vec<char> = document.chars().collect();
            for chunk in chars.chunks(size) {
                encoder.take(Side::Train, Chunk::Text(&chunk.iter().collect::<String>())).unwrap();
            }
            encoder.take(Side::Train, Chunk::End).unwrap();
        }
        encoder.flush().unwrap();
        let (share, forced) = (encoder.train, encoder.forced);
        (all, share, forced)
    }

    #[test]
    fn pieces_give_the_ids_of_the_whole() {
        let long: String = (0..6_000).map(|i| format!("Zeile {i}: über <|end|> {}\n", i % 7)).collect();
        let short = "short <|user|> one";
        let bpe = Tokenizer::train_bpe(&long[..5_000], 300).unwrap();
        for tokenizer in [Tokenizer::bytes(), bpe] {
            for specials in [false, true] {
                let ids_of = |text| {
                    if specials { tokenizer.encode_with_specials(text) } else { tokenizer.encode(text) }.unwrap()
                };
                let eos = tokenizer.eos().unwrap();
                let want = [ids_of(short), vec![eos], ids_of(&long), vec![eos], ids_of(short), vec![eos]].concat();
                for size in [40_003, 1_000_000] {
                    let (ids, share, forced) = encode(&tokenizer, specials, &[short, &long, short], size);
                    assert!(ids == want, "{specials} {size}");
                    let spelled = if specials { 6_000 * "<|end|>".len() + 2 * "<|user|>".len() } else { 0 };
                    let bytes = (long.len() + 2 * short.len() - spelled) as u64;
                    assert_eq!((share, forced), (Share { documents: 3, bytes, tokens: want.len() as u64 }, 0));
                }
            }
        }
    }

    #[test]
    fn text_without_a_place_to_cut_is_cut_and_that_is_counted() {
        let bpe = Tokenizer::train_bpe("漢字 and words", 280).unwrap();
        let text = "漢".repeat(LONGEST);
        let (ids, share, forced) = encode(&bpe, false, &[&text], 400_000);
        assert_eq!(bpe.decode_with_specials(&ids), text.clone() + "<|eos|>");
        assert_eq!(share.bytes, text.len() as u64);
        assert!((3..6).contains(&forced), "{forced}");
    }

    #[test]
    fn forced_cuts_do_not_depend_on_the_chunks() {
        let bpe = Tokenizer::train_bpe("漢字 and words", 280).unwrap();
        // The only clear cut is far beyond the longest piece.
        let text = "漢".repeat(2 * LONGEST) + " and words";
        let [all, parts] = [usize::MAX, 300_000].map(|size| encode(&bpe, false, &[&text], size));
        assert!(all == parts && all.2 > 4, "{} and {}", all.2, parts.2);
    }

    #[test]
    fn a_place_within_a_spelling_is_no_forced_cut() {
        let spelling = "x".repeat(3 * LONGEST);
        let (tokenizer, spellings) = (Tokenizer::bytes(), [spelling.clone()]);
        let mut out = |_: Side, _: &[u32]| Ok(());
        let mut encoder = Encoder::new(&tokenizer, true, &spellings, &mut out);
        encoder.take(Side::Train, Chunk::Text(&spelling)).unwrap();
        assert_eq!((encoder.forced, encoder.pieces.len()), (0, 0));
    }
}
