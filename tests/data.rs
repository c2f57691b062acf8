//! Data sets from configuration to corpus, and every error of a data set.
#![cfg(feature = "native")]

use nanotern::Result;
use nanotern::data::sampler::Sampler;
use nanotern::data::{self, Corpus, DataConfig, Dataset, TokenMeta, load, prepare};
use nanotern::tokenizer::{EOS, SPECIALS, Tokenizer};
use ruzstd::encoding::CompressionLevel;
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

/// A text data set at `path`.
fn text(path: impl AsRef<Path>) -> DataConfig {
    DataConfig { dataset: Dataset::Text, path: Some(path.as_ref().to_path_buf()), ..DataConfig::default() }
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
    assert_eq!((corpus.train.len(), corpus.val.len()), (2 * 94 + 1, 2 * 11 + 1)); // floor(0.9 * 105) characters
    assert_eq!((corpus.val_bytes, corpus.vocab_size), (Some(22), 256 + SPECIALS.len()));
    let tokenizer = corpus.tokenizer.unwrap();
    let back = tokenizer.decode(&corpus.train.to_vec().unwrap()) + &tokenizer.decode(&corpus.val.to_vec().unwrap());
    assert_eq!(back.replace(EOS, ""), text);
}

#[test]
fn bpe_is_trained_on_the_training_part() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.txt"), TEXT.repeat(9) + &"zebra ".repeat(16)).unwrap();
    let corpus = load_in(dir.path(), "dataset = \"text\"\npath = \"t.txt\"\nvocab_size = 320").unwrap();
    let tokenizer = corpus.tokenizer.unwrap();
    assert!(tokenizer.vocab_size() <= 320 && corpus.vocab_size == tokenizer.vocab_size());
    assert_eq!(tokenizer.encode(" grey").unwrap().len(), 1);
    assert!(tokenizer.encode(" zebra").unwrap().len() > 3);
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
    assert_eq!(tokenizer.decode_with_specials(&corpus.train.to_vec().unwrap()), "one<|eos|>two<|eos|>");
    assert_eq!((tokenizer.decode(&corpus.val.to_vec().unwrap()).as_str(), corpus.val_bytes), ("three", Some(5)));
    let (limit, size) = (message(dir.path(), &format!("{keys}\nvocab_size = 262")), tokenizer.vocab_size().to_string());
    assert!(["262 (data.vocab_size)", "tok/t.json", &size].iter().all(|part| limit.contains(part)), "{limit}");
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
fn token_files_are_opened_and_split() {
    let dir = tempfile::tempdir().unwrap();
    write_ids(&dir.path().join("a.bin"), &(0..20).collect::<Vec<_>>());
    write_ids(&dir.path().join("b.bin"), &[3, 1]);
    let keys = "dataset = \"tokens\"\npath = \"a.bin\"\nvocab_size = 20";
    let corpus = load_in(dir.path(), keys).unwrap();
    assert_eq!(corpus.train.to_vec().unwrap(), (0..18).collect::<Vec<u32>>());
    assert_eq!(corpus.val.to_vec().unwrap(), [18, 19]);
    assert_eq!((corpus.val_bytes, corpus.vocab_size, corpus.name.as_str()), (None, 20, "a.bin"));
    let corpus = load_in(dir.path(), &format!("{keys}\nval_path = \"b.bin\"")).unwrap();
    assert_eq!((corpus.train.len(), corpus.val.to_vec().unwrap()), (20, vec![3, 1]));
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
    let summary = prepare(&DataConfig { vocab_size: Some(320), ..text(&input) }, &dir.path().join("out")).unwrap();
    let prepared =
        load_in(dir.path(), "dataset = \"tokens\"\npath = \"out/train.bin\"\nval_path = \"out/val.bin\"").unwrap();
    let direct = load_in(dir.path(), "dataset = \"text\"\npath = \"t.txt\"\nvocab_size = 320").unwrap();
    assert_eq!(prepared.train.to_vec().unwrap(), direct.train.to_vec().unwrap());
    assert_eq!(prepared.val.to_vec().unwrap(), direct.val.to_vec().unwrap());
    assert_eq!(prepared.val_bytes, direct.val_bytes);
    assert_eq!(prepared.vocab_size, direct.vocab_size);
    assert_eq!(prepared.tokenizer.unwrap().hash(), direct.tokenizer.unwrap().hash());
    let (report, direct_report) = (summary.report, direct.report.unwrap());
    assert_eq!(report, direct_report);
    assert_eq!((report.train.tokens, report.val.tokens), (direct.train.len() as u64, direct.val.len() as u64));
    assert_eq!(report.train.bytes + report.val.bytes, 10 * TEXT.len() as u64);
    let mut names: Vec<_> = fs::read_dir(dir.path().join("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["tokenizer.json", "train.bin", "train.json", "val.bin", "val.json"]);
    // If the validation tokens are held back from one file, their bytes are counted by the tokenizer.
    let cut = load_in(dir.path(), "dataset = \"tokens\"\npath = \"out/train.bin\"\nval_fraction = 0.5").unwrap();
    let text = cut.tokenizer.unwrap().decode(&cut.val.to_vec().unwrap());
    assert_eq!(cut.val_bytes, Some(text.trim_end_matches(EOS).len() as u64));
}

#[test]
fn files_that_are_not_of_prepared_data_are_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.txt"), TEXT).unwrap();
    let cfg = DataConfig { tokenizer: "bytes".into(), ..text(dir.path().join("t.txt")) };
    for name in ["tokenizer.json", "val.json"] {
        let path = dir.path().join(name);
        fs::write(&path, "mine").unwrap();
        let message = prepare(&cfg, dir.path()).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains("replaced"), "{message}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        fs::remove_file(&path).unwrap();
    }
    prepare(&cfg, dir.path()).unwrap();
    prepare(&cfg, dir.path()).unwrap();
}

#[test]
fn a_description_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let input = dir.path().join("t.txt");
    fs::write(&input, TEXT.repeat(10)).unwrap();
    let keys = "dataset = \"tokens\"\npath = \"train.bin\"\nval_path = \"val.bin\"";
    let bin = dir.path().join("train.bin");
    let cfg = DataConfig { vocab_size: Some(320), ..text(&input) };
    let describe = |change: &dyn Fn(&mut TokenMeta)| {
        prepare(&cfg, dir.path()).unwrap();
        let mut meta = TokenMeta::read(&bin).unwrap().unwrap();
        change(&mut meta);
        fs::write(TokenMeta::path(&bin), serde_json::to_string(&meta).unwrap()).unwrap();
        message(dir.path(), keys)
    };
    let tokens = describe(&|meta| meta.tokens += 1);
    assert!(tokens.contains("train.bin") && tokens.contains("train.json says"), "{tokens}");
    let hash = describe(&|meta| meta.tokenizer_hash = "0".repeat(8));
    assert!(hash.contains("00000000"), "{hash}");
    prepare(&cfg, dir.path()).unwrap();
    let small = message(dir.path(), &format!("{keys}\nvocab_size = 300"));
    let tokenizer = Tokenizer::load(&dir.path().join("tokenizer.json")).unwrap();
    let parts = ["300 (data.vocab_size)", "tokenizer.json", &tokenizer.vocab_size().to_string()];
    assert!(parts.iter().all(|part| small.contains(part)), "{small}");
    fs::rename(dir.path().join("tokenizer.json"), dir.path().join("other.json")).unwrap();
    let small = message(dir.path(), &format!("{keys}\nvocab_size = 300"));
    assert!(small.contains("train.bin") && small.contains("300"), "{small}");
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
    let cfg = DataConfig { vocab_size: Some(280), ..text(dir.path()) };
    fs::write(dir.path().join("c.bin"), [0; 9]).unwrap();
    let (t, report) = data::train_tokenizer(&cfg, &out.path().join("sub/t.json")).unwrap();
    assert_eq!((report.train.documents, report.train.bytes, report.left_out.count), (2, 30, 1), "{report}");
    assert_eq!((t.encode(" one").unwrap().len(), t.encode(" two").unwrap().len()), (1, 1));
    assert!(out.path().join("sub/t.json").exists());
}

