//! Encodes a text with nanotern and with the `tokenizers` crate, in turns, and compares the ids.
//! `cargo bench --bench encode -- TOKENIZER.json TEXT` takes a byte-level BPE. The crate's `encode_batch` gets pieces of about
//! 32 KiB, cut where nanotern would, so that both use all cores (`RAYON_NUM_THREADS` sets how many).

use nanotern::tokenizer::Tokenizer;
use std::path::Path;
use std::time::Instant;

const ROUNDS: usize = 3;
const PIECE: usize = 1 << 15;

fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let [tokenizer, text] = &args[..] else {
        println!("encode: give a tokenizer.json and a text");
        return Ok(());
    };
    let ours = Tokenizer::load(Path::new(tokenizer))?;
    let mut theirs = tokenizers::Tokenizer::from_file(tokenizer)?;
    theirs.set_encode_special_tokens(true);
    let text = std::fs::read_to_string(text)?;
    let (mut pieces, mut rest) = (Vec::new(), &text[..]);
    while let Some(cut) = ours.cut(rest, PIECE) {
        let (piece, tail) = rest.split_at(cut);
        pieces.push(piece);
        rest = tail;
    }
    pieces.push(rest);
    for _ in 0..ROUNDS {
        let speed = |start: Instant| text.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
        let start = Instant::now();
        let ids = ours.encode(&text).unwrap();
        let nanotern = speed(start);
        let start = Instant::now();
        let encodings = theirs.encode_batch(pieces.clone(), false)?;
        let crates = speed(start);
        let same = encodings.iter().flat_map(|e| e.get_ids()).eq(&ids);
        println!(
            "nanotern {nanotern:.1} MB/s, tokenizers {crates:.1} MB/s, {:.1}x, same ids: {same}",
            nanotern / crates
        );
    }
    Ok(())
}
