//! Data sets from configuration to corpus, and every error of a data set.
#![cfg(feature = "native")]

use nanotern::Result;
use nanotern::data::sampler::Sampler;
use nanotern::data::{self, Corpus, DataConfig, Dataset, TokenMeta, load, prepare};
use nanotern::tokenizer::{SPECIALS, Tokenizer};
use std::fs;
use std::path::Path;

const TEXT: &str = "The sea is grey and the sky is grey; ten grey gulls cry.\nÜber dem Meer, über dem Himmel.\n";

fn load_in(dir: &Path, toml: &str) -> Result<Corpus> {
    let cfg: DataConfig = toml::from_str(toml).expect("the test writes valid keys");
    load(&cfg, dir, dir)
}

fn message(dir: &Path, toml: &str) -> String {
    load_in(dir, toml).expect_err("the data are wrong").to_string()
}

fn write_ids(path: &Path, ids: &[u32]) {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    fs::write(path, bytes).unwrap();
}

#[test]
fn unknown_keys_and_data_sets_are_refused() {
    let error = toml::from_str::<DataConfig>("dataset = \"text\"\nbatch = 3").unwrap_err().to_string();
    assert!(error.contains("batch"), "{error}");
    let error = toml::from_str::<DataConfig>("dataset = \"novel\"").unwrap_err().to_string();
    assert!(error.contains("novel") && error.contains("synthetic"), "{error}");
    let cfg: DataConfig = toml::from_str("").unwrap();
    assert_eq!(cfg, DataConfig::default());
    assert_eq!(cfg.dataset, Dataset::Synthetic);
    assert_eq!(toml::from_str::<DataConfig>(&toml::to_string(&cfg).unwrap()).unwrap(), cfg);
}

#[test]
fn text_is_cut_at_a_character() {
    let dir = tempfile::tempdir().unwrap();
    let text = "é".repeat(105);
    fs::write(dir.path().join("t.txt"), &text).unwrap();
    let corpus = load_in(dir.path(), "dataset = \"text\"\npath = \"t.txt\"\ntokenizer = \"bytes\"").unwrap();
    assert_eq!((corpus.train.len(), corpus.val.len()), (2 * 94, 2 * 11)); // floor(0.9 * 105) characters
    assert_eq!((corpus.val_bytes, corpus.vocab_size), (Some(22), 256 + SPECIALS.len()));
    let tokenizer = corpus.tokenizer.unwrap();
    let back = tokenizer.decode(corpus.train.as_slice()) + &tokenizer.decode(corpus.val.as_slice());
    assert_eq!(back, text);
}

#[test]
fn bpe_is_trained_on_the_training_part() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.txt"), TEXT.repeat(9) + &"zebra ".repeat(16)).unwrap();
    let corpus = load_in(dir.path(), "dataset = \"text\"\npath = \"t.txt\"\nvocab_size = 320").unwrap();
    let tokenizer = corpus.tokenizer.unwrap();
    assert!(tokenizer.vocab_size() <= 320 && corpus.vocab_size == tokenizer.vocab_size());
    assert_eq!(tokenizer.encode(" grey").len(), 1);
    assert!(tokenizer.encode(" zebra").len() > 3);
    assert!(Sampler::new(corpus.train.len(), 16, 0).is_ok());
}

#[test]
fn a_given_tokenizer_and_validation_file_are_used() {
    let dir = tempfile::tempdir().unwrap();
    Tokenizer::train_bpe(TEXT, 300).unwrap().save(&dir.path().join("tok/t.json")).unwrap();
    fs::create_dir(dir.path().join("texts")).unwrap();
    fs::write(dir.path().join("texts/a.txt"), "one").unwrap();
    fs::write(dir.path().join("texts/b.txt"), "two").unwrap();
    fs::write(dir.path().join("val.txt"), "three").unwrap();
    let keys = "dataset = \"text\"\npath = \"texts\"\nval_path = \"val.txt\"\ntokenizer = \"tok/t.json\"";
    let corpus = load_in(dir.path(), keys).unwrap();
    let tokenizer = corpus.tokenizer.unwrap();
    assert_eq!(tokenizer.decode_with_specials(corpus.train.as_slice()), "one<|eos|>two");
    assert_eq!((tokenizer.decode(corpus.val.as_slice()).as_str(), corpus.val_bytes), ("three", Some(5)));
    let limit = message(dir.path(), &format!("{keys}\nvocab_size = 262"));
    assert!(limit.contains("262") && limit.contains("tok/t.json"), "{limit}");
}