/// Lines of JSON with these texts.
fn lines(texts: impl IntoIterator<Item = String>) -> String {
    texts.into_iter().map(|text| serde_json::json!({ "body": text }).to_string() + "\n").collect()
}

/// Documents of different lengths.
fn documents(n: usize) -> impl Iterator<Item = String> {
    (0..n).map(|i| format!("Document {i}: {}\n", "gull ".repeat(i * 7 % 23)))
}

/// The documents of tokens: the texts between end-of-document tokens, of which there is one after each.
fn documents_of(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let eos = tokenizer.eos().unwrap();
    assert_eq!(ids.last(), Some(&eos));
    ids[..ids.len() - 1].split(|id| *id == eos).map(|ids| tokenizer.decode(ids)).collect()
}

#[test]
fn every_form_of_a_corpus_gives_the_same_documents() {
    let dir = tempfile::tempdir().unwrap();
    let (texts, at): (Vec<String>, _) = (documents(300).collect(), |name: &str| dir.path().join(name));
    fs::create_dir(at("folder")).unwrap();
    texts.iter().enumerate().for_each(|(i, text)| fs::write(at(&format!("folder/{:03}.txt", 299 - i)), text).unwrap());
    let json = lines(texts.clone());
    fs::write(at("a.jsonl"), &json).unwrap();
    fs::write(at("a.ndjson.zst"), ruzstd::encoding::compress_to_vec(json.as_bytes(), CompressionLevel::Fastest))
        .unwrap();
    let spelled = texts.join(EOS);
    fs::write(at("spelled.txt"), format!("{spelled}{EOS}")).unwrap();
    let sides = |name: &str, more: &str| {
        let keys = format!("dataset = \"text\"\npath = \"{name}\"\ntokenizer = \"bytes\"\n{more}");
        let corpus = load_in(dir.path(), &keys).unwrap();
        let tokenizer = corpus.tokenizer.unwrap();
        let [mut train, mut val] = [&corpus.train, &corpus.val].map(|t| documents_of(&tokenizer, &t.to_vec().unwrap()));
        assert_eq!(corpus.val_bytes, Some(val.concat().len() as u64), "{name}");
        train.sort();
        val.sort();
        (train, val)
    };
    let folder = sides("folder", "");
    assert_eq!(folder.0.len() + folder.1.len(), 300);
    assert!(folder.1.iter().all(|text| texts.contains(text)) && (15..50).contains(&folder.1.len()));
    assert_eq!(sides("a.jsonl", "field = \"body\""), folder);
    assert_eq!(sides("a.ndjson.zst", "field = \"body\""), folder);
    assert_eq!(sides("spelled.txt", "special_tokens = true"), folder);
}

