//! Trains a byte-level BPE on texts that come in parts, in near-linear time and bounded memory.
//!
//! Texts are counted into words, which are GPT-2's pre-tokens with every digit split off. On the words, the most frequent
//! pair of tokens becomes a token, again and again; of equally frequent pairs the one with the lower ids goes first. Each
//! pair has a list of the places where it came up, so a merge costs only what it changes. It comes up once: the bytes of a
//! token were merged in the same way wherever it is, so all its places came from one merge. The result is that of the
//! trainer of the `tokenizers` crate, to the byte, unless a bound of [`BpeTrainer`] was met.

use super::byte_level::{self, Cut, PairHasher, pair};
use super::split::{self, Ends};
use super::{SPECIALS, Tokenizer, byte_char, split_specials};
use crate::error::{Error, Result, caught};
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::BuildHasherDefault;
use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::{byte_level::ByteLevel, digits::Digits, sequence::Sequence};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerBuilder,
};

/// A pair of tokens seen fewer times than this is never merged.
const MIN_FREQUENCY: u64 = 2;

/// The longest word, in bytes. A longer one is counted as several.
const LONGEST: usize = 4096;

/// Bound on the bytes of all different words, each with [`OVERHEAD`] more.
const ROOM: usize = 12 << 20;
const OVERHEAD: usize = 4;

/// Least bytes that one thread counts at a time. What is forgotten may depend on it, but not on the number of threads.
const BLOCK: usize = 1 << 20;
/// Blocks that are counted at the same time.
const BLOCKS: usize = 16;

type Pairs<V> = HashMap<u64, V, BuildHasherDefault<PairHasher>>;

/// Trains a byte-level BPE on text that comes in parts. No copy of the text is kept: memory is bounded whatever its length.
/// For this, words of more than 4,096 bytes are cut, and when the different words fill 12 MiB the rarest half of them is
/// forgotten, of equally rare words those that came last. [`BpeTrainer::notes`] says if that happened.
pub struct BpeTrainer {
    vocab_size: usize,
    cuts: Vec<Cut>,
    ends: Ends,
    words: HashMap<Box<[u8]>, Word>,
    arrivals: u64,
    room: usize,
    used: usize,
    long: u64,
    forgotten: u64,
}

struct Word {
    count: u64,
    arrival: u64,
}

impl BpeTrainer {
    /// A trainer of a vocabulary of at most `vocab_size` tokens.
    ///
    /// # Errors
    /// When `vocab_size` is below 262 (256 bytes and the special tokens), or above [`MAX_VOCAB`](super::MAX_VOCAB).
    pub fn new(vocab_size: usize) -> Result<Self> {
        let smallest = SPECIALS.len() + 256;
        if vocab_size < smallest {
            return Err(Error::usage(format!(
                "a vocabulary of {vocab_size} is too small: 256 bytes and {} special tokens need at least {smallest}",
                SPECIALS.len()
            )));
        }
        if vocab_size > super::MAX_VOCAB {
            let most = super::MAX_VOCAB;
            return Err(Error::usage(format!("a vocabulary of {vocab_size} is too large: at most {most} is possible")));
        }
        let (cuts, ends) = split::trained();
        let words = HashMap::new();
        Ok(Self { vocab_size, cuts, ends, words, arrivals: 0, room: ROOM, used: 0, long: 0, forgotten: 0 })
    }

    /// Adds a text, in which the spelling of a special token is text. No token spans two texts.
    pub fn add(&mut self, text: &str) {
        let blocks = split::pieces(text, BLOCK, |text, from| self.ends.cuts(text, from).next());
        for blocks in blocks.chunks(BLOCKS) {
            let counts: Vec<_> = blocks.into_par_iter().map(|block| count(&self.cuts, block)).collect();
            counts.into_iter().for_each(|counts| self.add_counts(counts));
        }
    }

    /// Adds a text, in which the special tokens are tokens: no word spans one, and they are not trained on.
    pub fn add_with_specials(&mut self, text: &str) {
        split_specials(text).into_iter().for_each(|(plain, _)| self.add(plain));
    }

