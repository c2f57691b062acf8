//! Small tokenizers with the normalizer, pre-tokenizer, decoder and kinds of added tokens of well-known ones.

use nanotern::tokenizer::SPECIALS;
use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::models::unigram::UnigramTrainer;
use tokenizers::models::wordlevel::WordLevelTrainer;
use tokenizers::models::wordpiece::WordPieceTrainer;
use tokenizers::{AddedToken, ModelWrapper, Tokenizer};

/// What their vocabularies are trained on. Other scripts and most emoji are not in it.
const TEXT: &str = "The quick brown fox doesn't jump over 12 lazy dogs, does it? I've seen 3,456 of them! \
    Der schnelle braune Fuchs springt über den faulen Hund. Съешь ещё этих мягких булок. 敏捷的棕色狐狸 🦊🐶 \
    fn main() {\n    let x = [1, 2, 3];\n\tprintln!(\"{x:?}\");\n}\n\n";

/// Everything of a `tokenizer.json` but its vocabulary.
struct Parts {
    model: &'static str,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    specials: &'static [&'static str],
    /// Added tokens that are text.
    texts: &'static [&'static str],
    /// Whether characters that are not in the vocabulary are spelled in bytes.
    byte_fallback: bool,
}

impl Parts {
    /// The `tokenizer.json`, trained.
    fn json(self) -> String {
        let model = match self.model {
            "BPE" => json!({"type": "BPE", "vocab": {}, "merges": []}),
            "CLIP" => json!({"type": "BPE", "vocab": {}, "merges": [], "end_of_word_suffix": "</w>"}),
            "Unigram" => json!({"type": "Unigram", "unk_id": null, "vocab": []}),
            "WordPiece" => json!({"type": "WordPiece", "vocab": {}, "unk_token": "[UNK]",
                "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}),
            _ => json!({"type": "WordLevel", "vocab": {}, "unk_token": "[UNK]"}),
        };
        let json = json!({"version": "1.0", "added_tokens": [], "normalizer": self.normalizer,
            "pre_tokenizer": self.pre_tokenizer, "decoder": self.decoder, "model": model});
        let mut tokenizer: Tokenizer = json.to_string().parse().unwrap();
        let mut trainer = self.trainer(tokenizer.get_model());
        tokenizer.train(&mut trainer, [TEXT.repeat(3)].iter()).unwrap();
        let mut json: Value = serde_json::from_str(&tokenizer.to_string(false).unwrap()).unwrap();
        let mut next = tokenizer.get_vocab_size(true);
        if self.byte_fallback {
            for byte in 0..=255 {
                let spelled = format!("<0x{byte:02X}>");
                match &mut json["model"]["vocab"] {
                    Value::Array(pieces) => pieces.push(json!([spelled, -20.0])),
                    ids => ids[spelled] = (next + byte).into(),
                }
            }
            next += 256;
            json["model"]["byte_fallback"] = true.into();
        }
        for (i, content) in self.texts.iter().enumerate() {
            json["added_tokens"].as_array_mut().unwrap().push(json!({"id": next + i, "content": content,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}));
        }
        json.to_string()
    }

    fn trainer(&self, model: &ModelWrapper) -> TrainerWrapper {
        let specials = self.specials.iter().chain(&SPECIALS).map(|s| AddedToken::from(*s, true)).collect();
        match model {
            ModelWrapper::BPE(bpe) => {
                let bytes = self.pre_tokenizer.to_string().contains("ByteLevel");
                let alphabet = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet();
                let trainer = BpeTrainer::builder().vocab_size(500).show_progress(false).special_tokens(specials);
                let trainer = trainer.initial_alphabet(alphabet.into_iter().filter(|_| bytes).collect());
                match &bpe.end_of_word_suffix {
                    Some(suffix) => trainer.end_of_word_suffix(suffix.clone()).build().into(),
                    None => trainer.build().into(),
                }
            }
            ModelWrapper::Unigram(_) => {
                let mut trainer = UnigramTrainer::builder();
                let trainer = trainer.vocab_size(300).show_progress(false).special_tokens(specials);
                trainer.unk_token(Some("<unk>".into())).build().unwrap().into()
            }
            ModelWrapper::WordPiece(_) => {
                let trainer = WordPieceTrainer::builder().vocab_size(300).show_progress(false);
                trainer.special_tokens(specials).build().into()
            }
            ModelWrapper::WordLevel(_) => {
                let mut trainer = WordLevelTrainer::builder();
                trainer.show_progress(false).special_tokens(specials).build().unwrap().into()
            }
        }
    }
}

/// The `ByteLevel` of a `tokenizer.json`.
fn level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}

fn sequence(of: &str, parts: &[Value]) -> Value {
    json!({"type": "Sequence", of: parts})
}

fn replace(from: &str, to: &str) -> Value {
    json!({"type": "Replace", "pattern": {"String": from}, "content": to})
}

fn split(regex: &str) -> Value {
    json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
}

fn metaspace(scheme: &str, split: bool) -> Value {
    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split})
}