#[test]
fn the_spelling_of_a_special_token_is_text_unless_told() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!("a {EOS} b <|user|> c\n");
    fs::write(dir.path().join("t.txt"), text.repeat(9)).unwrap();
    for tokenizer in ["bytes", "bpe"] {
        let load = |special: bool| {
            let keys = "dataset = \"text\"\npath = \"t.txt\"\nval_path = \"t.txt\"\nvocab_size = 290";
            load_in(dir.path(), &format!("{keys}\ntokenizer = \"{tokenizer}\"\nspecial_tokens = {special}")).unwrap()
        };
        let plain = load(false);
        let (of, ids) = (plain.tokenizer.unwrap(), &plain.val.to_vec().unwrap()[..]);
        assert_eq!(ids.iter().filter(|id| of.is_special(**id)).count(), 1);
        assert_eq!(of.decode_with_specials(ids), text.repeat(9) + EOS);
        assert_eq!(plain.val_bytes, Some(text.len() as u64 * 9));
        let special = load(true);
        let (of, ids) = (special.tokenizer.unwrap(), &special.val.to_vec().unwrap()[..]);
        assert_eq!(ids.iter().filter(|id| of.is_special(**id)).count(), 19);
        assert_eq!(of.decode_with_specials(ids), text.repeat(9) + EOS);
        let spelled = (EOS.len() + "<|user|>".len()) as u64;
        assert_eq!(special.val_bytes, Some((text.len() as u64 - spelled) * 9));
        assert_eq!(special.report.unwrap().val.documents, 10);
        // A tokenizer is not trained on the spelling.
        let mut texts =
            (0..of.vocab_size() as u32).filter(|id| !of.is_special(*id)).filter_map(|id| of.token_bytes(id));
        assert!(!texts.any(|text| text.windows(2).any(|two| two == b"us")), "{tokenizer}");
    }
}