    fn add_counts(&mut self, counts: Counts) {
        self.long += counts.long;
        for (word, count) in counts.words {
            match self.words.get_mut(word) {
                Some(known) => known.count += count,
                None => {
                    self.words.insert(word.into(), Word { count, arrival: self.arrivals });
                    self.arrivals += 1;
                    self.used += word.len() + OVERHEAD;
                }
            }
        }
        if self.used > self.room {
            self.forget();
        }
    }

    /// Forgets the rarest words, so that half of the room is used.
    fn forget(&mut self) {
        let mut words: Vec<_> = std::mem::take(&mut self.words).into_iter().collect();
        words.sort_unstable_by_key(|(_, word)| (Reverse(word.count), word.arrival));
        self.used = 0;
        for (bytes, word) in words {
            let used = self.used + bytes.len() + OVERHEAD;
            if used > self.room / 2 {
                self.forgotten += word.count;
                continue;
            }
            self.used = used;
            self.words.insert(bytes, word);
        }
    }

    /// What was not counted as it is, one sentence for each bound that was met.
    pub fn notes(&self) -> Vec<String> {
        let long = (self.long > 0).then(|| {
            format!("{} words of more than {LONGEST} bytes were cut: no token of the vocabulary is longer", self.long)
        });
        let forgotten = (self.forgotten > 0).then(|| {
            let room = self.room >> 20;
            format!("the different words took more than {room} MiB: {} rare words do not count", self.forgotten)
        });
        long.into_iter().chain(forgotten).collect()
    }

    /// The tokenizer.
    ///
    /// # Errors
    /// When there was no text.
    pub fn finish(self) -> Result<Tokenizer> {
        if self.words.is_empty() {
            return Err(Error::usage("cannot train a tokenizer on an empty text"));
        }
        let mut words: Vec<_> = self.words.into_iter().collect();
        words.sort_unstable_by_key(|(_, word)| word.arrival);
        let mut tokens: Vec<Box<[u8]>> = SPECIALS.iter().map(|special| special.as_bytes().into()).collect();
        let mut alphabet: Vec<u8> = (0..=255).collect();
        alphabet.sort_unstable_by_key(|&byte| byte_char(byte));
        tokens.extend(alphabet.into_iter().map(|byte| Box::from([byte])));
        let merges = Merger::new(words, &tokens).run(&mut tokens, self.vocab_size);
        let json = caught(|| to_json(&tokens, &merges).map_err(|e| e.to_string()));
        Tokenizer::from_json(&json.and_then(|json| json).map_err(Error::usage)?)
    }
}

/// The words of a text.
struct Counts<'t> {
    /// In the order in which they came.
    words: Vec<(&'t [u8], u64)>,
    /// Number of words that were cut.
    long: u64,
}

fn count<'t>(cuts: &[Cut], text: &'t str) -> Counts<'t> {
    let (mut words, mut known, mut long) = (Vec::new(), HashMap::new(), 0);
    byte_level::split(cuts, &mut byte_level::caches(cuts), text, &mut |mut rest: &'t str| {
        long += u64::from(rest.len() > LONGEST);
        while !rest.is_empty() {
            let end = (0..=rest.len().min(LONGEST)).rev().find(|&end| rest.is_char_boundary(end));
            let (word, tail) = rest.split_at(end.unwrap_or(rest.len()));
            let at = *known.entry(word).or_insert(words.len());
            match words.get_mut(at) {
                Some((_, count)) => *count += 1,
                None => words.push((word.as_bytes(), 1)),
            }
            rest = tail;
        }
    });
    Counts { words, long }
}