#[test]
fn malformed_text_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("empty.txt"), "").unwrap();
    fs::write(dir.path().join("bad.txt"), b"abc\xfe").unwrap();
    fs::write(dir.path().join("t.txt"), "a").unwrap();
    for (keys, parts) in [
        ("dataset = \"text\"", &["needs a path"][..]),
        ("dataset = \"text\"\npath = \"none.txt\"", &["none.txt"]),
        ("dataset = \"text\"\npath = \"empty.txt\"", &["empty.txt", "empty"]),
        ("dataset = \"text\"\npath = \"bad.txt\"", &["bad.txt", "UTF-8", "offset 3"]),
        ("dataset = \"text\"\npath = \"t.txt\"", &["t.txt", "too short"]),
        ("dataset = \"text\"\npath = \"t.txt\"\nval_fraction = 1.0", &["val_fraction is 1"]),
        ("dataset = \"text\"\npath = \"t.txt\"\ntokenizer = \"t.txt\"", &["t.txt", "tokenizer"]),
    ] {
        let message = message(dir.path(), keys);
        assert!(parts.iter().all(|part| message.contains(part)), "{keys}: {message}");
    }
}

#[test]
fn token_files_are_mapped_and_split() {
    let dir = tempfile::tempdir().unwrap();
    write_ids(&dir.path().join("a.bin"), &(0..20).collect::<Vec<_>>());
    write_ids(&dir.path().join("b.bin"), &[3, 1]);
    let keys = "dataset = \"tokens\"\npath = \"a.bin\"\nvocab_size = 20";
    let corpus = load_in(dir.path(), keys).unwrap();
    assert_eq!(corpus.train.as_slice(), (0..18).collect::<Vec<u32>>());
    assert_eq!(corpus.val.as_slice(), [18, 19]);
    assert_eq!((corpus.val_bytes, corpus.vocab_size, corpus.name.as_str()), (None, 20, "a.bin"));
    let corpus = load_in(dir.path(), &format!("{keys}\nval_path = \"b.bin\"")).unwrap();
    assert_eq!((corpus.train.len(), corpus.val.as_slice()), (20, &[3, 1][..]));
}

#[test]
fn malformed_token_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("empty.bin"), "").unwrap();
    fs::write(dir.path().join("odd.bin"), "12345").unwrap();
    write_ids(&dir.path().join("big.bin"), &[1, 2, 65, 3]);
    write_ids(&dir.path().join("one.bin"), &[1]);
    for (file, keys, parts) in [
        ("none.bin", "vocab_size = 65", &["none.bin"][..]),
        ("empty.bin", "vocab_size = 65", &["empty.bin", "empty"]),
        ("odd.bin", "vocab_size = 65", &["odd.bin", "5 bytes", "multiple of 4"]),
        ("big.bin", "vocab_size = 65", &["big.bin", "id 65", "offset 8", "65"]),
        ("big.bin", "", &["big.bin", "vocab_size"]),
        ("big.bin", "vocab_size = 66\nval_path = \"odd.bin\"", &["odd.bin"]),
        ("big.bin", "vocab_size = 66\nval_fraction = 0.0", &["val_fraction is 0"]),
        ("one.bin", "vocab_size = 66", &["one.bin", "too few"]),
        ("big.bin", "vocab_size = 66\ntokenizer = \"bytes\"", &["66", "262 tokens"]),
    ] {
        let message = message(dir.path(), &format!("dataset = \"tokens\"\npath = \"{file}\"\n{keys}"));
        assert!(parts.iter().all(|part| message.contains(part)), "{file} {keys}: {message}");
    }
}