fn kind(name: &str) -> Value {
    json!({"type": name})
}

/// Names and `tokenizer.json` files.
pub fn all() -> Vec<(&'static str, String)> {
    let byte_level = |normalizer, pre_tokenizer, specials, texts| Parts {
        model: "BPE",
        normalizer,
        pre_tokenizer,
        decoder: level(true),
        specials,
        texts,
        byte_fallback: false,
    };
    let words = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+";
    let rest = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    let groups = |digits: &str| sequence("pretokenizers", &[split(&format!("{words}|{digits}{rest}")), level(false)]);
    let falcon = [
        json!({"type": "Punctuation", "behavior": "Contiguous"}),
        level(true),
        json!({"type": "Digits", "individual_digits": false}),
        split("[0-9][0-9][0-9]"),
    ];
    let smol = [json!({"type": "Digits", "individual_digits": true}), level(true)];
    let spaces = replace("▁", " ");
    let strip = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    let fallback = [spaces, kind("ByteFallback"), kind("Fuse")];
    let with_strip = [&fallback[..], &[strip]].concat();
    let sentencepiece = |normalizer, pre_tokenizer, decoder: &[Value], specials, texts| Parts {
        model: "BPE",
        normalizer,
        pre_tokenizer,
        decoder: sequence("decoders", decoder),
        specials,
        texts,
        byte_fallback: true,
    };
    let prepend = [json!({"type": "Prepend", "prepend": "▁"}), replace(" ", "▁")];
    let gemma = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
    let plain = |model, normalizer, pre_tokenizer, decoder, specials, byte_fallback| Parts {
        model,
        normalizer,
        pre_tokenizer,
        decoder,
        specials,
        texts: &[],
        byte_fallback,
    };
    let bert = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null,
        "lowercase": true});
    let bert_decoder = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let bert_specials = &["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
    let clip = [split(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")];
    let ctc = json!({"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true});
    let unigram = sequence("normalizers", &[kind("NFKC"), replace("\n", "▁")]);
    let unigram_decoder = sequence("decoders", &[kind("ByteFallback"), metaspace("always", true)]);
    let end = &["<unk>", "<s>", "</s>"];
    vec![
        ("GPT-2", byte_level(Value::Null, level(true), &["<|endoftext|>"], &[])),
        ("Llama 3", byte_level(Value::Null, groups(r"\p{N}{1,3}"), &["<|begin_of_text|>", "<|eot_id|>"], &[])),
        ("Qwen", byte_level(kind("NFC"), groups(r"\p{N}"), &["<|im_start|>", "<|im_end|>"], &["<tool_call>", "  "])),
        ("Falcon", byte_level(Value::Null, sequence("pretokenizers", &falcon), &[">>TITLE<<"], &[])),
        ("SmolLM", byte_level(Value::Null, sequence("pretokenizers", &smol), &["<|im_start|>"], &[])),
        ("Llama 2", sentencepiece(sequence("normalizers", &prepend), Value::Null, &with_strip, end, &[])),
        ("Mistral", sentencepiece(Value::Null, metaspace("first", false), &with_strip, end, &["[TOOL]"])),
        ("Gemma", sentencepiece(replace(" ", "▁"), gemma, &fallback, &["<pad>", "<unk>"], &["\n\n", "▁▁", "<b>"])),
        ("Unigram with bytes", plain("Unigram", unigram, metaspace("always", true), unigram_decoder, end, true)),
        ("T5", plain("Unigram", kind("NFKC"), metaspace("always", true), metaspace("always", true), end, false)),
        ("BERT", plain("WordPiece", bert, kind("BertPreTokenizer"), bert_decoder, bert_specials, false)),
        ("WordLevel", plain("WordLevel", Value::Null, kind("Whitespace"), Value::Null, &["[UNK]"], false)),
        ("CLIP", {
            let decoder = json!({"type": "BPEDecoder", "suffix": "</w>"});
            plain("CLIP", kind("Lowercase"), sequence("pretokenizers", &clip), decoder, &["<unk>"], false)
        }),
        ("wav2vec", plain("WordLevel", replace(" ", "|"), split("."), ctc, &["[UNK]"], false)),
    ]
    .into_iter()
    .map(|(name, parts)| (name, parts.json()))
    .collect()
}