/// All words as tokens, while pairs of these are merged.
struct Merger {
    /// At the first byte of each token its id, [`GONE`] where one was, and [`END`] between words.
    ids: Vec<u32>,
    /// At the first and the last byte of each token the number of its bytes.
    spans: Vec<u32>,
    /// The word of each byte.
    owners: Vec<u32>,
    /// How often each word came.
    words: Vec<u64>,
    /// How often each pair is there.
    pairs: Pairs<u64>,
    /// Pairs with the count that they had, the most frequent first, and their list of places.
    queue: BinaryHeap<(u64, Reverse<u64>, usize)>,
    /// The first bytes of pairs, ascending; some are outdated.
    places: Vec<Vec<u32>>,
}

const END: u32 = u32::MAX;
const GONE: u32 = u32::MAX - 1;

impl Merger {
    fn new(words: Vec<(Box<[u8]>, Word)>, tokens: &[Box<[u8]>]) -> Self {
        let mut byte_ids = [0; 256];
        tokens
            .iter()
            .zip(0..)
            .filter(|(token, _)| token.len() == 1)
            .for_each(|(t, id)| byte_ids[usize::from(t[0])] = id);
        let size = 1 + words.iter().map(|(bytes, _)| bytes.len() + 1).sum::<usize>();
        let (mut ids, mut owners) = (Vec::with_capacity(size), Vec::with_capacity(size));
        ids.push(END);
        owners.push(0);
        let mut counts = Vec::with_capacity(words.len());
        for (owner, (bytes, word)) in words.into_iter().enumerate() {
            counts.push(word.count);
            ids.extend(bytes.iter().map(|byte| byte_ids[usize::from(*byte)]));
            ids.push(END);
            owners.resize(ids.len(), owner as u32);
        }
        let spans = vec![1; size];
        let (pairs, queue, places) = (Pairs::default(), BinaryHeap::new(), Vec::new());
        let mut merger = Self { ids, spans, owners, words: counts, pairs, queue, places };
        let mut new = Pairs::default();
        for left in 1..size - 1 {
            merger.found(left, left + 1, &mut new);
        }
        merger.enqueue(new);
        merger
    }

    /// Merges until there are `size` tokens. Returns the pairs in order.
    fn run(mut self, tokens: &mut Vec<Box<[u8]>>, size: usize) -> Vec<(u32, u32)> {
        let mut known: HashMap<Box<[u8]>, u32> = tokens.iter().cloned().zip(0..).collect();
        let mut merges = Vec::new();
        while tokens.len() < size
            && let Some((count, Reverse(both), list)) = self.queue.pop()
        {
            let now = self.pairs[&both];
            if count != now {
                self.queue.push((now, Reverse(both), list));
                continue;
            }
            if count < MIN_FREQUENCY {
                break;
            }
            let (left, right) = ((both >> 32) as u32, both as u32);
            let token: Box<[u8]> = [&tokens[left as usize][..], &tokens[right as usize][..]].concat().into();
            let id = *known.entry(token).or_insert_with_key(|token| {
                tokens.push(token.clone());
                tokens.len() as u32 - 1
            });
            merges.push((left, right));
            let places = std::mem::take(&mut self.places[list]);
            let mut new = Pairs::default();
            places.into_iter().for_each(|place| self.merge(place as usize, left, right, id, &mut new));
            self.enqueue(new);
        }
        merges
    }

    /// Merges the pair at `at`, if it is there.
    fn merge(&mut self, at: usize, left: u32, right: u32, id: u32, new: &mut Pairs<Vec<u32>>) {
        if self.ids[at] != left {
            return;
        }
        let middle = at + self.spans[at] as usize;
        if self.ids[middle] != right {
            return;
        }
        let end = middle + self.spans[middle] as usize;
        let before = (self.ids[at - 1] != END).then(|| at - self.spans[at - 1] as usize);
        if let Some(before) = before {
            self.lost(before, at);
        }
        if self.ids[end] != END {
            self.lost(middle, end);
        }
        (self.ids[at], self.ids[middle]) = (id, GONE);
        self.spans[at] = (end - at) as u32;
        self.spans[end - 1] = self.spans[at];
        if let Some(before) = before {
            self.found(before, at, new);
        }
        self.found(at, end, new);
    }

