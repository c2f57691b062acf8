//! Every decoder of the `tokenizers` crate, alone and in random sequences, on random tokens.

use super::{at_once, pieces};
use nanotern::infer::TextStream;
use nanotern::rng::Rng;
use nanotern::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::sync::Arc;

/// Tokens with everything that some decoder changes.
const TOKENS: [&str; 64] = [
    "a",
    "b",
    "▁",
    "▁▁",
    "▁a",
    "▁the",
    "b▁",
    "the",
    " ",
    "  ",
    " a",
    "a ",
    "",
    ".",
    " .",
    "?",
    "!",
    ",",
    "'",
    "n't",
    "'s",
    "'m",
    "'ve",
    "'re",
    "do",
    "not",
    " do not",
    "##",
    "##a",
    "##.",
    "a##b",
    "</w>",
    "a</w>",
    "b</w></w>",
    "</",
    "w>",
    "<pad>",
    "<pa",
    "d>",
    "|",
    "||",
    "<0x41>",
    "<0xE2>",
    "<0x82>",
    "<0xAC>",
    "<0xF0>",
    "<0xff>",
    "<0x+5>",
    "<0xé>",
    "<0x1",
    "0>",
    "Ġ",
    "Ġa",
    "â",
    "Ĥ",
    "¬",
    "ð",
    "é",
    "€",
    "🦀",
    "aa",
    "aaa",
    "ab",
    "\n",
];

