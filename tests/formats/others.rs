//! Files as other programs write them: a tokenizer of tokens and merges, without the `tokenizer.json` that we add.

use super::raw::{Raw, string};
use super::{model, tiniest, trained_tokenizer};
use nanotern::formats::gguf::Layout;
use nanotern::formats::{Format, ModelFile};
use nanotern::tokenizer::Tokenizer;

const TEXTS: [&str; 6] = [
    "",
    "  two  spaces\n\n\ttab 12345 1e-9\r\n",
    "na\u{ef}ve \u{6771}\u{4eac} \u{1f980} \u{0} \u{10fffd}",
    "<|user|>Hi 42<|end|>\n<|assistant|>",
    "<|user <|<|bos|>|><|",
    "'s 't don't able bead cafe dead",
];

/// A file of ours without what only we write.
fn bare(tokenizer: &Tokenizer) -> (ModelFile, Raw) {
    let model = model(&tiniest(), tokenizer.vocab_size(), Some(tokenizer));
    let mut raw = Raw::parse(&Layout::new(&model, Format::Q1_58).unwrap().to_vec());
    raw.remove("tokenizer.huggingface.json");
    raw.remove("nanotern.stop_token_ids");
    (model, raw)
}

#[test]
fn tokens_and_merges_are_a_tokenizer() {
    let digits = trained_tokenizer(500);
    let json = digits.to_json();
    let cut =
        json.replace("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},", "");
    let cut = cut
        .replace("}],\"post_processor\"", "},\"post_processor\"")
        .replace("}]},\"post_processor\"", "},\"post_processor\"");
    assert_ne!(cut, json);
    let gpt2 = Tokenizer::from_json(&cut).unwrap();
    for (pre, tokenizer) in [("smollm", digits), ("gpt-2", gpt2), ("gpt-2", Tokenizer::bytes())] {
        let (model, mut raw) = bare(&tokenizer);
        assert_eq!(raw.key("tokenizer.ggml.pre").2, string(pre.as_bytes()));
        let read = ModelFile::from_gguf(&raw.bytes()).unwrap();
        let own = read.tokenizer().unwrap().unwrap();
        for text in TEXTS.map(String::from).into_iter().chain([TEXTS.concat().repeat(20)]) {
            assert_eq!(own.encode(&text), tokenizer.encode(&text), "{pre}: {text}");
            assert_eq!(own.decode(&own.encode(&text)), text);
        }
        for id in 0..tokenizer.vocab_size() as u32 {
            let both = [&own, &tokenizer].map(|t| (t.token_bytes(id), t.is_special(id)));
            assert_eq!(both[0], both[1], "{pre}: token {id}");
        }
        assert_eq!((&read.tensors, read.text.eos), (&model.tensors, model.text.eos));
        // Written again, it has the whole tokenizer, and reads the same.
        let again = ModelFile::from_gguf(&Layout::new(&read, Format::Q1_58).unwrap().to_vec()).unwrap();
        assert_eq!(again, read);
    }
}

#[test]
fn a_tokenizer_of_an_unknown_kind_is_refused_where_text_is_needed() {
    let (model, raw) = bare(&trained_tokenizer(300));
    let refused =
        [("tokenizer.ggml.model", "llama"), ("tokenizer.ggml.pre", "default"), ("tokenizer.ggml.pre", "qwen2")];
    for (key, name) in refused {
        let mut raw = raw.clone();
        raw.set(key, 8, &string(name.as_bytes()));
        let read = ModelFile::from_gguf(&raw.bytes()).unwrap();
        assert_eq!(read.tensors, model.tensors);
        let error = read.tokenizer().unwrap_err().to_string();
        assert!(error.contains(key) && error.contains(name), "{error}");
    }
    let mut older = raw.clone();
    older.remove("tokenizer.ggml.pre");
    assert!(ModelFile::from_gguf(&older.bytes()).unwrap().tokenizer().unwrap().is_some());
    let mut merges = raw.clone();
    merges.remove("tokenizer.ggml.merges");
    let error = ModelFile::from_gguf(&merges.bytes()).unwrap().tokenizer().unwrap_err().to_string();
    assert!(error.contains("tokenizer.ggml.merges is missing"), "{error}");
    let mut none = raw;
    none.remove("tokenizer.ggml.tokens");
    assert_eq!(ModelFile::from_gguf(&none.bytes()).unwrap().tokenizer().unwrap().map(|t| t.hash()), None);
}
