//! Tokenizers of other programs, from the keys of a file.

use super::give::{llama, random};
use nanotern::formats::gguf::{self, Gguf};
use nanotern::formats::{Format, Target, TextConfig};
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

/// A file of keys alone.
#[derive(Clone, Default)]
struct Keys(Vec<(String, Vec<u8>)>);

fn string(s: &str) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s.as_bytes()].concat()
}

impl Keys {
    fn with(mut self, key: &str, kind: u32, value: &[u8]) -> Keys {
        let key = format!("tokenizer.ggml.{key}");
        self.0.retain(|(k, _)| *k != key);
        self.0.push((key, [&kind.to_le_bytes()[..], value].concat()));
        self
    }

    fn array(self, key: &str, kind: u32, values: Vec<Vec<u8>>) -> Keys {
        let head = [&kind.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        self.with(key, 9, &[head, values.concat()].concat())
    }

    fn read(&self) -> Result<TextConfig, String> {
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes(), &0u64.to_le_bytes()].concat();
        bytes.extend((self.0.len() as u64).to_le_bytes());
        self.0.iter().for_each(|(key, value)| bytes.extend([string(key), value.clone()].concat()));
        gguf::text(&Gguf::parse(&bytes).unwrap())
    }

    fn text(&self) -> TextConfig {
        self.read().unwrap()
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        self.text().tokenizer(usize::MAX).unwrap().unwrap().encode(text).unwrap()
    }
}

/// GPT-2's character for each byte.
fn byte_chars() -> Vec<String> {
    let printing = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut other = 0x100..;
    let mut of = |b: u8| if printing(b) { u32::from(b) } else { other.next().unwrap() };
    (0..=255).map(|b| char::from_u32(of(b)).unwrap().to_string()).collect()
}

/// A byte-level BPE of the kind `pre`, whose tokens are all bytes and these.
fn byte_level(pre: &str) -> Keys {
    let mut tokens = byte_chars();
    tokens.extend(["12", "123", "1234", "xyz", "<|eot_id|>"].map(String::from));
    let kinds = tokens.iter().map(|t| if t == "<|eot_id|>" { 3u32 } else { 1 }.to_le_bytes().to_vec()).collect();
    Keys::default()
        .with("model", 8, &string("gpt2"))
        .with("pre", 8, &string(pre))
        .array("tokens", 8, tokens.iter().map(|t| string(t)).collect())
        .array("token_type", 5, kinds)
        .array("merges", 8, ["1 2", "12 3", "123 4"].map(string).to_vec())
        .with("bos_token_id", 4, &7u32.to_le_bytes())
        .with("eos_token_id", 4, &9u32.to_le_bytes())
}

#[test]
fn each_kind_of_byte_level_bpe_cuts_text_in_its_way() {
    let of = |keys: &Keys, text: &str| {
        let tokenizer = keys.text().tokenizer(usize::MAX).unwrap().unwrap();
        let ids = tokenizer.encode(text).unwrap();
        ids.iter()
            .map(|id| String::from_utf8(tokenizer.token_bytes(*id).unwrap()).unwrap())
            .collect::<Vec<_>>()
            .join("|")
    };
    for (pre, digits, word) in [
        ("gpt-2", "1234", "x|y|z"),
        ("llama-bpe", "123|4", "xyz"),
        ("falcon3", "123|4", "xyz"),
        ("qwen2", "1|2|3|4", "x|y|z"),
        ("starcoder", "1|2|3|4", "x|y|z"),
        ("smollm", "1|2|3|4", "x|y|z"),
        ("falcon", "123|4", "x|y|z"),
        ("deepseek-coder", "1|2|3|4", "x|y|z"),
    ] {
        let keys = byte_level(pre);
        assert_eq!((&of(&keys, "1234")[..], &of(&keys, "xyz")[..]), (digits, word), "{pre}");
        let text = keys.text();
        assert_eq!(text.prompt_start(), ["llama-bpe", "falcon3"].contains(&pre).then_some(7), "{pre}");
        let eot = keys.text().tokenizer(usize::MAX).unwrap().unwrap().token_id("<|eot_id|>").unwrap();
        assert_eq!(text.stop, [9, eot], "{pre}");
        assert_eq!(keys.with("eom_token_id", 4, &5u32.to_le_bytes()).text().stop, [9, 5, eot], "{pre}");
    }
}

