//! Files as other programs write them: a tokenizer of tokens and merges, without the `tokenizer.json` that we add.

use super::raw::{Raw, string};
use super::{model, tiniest, trained_tokenizer};
use nanotern::formats::gguf::{Gguf, Layout};
use nanotern::formats::{Format, ModelFile, TextConfig};
use nanotern::model::RopeScaling;
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
            assert_eq!(own.encode(&text).unwrap(), tokenizer.encode(&text).unwrap(), "{pre}: {text}");
            assert_eq!(own.decode(&own.encode(&text).unwrap()), text);
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
        [("tokenizer.ggml.model", "bert"), ("tokenizer.ggml.pre", "default"), ("tokenizer.ggml.pre", "viking")];
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

#[test]
fn metadata_of_any_kind_is_read() {
    let (_, raw) = bare(&Tokenizer::bytes());
    let plain = ModelFile::from_gguf(&raw.bytes()).unwrap();
    let array = |kind: u32, items: &[Vec<u8>]| {
        [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
    };
    let numbers = array(5, &[vec![1, 0, 0, 0], vec![255; 4]]);
    let latin = string(b"caf\xe9");
    let cases: [(&str, u32, Vec<u8>, &str); 12] = [
        (&"k".repeat(300), 4, vec![7, 0, 0, 0], "7"),
        (&"\u{e9}".repeat(32_000), 0, vec![200], "200"),
        ("general.description", 8, latin.clone(), "4 bytes of text that is not UTF-8"),
        ("general.tags", 9, array(8, &[string(b"a"), latin.clone()]), "2 strings, not all of them UTF-8"),
        ("x.nested", 9, array(9, &[numbers.clone(), array(8, &[latin]), array(9, &[])]), "3 arrays"),
        ("x.empty", 9, array(12, &[]), "0 numbers"),
        ("x.deep", 9, (0..15).fold(numbers, |inner, _| array(9, &[inner])), "1 arrays"),
        ("x.double", 12, 1.5f64.to_le_bytes().to_vec(), "1.5"),
        ("x.long", 11, (-3i64).to_le_bytes().to_vec(), "-3"),
        ("x.short", 3, (-2i16).to_le_bytes().to_vec(), "-2"),
        ("x.flag", 7, vec![1], "true"),
        ("x.flags", 9, array(7, &[vec![1], vec![0]]), "2 numbers"),
    ];
    for version in [2, 3] {
        let mut other = Raw { version, ..raw.clone() };
        cases
            .iter()
            .for_each(|(name, kind, value, _)| other.keys.push((name.as_bytes().to_vec(), *kind, value.clone())));
        let bytes = other.bytes();
        assert_eq!(ModelFile::from_gguf(&bytes).unwrap(), plain, "version {version}");
        let file = Gguf::parse(&bytes).unwrap();
        for (name, _, _, shown) in &cases {
            assert_eq!(file.keys[name].to_string(), *shown, "{}", &name[..4]);
        }
    }
}

#[test]
fn whether_prompts_begin_with_bos_is_read_and_written() {
    let (_, raw) = bare(&Tokenizer::bytes());
    let read = |raw: &Raw| ModelFile::from_gguf(&raw.bytes()).unwrap();
    let again = |file: &ModelFile| ModelFile::from_gguf(&Layout::new(file, Format::Q1_58).unwrap().to_vec()).unwrap();
    let start = |raw: &Raw| {
        let file = read(raw);
        assert_eq!(again(&file), file);
        file.text.prompt_start()
    };
    let with = |change: &dyn Fn(&mut Raw)| {
        let mut raw = raw.clone();
        change(&mut raw);
        raw
    };
    let key = "tokenizer.ggml.add_bos_token";
    assert_eq!(start(&raw), None, "the key says so");
    assert_eq!(start(&with(&|r| r.set(key, 7, &[1]))), Some(256));
    assert_eq!(start(&with(&|r| r.remove(key))), None, "no byte-level BPE does");
    assert!(ModelFile::from_gguf(&with(&|r| r.set(key, 4, &[1, 0, 0, 0])).bytes()).unwrap_err().contains(key));
    for (value, ends) in [(0, false), (1, true)] {
        let file = read(&with(&|r| r.set("tokenizer.ggml.add_eos_token", 7, &[value])));
        assert_eq!((file.text.add_eos, again(&file)), (ends, file));
    }
    let named = with(&|r| {
        r.set("tokenizer.ggml.unknown_token_id", 4, &[1, 1, 0, 0]);
        r.set("tokenizer.ggml.padding_token_id", 4, &[2, 1, 0, 0]);
    });
    assert_eq!((read(&named).text.unk, read(&named).text.pad), (Some(257), Some(258)));
    // The tokenizer itself puts a token in front of every text.
    let mut json: serde_json::Value = serde_json::from_str(&Tokenizer::bytes().to_json()).unwrap();
    json["post_processor"] = serde_json::json!({"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": true,
        "trim_offsets": false, "use_regex": true}, {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|eos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|eos|>": {"id": "<|eos|>", "ids": [257], "tokens": ["<|eos|>"]}}}]});
    let full = |r: &mut Raw| r.set("tokenizer.huggingface.json", 8, &string(json.to_string().as_bytes()));
    let implied = with(&|r| {
        full(r);
        r.remove(key);
        r.remove("tokenizer.ggml.bos_token_id");
    });
    assert_eq!(start(&implied), Some(257));
    assert_eq!(start(&with(&full)), None, "what the file says counts");
    // A tokenizer that other programs do not know, in a file of ours: trained without.
    let mut file = read(&implied);
    json["normalizer"] = serde_json::json!({"type": "NFC"});
    file.text = TextConfig { tokenizer_json: Some(json.to_string()), add_bos: false, ..file.text };
    assert_eq!(again(&file).text.prompt_start(), None);
}

#[test]
fn another_tokenizer_keeps_what_the_file_says_of_its_ids() {
    let (_, mut raw) = bare(&Tokenizer::bytes());
    raw.set("tokenizer.ggml.model", 8, &string(b"llama"));
    raw.remove("tokenizer.ggml.add_bos_token");
    raw.set("tokenizer.ggml.bos_token_id", 4, &[2, 0, 0, 0]);
    let mut file = ModelFile::from_gguf(&raw.bytes()).unwrap();
    assert!(file.tokenizer().is_err() && file.text.add_bos, "this kind of tokenizer begins every text with it");
    file.set_tokenizer(&Tokenizer::bytes()).unwrap();
    assert_eq!((file.text.prompt_start(), file.text.eos), (Some(2), Some(257)));
}

/// Options of other programs that would change what a model computes.
#[test]
fn stock_keys_that_are_not_honoured_are_refused() {
    let mut raw = Raw::parse(&Layout::new(&model(&super::small(), 262, None), Format::Tq2_0).unwrap().to_vec());
    raw.keys.retain(|k| !k.0.starts_with(b"nanotern."));
    let read = |key: &str, kind: u32, value: &[u8]| {
        let mut raw = raw.clone();
        raw.set(key, kind, value);
        ModelFile::from_gguf(&raw.bytes())
    };
    let plain = ModelFile::from_gguf(&raw.bytes()).unwrap();
    let (f32s, u32s) = ([1f32, 4.0].map(f32::to_le_bytes), [0u32, 8, 64].map(u32::to_le_bytes));
    for (key, kind, value) in [
        ("bitnet.rope.scaling.factor", 6, f32s[0].to_vec()),
        ("bitnet.rope.scaling.type", 8, string(b"linear")),
        ("bitnet.rope.scaling.type", 8, string(b"none")),
        ("bitnet.expert_count", 4, u32s[0].to_vec()),
        ("bitnet.attention.key_length", 4, u32s[2].to_vec()),
        ("other.rope.scaling.factor", 6, f32s[1].to_vec()),
    ] {
        assert_eq!(read(key, kind, &value), Ok(plain.clone()), "{key}");
    }
    let scaled = read("bitnet.rope.scaling.factor", 6, &f32s[1]).unwrap().config;
    assert_eq!(scaled.rope_scaling, Some(RopeScaling::Linear { factor: 4.0 }));
    assert_eq!(scaled.rope_frequencies()[1], plain.config.rope_frequencies()[1] / 4.0);
    for (key, kind, value) in [
        ("bitnet.rope.scaling.factor", 6, (-2f32).to_le_bytes().to_vec()),
        ("bitnet.rope.scaling.type", 8, string(b"longrope")),
        ("bitnet.rope.scaling.original_context_length", 4, u32s[1].to_vec()),
        ("bitnet.rope.scale_linear", 6, f32s[1].to_vec()),
        ("bitnet.expert_count", 4, u32s[1].to_vec()),
        ("bitnet.attention.sliding_window", 4, u32s[1].to_vec()),
        ("bitnet.attention.clamp_kqv", 6, f32s[1].to_vec()),
        ("bitnet.attention.scale", 6, f32s[1].to_vec()),
        ("bitnet.logit_scale", 6, f32s[1].to_vec()),
        ("bitnet.final_logit_softcapping", 6, f32s[1].to_vec()),
        ("bitnet.attention.value_length", 4, u32s[1].to_vec()),
    ] {
        let error = read(key, kind, &value).unwrap_err();
        assert!(error.contains(key) || error.contains("rope_scaling"), "{key}: {error}");
    }
}