    /// Counts the pair of the tokens that begin at `left` and `right`, unless the word ends between them.
    fn found(&mut self, left: usize, right: usize, new: &mut Pairs<Vec<u32>>) {
        if self.ids[left] != END && self.ids[right] != END {
            let both = pair(self.ids[left], self.ids[right]);
            *self.pairs.entry(both).or_default() += self.words[self.owners[left] as usize];
            new.entry(both).or_default().push(left as u32);
        }
    }

    fn lost(&mut self, left: usize, right: usize) {
        let both = pair(self.ids[left], self.ids[right]);
        *self.pairs.entry(both).or_default() -= self.words[self.owners[left] as usize];
    }

    fn enqueue(&mut self, new: Pairs<Vec<u32>>) {
        for (both, places) in new {
            let count = self.pairs[&both];
            if count > 0 {
                self.queue.push((count, Reverse(both), self.places.len()));
                self.places.push(places);
            }
        }
    }
}

/// The `tokenizer.json`.
fn to_json(tokens: &[Box<[u8]>], merges: &[(u32, u32)]) -> tokenizers::Result<String> {
    let (specials, tokens) = (SPECIALS.map(String::from), &tokens[SPECIALS.len()..]);
    let spelled = tokens.iter().map(|token| token.iter().map(|&byte| byte_char(byte)).collect::<String>());
    let spelled: Vec<String> = specials.into_iter().chain(spelled).collect();
    let merges = merges.iter().map(|&(l, r)| (spelled[l as usize].clone(), spelled[r as usize].clone())).collect();
    let vocab: tokenizers::models::bpe::Vocab = spelled.into_iter().zip(0..).collect();
    let level = ByteLevel::new(false, true, true);
    let split = Sequence::new(vec![Digits::new(true).into(), level.into()]);
    let mut tokenizer =
        TokenizerBuilder::<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>::new()
            .with_model(BPE::builder().vocab_and_merges(vocab, merges).build()?)
            .with_normalizer(None)
            .with_pre_tokenizer(Some(split.into()))
            .with_post_processor(None)
            .with_decoder(Some(level.into()))
            .build()?;
    tokenizer.add_special_tokens(SPECIALS.iter().map(|&s| AddedToken::from(s, true)))?;
    tokenizer.to_string(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use tokenizers::ProgressFormat;

    /// The `tokenizer.json` that the crate's own trainer makes of texts.
    fn theirs(texts: &[&str], size: usize) -> String {
        let level = ByteLevel::new(false, true, true);
        let split = Sequence::new(vec![Digits::new(true).into(), level.into()]);
        let mut tokenizer =
            TokenizerBuilder::<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>::new(
            )
            .with_model(BPE::default())
            .with_normalizer(None)
            .with_pre_tokenizer(Some(split.into()))
            .with_post_processor(None)
            .with_decoder(Some(level.into()))
            .build()
            .unwrap();
        let mut trainer = tokenizers::models::bpe::BpeTrainer::builder()
            .vocab_size(size)
            .min_frequency(2)
            .show_progress(false)
            .progress_format(ProgressFormat::Silent)
            .special_tokens(SPECIALS.iter().map(|&s| AddedToken::from(s, true)).collect())
            .initial_alphabet((0..=255).map(byte_char).collect())
            .build();
        tokenizer.train(&mut trainer, texts.iter()).unwrap();
        tokenizer.to_string(false).unwrap()
    }

    fn ours(texts: &[&str], size: usize) -> String {
        let mut trainer = BpeTrainer::new(size).unwrap();
        texts.iter().for_each(|text| trainer.add(text));
        assert_eq!(trainer.notes(), [""; 0]);
        trainer.finish().unwrap().to_json()
    }

    #[test]
    fn vocabularies_are_those_of_the_tokenizers_crate() {
        let mut rng = Rng::new(7);
        let mut random = |chars: &[char], length: usize| (0..length).map(|_| *rng.pick(chars)).collect::<String>();
        // Few characters in long words: pairs overlap.
        let runs: Vec<String> = (0..60).map(|i| random(&['a', 'b', '-', ' '][..2 + i % 3], 20 + 10 * i)).collect();
        let runs: Vec<&str> = runs.iter().map(String::as_str).collect();
        let mixed = random(&['e', 't', ' ', ' ', 'é', '東', '\u{301}', '1', '\n', '.', '\'', 's'], 20_000);
        let world = crate::data::synthetic::generate(5, 200_000).train;
        let code = include_str!("train.rs");
        let cases: [(&[&str], usize); 6] = [
            (&runs, 700),
            (&[&mixed], 900),
            (&[&world], 2000),
            (&[code, &mixed], 1500),
            (&["ab"], 400),
            (&[code; 3], 262),
        ];
        for (i, (texts, size)) in cases.into_iter().enumerate() {
            assert!(ours(texts, size) == theirs(texts, size), "case {i}");
        }
        if let Ok(text) = std::fs::read_to_string("../shared/data/tinyshakespeare.txt") {
            assert!(ours(&[&text], 4096) == theirs(&[&text], 4096));
        }
    }

    #[test]
    fn special_tokens_are_trained_on_as_text_alone() {
        let text = "<|end|><|end|> <|end|>".repeat(9);
        let mut trainer = BpeTrainer::new(300).unwrap();
        trainer.add_with_specials(&text);
        assert_eq!(trainer.finish().unwrap().token_id("<|"), None);
        let tokenizer = Tokenizer::from_json(&ours(&[&text], 300)).unwrap();
        assert!(tokenizer.token_id("<|").is_some());
        assert_eq!(tokenizer.encode_with_specials(&text).unwrap().len(), 36);
        assert!(tokenizer.encode(&text).unwrap().iter().all(|&id| !tokenizer.is_special(id)));
    }

    #[test]
    fn bounds_are_met_and_said() {
        let mut rng = Rng::new(3);
        let mut trainer = BpeTrainer::new(400).unwrap();
        trainer.room = 60_000;
        // Many rare words come before the frequent one.
        let alphabet: Vec<char> = ('a'..='z').collect();
        let mut rare = || (0..8).map(|_| *rng.pick(&alphabet)).chain([' ']).collect::<String>();
        trainer.add(&(0..3_000).map(|_| rare()).collect::<String>());
        let frequent = "frequent ".repeat(20);
        for i in 0..40 {
            let letters: String = (0..10_000).map(|_| *rng.pick(&['A', 'C', 'G', 'T'])).collect();
            trainer.add(&format!("{frequent}{letters}東{i}"));
            let used: usize = trainer.words.keys().map(|word| word.len() + OVERHEAD).sum();
            assert!(used == trainer.used && used <= 60_000 && (i < 10 || used >= 20_000), "{i}: {used}");
        }
        let notes = trainer.notes();
        assert!(
            notes[0].starts_with("40 words of more than 4096 bytes") && notes[1].contains("rare words"),
            "{notes:?}"
        );
        assert!(trainer.words.keys().all(|word| word.len() <= LONGEST));
        assert_eq!(trainer.words[&b" frequent"[..]].count, 40 * 19);
        let tokenizer = trainer.finish().unwrap();
        assert_eq!((tokenizer.vocab_size(), tokenizer.encode(" frequent").unwrap().len()), (400, 1));
    }

    #[test]
    fn blocks_are_counted_as_one_text() {
        let text = crate::data::synthetic::generate(2, 3 * BLOCK).train;
        let (mut blocks, whole) = (BpeTrainer::new(300).unwrap(), count(&split::trained().0, &text));
        blocks.add(&text);
        assert!(text.len() > 2 * BLOCK && blocks.words.len() == whole.words.len());
        for (i, (word, count)) in whole.words.into_iter().enumerate() {
            let found = &blocks.words[word];
            assert_eq!((found.count, found.arrival), (count, i as u64));
        }
    }
}