/// A file names the way of cutting text as llama.cpp does, or says that it has no name.
#[test]
fn how_a_tokenizer_cuts_text_is_named_in_a_file() {
    let mut model = random(&llama(), u32::MAX);
    let mut named = |text: TextConfig| {
        model.text = text;
        let bytes = gguf::Layout::new(&model, Format::I2S).unwrap().to_vec();
        let name = Gguf::parse(&bytes).unwrap().keys["tokenizer.ggml.pre"].as_str().unwrap().to_string();
        (name, model.readers(Target::Gguf(Format::I2S)).contains("may cut otherwise"))
    };
    for name in ["gpt-2", "smollm", "llama-bpe", "qwen2", "falcon", "deepseek-coder"] {
        assert_eq!(named(byte_level(name).text()), (name.to_string(), false));
    }
    for (other, name) in [("falcon3", "llama-bpe"), ("starcoder", "smollm")] {
        assert_eq!(named(byte_level(other).text()), (name.to_string(), false));
    }
    let mut text = byte_level("llama-bpe").text();
    let json = text.tokenizer_json.take().unwrap();
    text.tokenizer_json = Some(json.replace("\"ignore_merges\":true", "\"ignore_merges\":false"));
    assert_eq!(named(text), ("default".to_string(), true));
}

/// A SentencePiece vocabulary: control tokens, bytes, and pieces with their scores.
fn pieces(more: &[(&str, f32)]) -> Keys {
    let control = [("<unk>", 2u32), ("<s>", 3), ("</s>", 3)].map(|(t, kind)| (t.to_string(), 0.0, kind));
    let bytes = (0..256).map(|b| (format!("<0x{b:02X}>"), 0.0, 6u32));
    let pieces = more.iter().map(|(t, score)| (t.to_string(), *score, 1));
    let all: Vec<(String, f32, u32)> = control.into_iter().chain(bytes).chain(pieces).collect();
    Keys::default()
        .with("model", 8, &string("llama"))
        .array("tokens", 8, all.iter().map(|(t, ..)| string(t)).collect())
        .array("scores", 6, all.iter().map(|(_, score, _)| score.to_le_bytes().to_vec()).collect())
        .array("token_type", 5, all.iter().map(|(.., kind)| kind.to_le_bytes().to_vec()).collect())
        .with("bos_token_id", 4, &1u32.to_le_bytes())
}

#[test]
fn the_pair_with_the_highest_score_is_joined_first() {
    let blank = "\u{2581}";
    let with_blank = format!("{blank}a");
    let list =
        [(blank, -9.0), ("a", -9.5), ("b", -9.6), ("c", -9.7), (&with_blank[..], -2.0), ("ab", -5.0), ("bc", -1.0)];
    let keys = pieces(&list);
    let id = |piece: &str| 259 + list.iter().position(|(p, _)| *p == piece).unwrap() as u32;
    assert_eq!(keys.ids("abc"), [id(&with_blank), id("bc")]);
    assert_eq!(keys.ids("cab"), [id(blank), id("c"), id("ab")]);
    assert_eq!(keys.ids("c a"), [id(blank), id("c"), id(&with_blank)]);
    // No token: its bytes.
    assert_eq!(keys.ids("\u{e9}"), [id(blank), 3 + 0xc3, 3 + 0xa9]);
    assert_eq!(keys.ids(""), [0; 0]);
    let without = keys.clone().with("add_space_prefix", 7, &[0]);
    assert_eq!(without.ids("abc"), [id("a"), id("bc")]);
    let tokenizer = keys.text().tokenizer(usize::MAX).unwrap().unwrap();
    for text in ["abc", "c a", "  \u{e9}a", "abc\ncab"] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap()), text);
    }
    // Text behind a control token begins with a blank too.
    assert_eq!(
        tokenizer.encode_with_specials("<s>abc</s>a").unwrap(),
        [1, id(&with_blank), id("bc"), 2, id(&with_blank)]
    );
    assert_eq!(keys.text().prompt_start(), Some(1), "where no key says otherwise");
    // Scores in another order join otherwise.
    let mut other = list;
    (other[5].1, other[6].1) = (-1.0, -5.0);
    assert_eq!(pieces(&other).ids("abc"), [id(blank), id("ab"), id("c")]);
}

#[test]
fn a_vocabulary_that_would_take_all_memory_is_refused() {
    let refused = |keys: Keys| keys.text().tokenizer(usize::MAX).unwrap_err().to_string();
    assert!(refused(pieces(&[(&"a".repeat(200), 0.0)])).contains("200 bytes"));
    // Every piece is made of every two others.
    let runs: Vec<String> = (1..=128).map(|n| "a".repeat(n)).collect();
    let many: Vec<(&str, f32)> = runs.iter().map(|run| (&run[..], 0.0)).collect();
    assert!(refused(pieces(&many)).contains("more than"));
    let short = pieces(&[]).array("scores", 6, vec![vec![0; 4]]);
    assert!(short.read().unwrap_err().contains("scores"));
}