/// A tokenizer of words, the last two of which are added: a special token and one that is text.
fn tokenizer(decoder: &Value) -> String {
    let mut vocab: serde_json::Map<String, Value> =
        TOKENS.iter().enumerate().map(|(id, token)| (token.to_string(), id.into())).collect();
    vocab.insert("[UNK]".into(), TOKENS.len().into());
    let added = |id: usize, content: &str, special: bool| {
        json!({"id": TOKENS.len() + id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    };
    json!({"version": "1.0", "added_tokens": [added(1, "<s>", true), added(2, "<b>", false)], "normalizer": null,
        "pre_tokenizer": null, "decoder": decoder,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "[UNK]"}})
    .to_string()
}

/// At least one decoder of each type, and each of its options.
fn decoders() -> Vec<Value> {
    let metaspace = |scheme| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    let strip = |content, start, stop| json!({"type": "Strip", "content": content, "start": start, "stop": stop});
    let replace = |kind: &str, from, to| json!({"type": "Replace", "pattern": {kind: from}, "content": to});
    let ctc = |pad, delimiter, cleanup| json!({"type": "CTC", "pad_token": pad, "word_delimiter_token": delimiter, "cleanup": cleanup});
    vec![
        json!({"type": "Fuse"}),
        json!({"type": "ByteFallback"}),
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        metaspace("always"),
        metaspace("first"),
        metaspace("never"),
        json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
        json!({"type": "WordPiece", "prefix": "", "cleanup": false}),
        json!({"type": "BPEDecoder", "suffix": "</w>"}),
        json!({"type": "BPEDecoder", "suffix": ""}),
        ctc("<pad>", "|", true),
        ctc("a", "", true),
        ctc("", "|", false),
        strip(" ", 1, 0),
        strip("a", 2, 0),
        strip(" ", 0, 1),
        strip("▁", 1, 3),
        replace("String", "▁", " "),
        replace("String", "aa", "a"),
        replace("String", "ab", ""),
        replace("String", "", "x"),
        replace("Regex", "a+b?", "<$0>"),
        replace("Regex", r"\s+(?!\S)", "_"),
        replace("Regex", "x*", "-"),
        json!({"type": "Sequence", "decoders": []}),
    ]
}

/// Random ids: runs of the same token, of byte tokens, of any; a few unknown ones.
fn random_ids(rng: &mut Rng) -> Vec<u32> {
    let mut ids = Vec::new();
    for _ in 0..rng.below(12) {
        let known = TOKENS.len() as u64 + 3;
        match rng.below(4) {
            0 => ids.extend(vec![rng.below(known) as u32; rng.below(3) as usize + 1]),
            1 => ids.extend((0..rng.below(6)).map(|_| 41 + rng.below(6) as u32)),
            _ => ids.push(rng.below(known + 2) as u32),
        }
    }
    ids
}

/// Compares on random ids. The crate panics where a decoder gets nothing; returns how often it did not.
fn compare(decoder: &Value, rng: &mut Rng, times: usize) -> usize {
    let json = tokenizer(decoder);
    let theirs: tokenizers::Tokenizer = json.parse().unwrap();
    let ours = Arc::new(Tokenizer::from_json(&json).unwrap());
    let mut compared = 0;
    for _ in 0..times {
        let ids = random_ids(rng);
        let text = pieces(&ours, &ids).concat();
        if let Some(want) = at_once(&theirs, &ids, true) {
            let tokens: Vec<_> = ids.iter().map(|id| theirs.id_to_token(*id)).collect();
            assert_eq!(text, want, "{decoder}: {tokens:?}");
            compared += 1;
        }
        assert_eq!(ours.decode(&ids), text);
    }
    compared
}

#[test]
fn each_decoder_streams_as_the_crate_decodes() {
    let mut rng = Rng::new(2);
    for decoder in decoders().into_iter().chain([Value::Null]) {
        let compared = compare(&decoder, &mut rng, 1000);
        assert!(compared > 100, "{decoder}: {compared}");
    }
}

#[test]
fn random_sequences_of_decoders_stream_as_the_crate_decodes() {
    let (mut rng, all) = (Rng::new(3), decoders());
    let mut compared = 0;
    for _ in 0..500 {
        let one = |rng: &mut Rng| rng.pick(&all).clone();
        let mut steps: Vec<Value> = (0..1 + rng.below(5)).map(|_| one(&mut rng)).collect();
        let nested = json!({"type": "Sequence", "decoders": [one(&mut rng), one(&mut rng)]});
        steps.extend(Some(nested).filter(|_| rng.below(4) == 0));
        compared += compare(&json!({"type": "Sequence", "decoders": steps}), &mut rng, 16);
    }
    assert!(compared > 7000, "{compared}");
}

#[test]
fn nothing_is_held_back_that_is_certain() {
    let sequence = |decoders: Value| json!({"type": "Sequence", "decoders": decoders});
    let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    let [bytes, fuse] = ["ByteFallback", "Fuse"].map(|name| json!({"type": name}));
    let all = decoders();
    let wordpiece = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    for decoder in [
        sequence(json!([replace, bytes, fuse, strip])),
        sequence(json!([fuse, replace, strip, bytes])),
        sequence(json!([all[2], wordpiece])),
        all[2].clone(),
        all[3].clone(),
        wordpiece,
        all[10].clone(),
        Value::Null,
    ] {
        let tokenizer = Arc::new(Tokenizer::from_json(&tokenizer(&decoder)).unwrap());
        let ids = |tokens: &[&str]| tokens.iter().map(|t| tokenizer.token_id(t).unwrap()).collect::<Vec<_>>();
        let (text, last) = (ids(&["the", "▁a", "b", "▁", "the", "the"]), ids(&["a"])[0]);
        let mut all = text.clone();
        all.push(last);
        let shown = pieces(&tokenizer, &all)[..all.len()].concat();
        assert_eq!(shown, tokenizer.decode(&all), "{decoder}");
    }
}

#[test]
fn a_character_of_bytes_comes_whole_and_when_it_is_certain() {
    let sequence = json!({"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]});
    let tokenizer = Arc::new(Tokenizer::from_json(&tokenizer(&sequence)).unwrap());
    let ids = |tokens: &[&str]| tokens.iter().map(|t| tokenizer.token_id(t).unwrap()).collect::<Vec<_>>();
    let of = |tokens: &[&str]| pieces(&tokenizer, &ids(tokens));
    assert_eq!(of(&["a", "<0xE2>", "<0x82>", "<0xAC>", "b"]), ["a", "", "", "", "€b", ""]);
    assert_eq!(of(&["<0xE2>", "<0x82>", "<0xAC>"]), ["", "", "", "€"]);
    assert_eq!(of(&["<0xE2>", "<0x82>", "<0xAC>", "<0xff>", "a"]).concat(), "\u{fffd}".repeat(4) + "a");
}

#[test]
fn special_tokens_are_not_text() {
    for decoder in decoders().into_iter().chain([Value::Null]) {
        let tokenizer = Arc::new(Tokenizer::from_json(&tokenizer(&decoder)).unwrap());
        let special = tokenizer.token_id("<s>").unwrap();
        assert_eq!(pieces(&tokenizer, &[special, special]).concat(), "");
        let [a, b] = ["a", "b"].map(|t| tokenizer.token_id(t).unwrap());
        assert_eq!(tokenizer.decode(&[special, a, special, b]), tokenizer.decode(&[a, b]), "{decoder}");
        // Each text is counted from its start.
        assert_eq!(tokenizer.text_bytes(&[special, a, special, a]), 2 * tokenizer.decode(&[a]).len() as u64);
    }
}

#[test]
fn a_text_after_a_prompt_is_not_a_new_text() {
    let wordpiece = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let suffix = json!({"type": "BPEDecoder", "suffix": "</w>"});
    let bytes = json!({"type": "ByteFallback"});
    for (decoder, prompt, answer, want) in [
        (&metaspace, &["▁a"][..], &["▁the", "b"][..], " theb"),
        (&wordpiece, &["the", "a"], &["##a", "b"], "a b"),
        (&suffix, &["the", "a</w>"], &["ab", "a</w>"], " aba"),
        (&suffix, &["a</w>"], &[], ""),
        (&bytes, &["a", "<0xE2>", "<0x82>", "<0xAC>"], &["b"], "b"),
        (&bytes, &["a", "<0xE2>", "<0x82>"], &["<0xAC>", "b"], "€b"),
        (&Value::Null, &["a"], &["b"], " b"),
    ] {
        let tokenizer = Arc::new(Tokenizer::from_json(&tokenizer(decoder)).unwrap());
        let ids = |tokens: &[&str]| tokens.iter().map(|t| tokenizer.token_id(t).unwrap()).collect::<Vec<_>>();
        let mut stream = TextStream::new(Arc::clone(&tokenizer), Vec::new()).after(&ids(prompt));
        let mut text: String = ids(answer).iter().map(|id| stream.push(*id).text).collect();
        text.push_str(&stream.finish().text);
        assert_eq!(text, want, "{decoder}");
    }
}
