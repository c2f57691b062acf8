//! Tokenizers of other programs, from the keys of a file.

use nanotern::formats::gguf::{self, Gguf};
use std::process::Command;

/// What llama.cpp puts between two texts of a file.
const BETWEEN: &str = "\n__ggml_vocab_test__\n";

/// Vocabularies of llama.cpp with texts, and the ids that the `tokenizers` library gave them.
#[test]
fn vocabularies_give_the_ids_of_others() {
    let Some(folder) = std::env::var_os("NANOTERN_FOREIGN").map(|f| std::path::PathBuf::from(f).join("vocab")) else {
        return;
    };
    let Ok(files) = std::fs::read_dir(&folder) else { return };
    let mut packed: Vec<_> =
        files.map(|f| f.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "gz")).collect();
    packed.sort();
    for packed in packed {
        let bytes = Command::new("gzip").arg("-dc").arg(&packed).output().unwrap().stdout;
        let path = packed.with_extension("");
        let read = |end: &str| std::fs::read_to_string(format!("{}{end}", path.display())).unwrap();
        let (texts, ids) = (read(".inp"), read(".out"));
        let text = gguf::text(&Gguf::parse(&bytes).unwrap()).unwrap();
        let tokenizer = text.tokenizer(usize::MAX).unwrap().unwrap();
        let mut pairs = 0;
        for (text, ids) in texts.split(BETWEEN).zip(ids.lines()) {
            let ids: Vec<u32> = ids.split_whitespace().map(|id| id.parse().unwrap()).collect();
            assert_eq!(tokenizer.encode(text).unwrap(), ids, "{}: {text:?}", path.display());
            pairs += 1;
        }
        println!("{}: {pairs} pairs", path.display());
        assert!(pairs > 40, "{}", path.display());
    }
}