#[test]
fn prepared_data_load_as_the_text_does() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("t.txt");
    fs::write(&input, TEXT.repeat(10)).unwrap();
    let summary = prepare(&input, &dir.path().join("out"), "bpe", 320, 0.1).unwrap();
    let prepared =
        load_in(dir.path(), "dataset = \"tokens\"\npath = \"out/train.bin\"\nval_path = \"out/val.bin\"").unwrap();
    let direct = load_in(dir.path(), "dataset = \"text\"\npath = \"t.txt\"\nvocab_size = 320").unwrap();
    assert_eq!(prepared.train.as_slice(), direct.train.as_slice());
    assert_eq!(prepared.val.as_slice(), direct.val.as_slice());
    assert_eq!(prepared.val_bytes, direct.val_bytes);
    assert_eq!(prepared.vocab_size, direct.vocab_size);
    assert_eq!(prepared.tokenizer.unwrap().hash(), direct.tokenizer.unwrap().hash());
    assert_eq!((summary.train_tokens, summary.val_tokens), (direct.train.len() as u64, direct.val.len() as u64));
    assert_eq!(summary.train_bytes + summary.val_bytes, 10 * TEXT.len() as u64);
    let mut names: Vec<_> = fs::read_dir(dir.path().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["tokenizer.json", "train.bin", "train.json", "val.bin", "val.json"]);
    // If the validation tokens are held back from one file, their bytes are counted by the tokenizer.
    let cut = load_in(dir.path(), "dataset = \"tokens\"\npath = \"out/train.bin\"\nval_fraction = 0.5").unwrap();
    let text = cut.tokenizer.unwrap().decode(cut.val.as_slice());
    assert_eq!(cut.val_bytes, Some(text.len() as u64));
}

#[test]
fn a_description_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("t.txt");
    fs::write(&input, TEXT.repeat(10)).unwrap();
    let keys = "dataset = \"tokens\"\npath = \"train.bin\"\nval_path = \"val.bin\"";
    let bin = dir.path().join("train.bin");
    let describe = |change: &dyn Fn(&mut TokenMeta)| {
        prepare(&input, dir.path(), "bpe", 320, 0.1).unwrap();
        let mut meta = TokenMeta::read(&bin).unwrap().unwrap();
        change(&mut meta);
        fs::write(TokenMeta::path(&bin), serde_json::to_string(&meta).unwrap()).unwrap();
        message(dir.path(), keys)
    };
    let tokens = describe(&|meta| meta.tokens += 1);
    assert!(tokens.contains("train.bin") && tokens.contains("train.json says"), "{tokens}");
    let hash = describe(&|meta| meta.tokenizer_hash = "0".repeat(8));
    assert!(hash.contains("00000000"), "{hash}");
    prepare(&input, dir.path(), "bpe", 320, 0.1).unwrap();
    let small = message(dir.path(), &format!("{keys}\nvocab_size = 300"));
    assert!(small.contains("300"), "{small}");
    fs::write(TokenMeta::path(&bin), "{\"tokens\": \"many\"}").unwrap();
    let broken = message(dir.path(), keys);
    assert!(broken.contains("train.json"), "{broken}");
}

#[test]
fn training_from_a_folder() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.txt"), "one one one one").unwrap();
    fs::write(dir.path().join("b.txt"), "two two two two").unwrap();
    let out = tempfile::tempdir().unwrap();
    let t = data::train_tokenizer(dir.path(), 280, &out.path().join("sub/t.json")).unwrap();
    assert_eq!((t.encode(" one").len(), t.encode(" two").len()), (1, 1));
    assert!(out.path().join("sub/t.json").exists());
}
