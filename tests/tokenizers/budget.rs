//! Tokenizers of strangers that would take the memory, the time or the life of the program. Each is refused when it opens, or
//! refuses a text, or works.

use nanotern::tokenizer::Tokenizer;
use serde_json::{Value, json};

/// What a tokenizer does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    /// It does not open.
    Refuse,
    /// It opens, and refuses one text.
    RefuseText,
    /// It opens, and encodes the text.
    Encode,
    /// Whether it encodes depends on the speed of the machine.
    Either,
}
use Does::{Either, Encode, Refuse, RefuseText};

/// The tokenizer of bytes with other parts.
fn with(parts: Value) -> String {
    let mut json: Value = serde_json::from_str(&Tokenizer::bytes().to_json()).unwrap();
    json.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
    json.to_string()
}

fn replace(from: Value, to: &str) -> Value {
    json!({"type": "Replace", "pattern": from, "content": to})
}

fn all_of(list: &str, step: Value, times: usize) -> Value {
    json!({"type": "Sequence", list: vec![step; times]})
}

fn normalizer(step: Value) -> String {
    with(json!({"normalizer": step}))
}

/// A pre-tokenizer that splits at an expression, before bytes become characters.
fn split(expression: &str) -> String {
    let split = json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": false});
    with(json!({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}}))
}

fn decoder(step: Value) -> String {
    with(json!({"decoder": step}))
}

/// A map of normalisations in Base64: the length of a table, and the table, and texts.
fn map(size: u32, table: &[u8], texts: &[u8]) -> Value {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let bytes = [&size.to_le_bytes(), table, texts].concat();
    json!({"type": "Precompiled", "precompiled_charsmap": BASE64_STANDARD.encode(bytes)})
}

/// The tokenizer of bytes with another model.
fn model(edit: impl Fn(&mut Value)) -> String {
    let mut json: Value = serde_json::from_str(&with(json!({}))).unwrap();
    edit(&mut json);
    json.to_string()
}

