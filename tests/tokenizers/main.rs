//! Text out: what streams is what decoding at once gives, byte for byte, for every decoder of the `tokenizers` crate.

mod budget;
#[cfg(all(feature = "cli", unix))]
#[path = "../common/mod.rs"]
mod common;
mod decoders;
mod families;
#[cfg(all(feature = "cli", unix))]
mod program;
mod texts;

use nanotern::infer::TextStream;
use nanotern::rng::Rng;
use nanotern::tokenizer::Tokenizer;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use texts::random_text;

/// The pieces of a text that come with each token, and the rest.
fn pieces(tokenizer: &Arc<Tokenizer>, ids: &[u32]) -> Vec<String> {
    let mut stream = TextStream::new(Arc::clone(tokenizer), Vec::new());
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).text).collect();
    pieces.push(stream.finish().text);
    pieces
}

/// What the `tokenizers` crate makes of all ids; None where it panics, as some of its decoders do when there are no tokens.
fn at_once(theirs: &tokenizers::Tokenizer, ids: &[u32], skip_specials: bool) -> Option<String> {
    std::panic::catch_unwind(AssertUnwindSafe(|| theirs.decode(ids, skip_specials).unwrap())).ok()
}

#[test]
fn texts_and_ids_of_fourteen_families_stream_as_they_decode() {
    for (name, json) in families::all() {
        let theirs: tokenizers::Tokenizer = json.parse().unwrap();
        let ours = Arc::new(Tokenizer::from_json(&json).unwrap());
        let mut rng = Rng::new(1);
        let mut same = 0;
        for _ in 0..1000 {
            let text = random_text(&mut rng);
            let ids = ours.encode(&text).unwrap();
            let want = at_once(&theirs, &ids, true).unwrap_or_default();
            assert_eq!(pieces(&ours, &ids).concat(), want, "{name}: {text:?}: {ids:?}");
            assert_eq!(ours.decode(&ids), want, "{name}: {text:?}");
            same += usize::from(want == text || text.contains('▁'));
        }
        if ["GPT-2", "Llama 3", "Falcon", "SmolLM", "Gemma"].contains(&name) {
            assert_eq!(same, 1000, "{name} loses text");
        }
        let vocab = ours.vocab_size() as u32;
        let bytes: Vec<u32> = (0..vocab)
            .filter(|&id| theirs.id_to_token(id).is_some_and(|t| t.starts_with("<0x") || t.chars().count() == 1))
            .collect();
        for _ in 0..1000 {
            let mut ids = Vec::new();
            while ids.len() < 20 {
                match rng.below(3) {
                    0 => ids.extend((0..rng.below(6)).map(|_| *rng.pick(&bytes))),
                    1 => ids.push(rng.below(20) as u32), // special tokens among them
                    _ => ids.push(rng.below(u64::from(vocab) + 3) as u32),
                }
            }
            let want = at_once(&theirs, &ids, true).unwrap();
            assert_eq!(pieces(&ours, &ids).concat(), want, "{name}: {ids:?}");
            assert_eq!(ours.decode_with_specials(&ids), at_once(&theirs, &ids, false).unwrap(), "{name}: {ids:?}");
        }
    }
}