#[test]
fn bytes_of_the_built_in_text_are_of_text_alone() {
    let corpus = load_in(Path::new(""), "tokenizer = \"bytes\"").unwrap();
    let text = corpus.val.to_vec().unwrap().iter().filter(|id| **id < 256).count() as u64;
    assert_eq!(corpus.val_bytes, Some(text));
    assert!((text as usize) < corpus.val.len());
}

#[test]
fn token_files_are_cut_between_documents() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.jsonl"), lines(documents(40))).unwrap();
    let cfg = DataConfig { field: "body".into(), tokenizer: "bytes".into(), ..text(dir.path().join("t.jsonl")) };
    prepare(&cfg, &dir.path().join("out")).unwrap();
    let corpus = load_in(dir.path(), "dataset = \"tokens\"\npath = \"out/train.bin\"\nval_fraction = 0.2").unwrap();
    let of = corpus.tokenizer.unwrap();
    let (train, val) =
        (documents_of(&of, &corpus.train.to_vec().unwrap()), documents_of(&of, &corpus.val.to_vec().unwrap()));
    assert_eq!(train.len() + val.len(), 40);
    assert!(val.iter().all(|text| text.starts_with("Document")) && val.len() > 3);
    let report = corpus.report.unwrap();
    assert!(report.split.contains("end of a document"), "{report}");
    assert_eq!((report.val.documents, report.val.bytes), (val.len() as u64, val.concat().len() as u64));
}

#[test]
fn documents_to_evaluate_are_those_of_training() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.jsonl"), lines(documents(120))).unwrap();
    fs::create_dir(dir.path().join("val")).unwrap();
    fs::write(dir.path().join("val/a.jsonl"), lines(documents(9))).unwrap();
    fs::write(dir.path().join("val/b.txt"), TEXT).unwrap();
    let keys = "dataset = \"text\"\npath = \"t.jsonl\"\nfield = \"body\"\nval_path = \"val\"\nvocab_size = 300";
    let corpus = load_in(dir.path(), keys).unwrap();
    let cfg: DataConfig = toml::from_str(keys).unwrap();
    let (tokens, report) =
        data::load_documents(&cfg, &dir.path().join("val"), corpus.tokenizer.as_ref().unwrap()).unwrap();
    assert_eq!(tokens.to_vec().unwrap(), corpus.val.to_vec().unwrap());
    assert_eq!((Some(report.val.bytes), report.val.documents), (corpus.val_bytes, 10));
    assert_eq!(report.val, corpus.report.unwrap().val);
}

#[test]
fn a_preset_is_no_vocabulary() {
    for preset in nanotern::model::PRESETS.iter() {
        let config = nanotern::train::Config::load(Some(preset.name.as_ref()), &[]).unwrap();
        assert_eq!(config.data.vocab_size, None, "{}", preset.name);
    }
}

#[test]
fn validation_on_training_files_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("all")).unwrap();
    for name in ["all/a.txt", "all/b.txt", "c.txt"] {
        fs::write(dir.path().join(name), TEXT).unwrap();
    }
    let said = |val: &str| {
        let keys = format!("dataset = \"text\"\npath = \"all\"\nval_path = \"{val}\"\ntokenizer = \"bytes\"");
        load_in(dir.path(), &keys).unwrap().report.unwrap().to_string()
    };
    assert!(said("all/../all").contains("2 of 2 validation files are training files"), "{}", said("all/../all"));
    assert!(said("all/b.txt").contains("1 of 1 validation files are training files"), "{}", said("all/b.txt"));
    assert!(!said("c.txt").contains("training files"), "{}", said("c.txt"));

    write_ids(&dir.path().join("a.bin"), &(0..20).collect::<Vec<_>>());
    write_ids(&dir.path().join("b.bin"), &[3, 1]);
    let said = |val: &str| {
        let keys = format!("dataset = \"tokens\"\npath = \"a.bin\"\nvocab_size = 20\nval_path = \"{val}\"");
        load_in(dir.path(), &keys).unwrap().report.unwrap().to_string()
    };
    assert!(said("all/../a.bin").contains("1 of 1 validation files are training files"), "{}", said("a.bin"));
    assert!(!said("b.bin").contains("training files"), "{}", said("b.bin"));
}