/// Tokens of ever more of the same letter and another.
fn added(longest: usize) -> Value {
    let token = |length: usize| {
        json!({"id": 254 + length, "content": "a".repeat(length - 1) + "b", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    (2..=longest).map(token).collect()
}

fn hostile() -> Vec<(&'static str, String, String, Does)> {
    let a = || "a".repeat(64);
    let longer = |n: usize| replace(json!({"String": "a"}), &"a".repeat(n));
    let level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": false});
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": false});
    let mut nested = json!({"type": "NFC"});
    (0..60).for_each(|_| nested = json!({"type": "Sequence", "normalizers": [nested]}));
    let quadratic = "a".repeat(100_000);
    vec![
        ("eight replacements", normalizer(all_of("normalizers", longer(64), 8)), a(), Refuse),
        (
            "four replacements",
            normalizer(all_of("normalizers", replace(json!({"String": "é"}), "éééé"), 4)),
            "é".repeat(99),
            RefuseText,
        ),
        (
            "one replacement",
            normalizer(replace(json!({"String": "é"}), &"b".repeat(40_000))),
            "é".repeat(9),
            RefuseText,
        ),
        (
            "an added token that grows",
            with(json!({"normalizer": all_of("normalizers", replace(json!({"String": "é"}), "éééé"), 12),
            "added_tokens": [{"id": 256, "content": "é", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": true}]})),
            a(),
            Refuse,
        ),
        (
            "replacement sixteen times",
            normalizer(replace(json!({"String": "é"}), &"b".repeat(16))),
            "é".repeat(99),
            Encode,
        ),
        ("replacement of nothing", normalizer(replace(json!({"String": ""}), "b")), a(), Refuse),
        ("replacement of blanks or nothing", normalizer(replace(json!({"Regex": r"\s*"}), "b")), a(), Refuse),
        ("a long prefix", normalizer(json!({"type": "Prepend", "prepend": "b".repeat(100_000)})), a(), Refuse),
        ("prefixes", normalizer(all_of("normalizers", json!({"type": "Prepend", "prepend": "é"}), 300)), a(), Refuse),
        ("ligatures", normalizer(json!({"type": "NFKC"})), "\u{fdfa}".repeat(999), RefuseText),
        ("nested sequences", normalizer(nested), a(), Encode),
        ("a map of nothing", normalizer(json!({"type": "Precompiled", "precompiled_charsmap": ""})), a(), Refuse),
        ("a map that is no map", normalizer(json!({"type": "Precompiled", "precompiled_charsmap": "%"})), a(), Refuse),
        ("a map that says it is long", normalizer(map(u32::MAX - 3, &[0; 16], b"")), a(), Refuse),
        ("a short map", normalizer(map(8, &[0xff; 8], b"a\0")), a(), Refuse),
        ("a map to long texts", normalizer(map(4096, &[0; 4096], &[b'a'; 9999])), a(), Refuse),
        ("pre-tokenizers of bytes", with(json!({"pre_tokenizer": all_of("pretokenizers", level, 20)})), a(), Refuse),
        (
            "pre-tokenizers of blanks",
            with(json!({"pre_tokenizer": all_of("pretokenizers", metaspace, 9)})),
            a(),
            Refuse,
        ),
        ("pieces of no length", with(json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}})), a(), Refuse),
        ("nested repetitions", split("(a+)+$"), a() + "b", Encode),
        ("nested repetitions that look", split("(a+)+$(?=b)|x"), a() + "c", RefuseText),
        ("a reference", split(r"(a*)*\1b"), a(), RefuseText),
        ("a long way for each match", split("a*b|a"), quadratic.clone(), Either),
        ("a long way for each look", split("a(?=a*b)|a"), quadratic, Either),
        ("a large expression", split(r"((\p{L}{1000}){1000}){1000}"), a(), Refuse),
        ("a large look ahead", split(r"(?=((\p{L}+){1000}){1000})\1"), a(), Refuse),
        ("a large look back", split(r"(?<=((\p{L}+){1000}){1000})"), a(), Refuse),
        (
            "a large look back in a normalizer",
            normalizer(replace(json!({"Regex": r"(?<!(a+\w){5000})"}), "b")),
            a(),
            Refuse,
        ),
        ("a large look back in a decoder", decoder(replace(json!({"Regex": r"(?<=(\w+){1000})"}), "b")), a(), Refuse),
        (
            "many expressions",
            with(
                json!({"pre_tokenizer": all_of("pretokenizers", json!({"type": "Split", "pattern": {"Regex": r"(?=a)\p{L}{9}"},
                "behavior": "Isolated", "invert": false}), 99)}),
            ),
            a(),
            Refuse,
        ),
        ("repetitions of nothing", split("(?=(){4000000000})()"), a(), Refuse),
        ("a broken expression", split("(a"), a(), Refuse),
        ("decoders that grow", decoder(all_of("decoders", longer(64), 8)), a(), Refuse),
        ("decoders of nothing", decoder(all_of("decoders", replace(json!({"String": ""}), "b"), 20)), a(), Refuse),
        (
            "decoders of suffixes",
            decoder(all_of("decoders", json!({"type": "BPEDecoder", "suffix": ""}), 30)),
            a(),
            Refuse,
        ),
        ("far ids", model(|j| j["model"]["vocab"]["aa"] = ((1 << 24) - 1).into()), a(), Refuse),
        ("huge ids", model(|j| j["model"]["vocab"]["aa"] = u32::MAX.into()), a(), Refuse),
        ("ids beyond", model(|j| j["model"]["vocab"]["aa"] = u64::MAX.into()), a(), Refuse),
        ("huge added ids", model(|j| j["added_tokens"][0]["id"] = u32::MAX.into()), a(), Either),
        ("the same id twice", model(|j| j["model"]["vocab"]["aa"] = 97.into()), a(), Encode),
        ("merges of nothing", model(|j| j["model"]["merges"] = json!(["x1 x2"])), a(), Refuse),
        ("merges into nothing", model(|j| j["model"]["merges"] = json!(["a a"])), a(), Refuse),
        (
            "words without end",
            model(|j| {
                j["model"] = json!({"type": "WordPiece", "vocab": {"[UNK]": 0, "a": 1, "##a": 2}, "unk_token": "[UNK]",
            "continuing_subword_prefix": "##", "max_input_chars_per_word": 1_000_000_000})
            }),
            a(),
            Refuse,
        ),
        (
            "no unknown token",
            model(|j| j["model"] = json!({"type": "Unigram", "unk_id": null, "vocab": [["a", -1.0]]})),
            a(),
            Refuse,
        ),
        ("added tokens that begin alike", with(json!({"added_tokens": added(1000)})), a().repeat(99), Encode),
        (
            "an added token of which nothing is left",
            with(json!({"normalizer": replace(json!({"String": "\u{0}"}), ""),
            "added_tokens": [{"id": 256, "content": "\u{0}", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false}]})),
            a(),
            Refuse,
        ),
        ("long added tokens", with(json!({"added_tokens": added(1300)})), a().repeat(99), Encode),
        (
            "many values",
            with(json!({})).replacen('{', &format!("{{\"x\":[{}0],", "0,".repeat(1 << 23)), 1),
            a(),
            Refuse,
        ),
        (
            "many objects",
            with(json!({})).replacen('{', &format!("{{\"x\":[{}0],", "{},".repeat(1 << 19)), 1),
            a(),
            Refuse,
        ),
        ("no vocabulary", model(|j| j["model"]["vocab"] = json!({})), a(), Encode),
    ]
}

#[test]
fn every_hostile_tokenizer_ends_with_a_word_or_works() {
    for (name, json, text, wanted) in hostile() {
        let found = match Tokenizer::from_json(&json) {
            Err(e) => (Refuse, e.to_string()),
            Ok(t) => {
                let all: Vec<u32> = (0..t.vocab_size().min(300) as u32).collect();
                assert!(t.decode(&all).len() <= 1024 * 4 * all.len(), "{name}");
                assert!(t.encode("b").is_ok(), "{name}");
                match t.encode(&text) {
                    Ok(ids) => (Encode, ids.len().to_string()),
                    Err(e) => (RefuseText, e.to_string()),
                }
            }
        };
        assert!(wanted == Either || found.0 == wanted, "{name}: {found:?}");
        assert!(found.0 == Encode || found.1.contains("tokenizer") && found.1.len() < 400, "{name}: {found:?}");
    }
}

#[test]
fn a_decoder_that_takes_long_leaves_the_text() {
    let look = replace(json!({"Regex": r"(?s).(?=.*\z)"}), "x");
    let t = Tokenizer::from_json(&decoder(json!({"type": "Sequence", "decoders": [{"type": "Fuse"}, look]}))).unwrap();
    let text = "a".repeat(300_000);
    let ids = t.encode(&text).unwrap();
    assert_eq!(t.decode(&ids[..9]), "x".repeat(9));
    // It would look at 45 billion bytes.
    assert!(t.decode(&ids) == text);
}

#[cfg(all(feature = "cli", unix))]
mod program {
    use super::super::common::{cli::Project, server::Server};
    use super::*;
    use nanotern::formats::{Format, ModelFile};

    fn project() -> (Project, ModelFile) {
        let project = Project::new();
        project.train("run", "--total-steps 1 --seq-len 512 --batch-size 1 --set train.eval_windows=1");
        let file = ModelFile::open(&project.path("run")).unwrap();
        (project, file)
    }

    #[test]
    fn one_within_a_model_is_inspected_and_refused() {
        let (project, mut file) = project();
        for (name, json, _, _) in hostile().into_iter().filter(|(.., does)| *does == Refuse) {
            file.text.tokenizer_json = Some(json);
            // Some cannot be written as the tokens of other programs.
            if file.save_gguf(&project.path("model.gguf"), Format::default()).is_err() {
                continue;
            }
            for words in ["inspect model.gguf", "generate --model model.gguf --backend cpu --prompt a"] {
                let ended = project.nanotern(words);
                assert!(matches!(ended.code, Some(0..=2)), "{name}: {words}: {}", ended.stderr);
                assert!(!ended.stderr.contains("panicked"), "{name}: {words}: {}", ended.stderr);
            }
        }
    }

    #[test]
    fn a_server_refuses_the_text_and_lives() {
        let (project, mut file) = project();
        file.text.tokenizer_json = Some(normalizer(json!({"type": "NFKC"})));
        file.save_gguf(&project.path("model.gguf"), Format::default()).unwrap();
        let server = Server::of(&std::rc::Rc::new(project), "--model model.gguf");
        let ask =
            |content: &str| server.chat(json!({"messages": [{"role": "user", "content": content}], "max_tokens": 1}));
        for _ in 0..3 {
            let answer = ask(&"\u{fdfa}".repeat(99));
            answer.refused(400, "ligatures");
            assert!(answer.text().contains("16 times as long"), "{}", answer.text());
            assert_eq!(ask("hi").status, 200);
        }
    }
}
