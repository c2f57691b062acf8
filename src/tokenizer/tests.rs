use super::*;

const SAMPLES: [&str; 7] = [
    "",
    "plain",
    "  two  spaces\n\n\ttab 12345 1e-9\r\n",
    "naïve 東京 🦀 \u{0} \u{10fffd}",
    "<|user|>Hi<|end|>\n<|assistant|>",
    "<|user <|<|bos|>|><|",
    "'s 't don't",
];

#[test]
fn bytes_round_trip() {
    let t = Tokenizer::bytes();
    for text in SAMPLES {
        assert_eq!(t.decode_with_specials(&t.encode_with_specials(text).unwrap()), text);
        assert_eq!(t.decode(&t.encode(text).unwrap()), text);
    }
    assert_eq!(t.encode_with_specials("A<|eos|>é").unwrap(), [65, 257, 0xc3, 0xa9]);
    assert_eq!(t.vocab_size(), 262);
    assert_eq!((t.eos(), t.token_id(END), t.token_id("A")), (Some(257), Some(261), None));
    assert_eq!(t.stop_ids(), [257, 261]);
    assert_eq!(t.decode(&[0xff, 65, 9999]), "\u{fffd}A");
    assert!(t.is_special(257) && !t.is_special(65) && !t.is_special(262));
}

#[test]
fn bytes_survive_their_json() {
    let t = Tokenizer::from_json(&Tokenizer::bytes().to_json()).unwrap();
    assert!(matches!(t.kind, Kind::Bytes));
    assert_eq!(t.hash(), Tokenizer::bytes().hash());
}

#[test]
fn byte_characters_are_distinct() {
    let chars: std::collections::BTreeSet<char> = (0..=255).map(byte_char).collect();
    assert_eq!(chars.len(), 256);
    assert_eq!((byte_char(b' '), byte_char(b'\n'), byte_char(b'a'), byte_char(0xad)), ('Ġ', 'Ċ', 'a', 'Ń'));
}

#[cfg(feature = "native")]
mod native {
    use super::*;

    fn trained() -> Tokenizer {
        let text =
            "The cat sat on the mat; the cat ate 123 rats.\n<|user|>cat?<|end|>\nThe end of the cat\n".repeat(20);
        Tokenizer::train_bpe(&text, 300).unwrap()
    }

    #[test]
    fn trained_round_trip() {
        let t = trained();
        for text in SAMPLES {
            assert_eq!(t.decode_with_specials(&t.encode_with_specials(text).unwrap()), text);
            assert_eq!(t.decode(&t.encode(text).unwrap()), text);
        }
        let all: String = (0..0x3000u32).filter_map(char::from_u32).collect();
        assert_eq!(t.decode(&t.encode(&all).unwrap()), all);
        assert!(t.vocab_size() <= 300);
    }

    #[test]
    fn every_byte_and_digit_is_a_token() {
        let t = trained();
        let bytes: std::collections::BTreeSet<Vec<u8>> =
            (0..t.vocab_size() as u32).filter_map(|id| t.token_bytes(id)).filter(|b| b.len() == 1).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(t.encode("123").unwrap().len(), 3);
        assert_eq!(t.encode(" cat").unwrap().len(), 1);
        let special: Vec<u32> = (0..6).collect();
        assert_eq!(SPECIALS.map(|s| t.token_id(s).unwrap()).to_vec(), special);
        assert_eq!(t.encode_with_specials("<|user|> cat<|end|>").unwrap().len(), 3);
        assert_eq!(t.token_id("<|"), None); // markers are not trained on
    }

    #[test]
    fn token_bytes_join_to_the_text() {
        let t = trained();
        let text = "The café 🦀 <|end|>\n";
        let bytes: Vec<u8> =
            t.encode_with_specials(text).unwrap().iter().flat_map(|&id| t.token_bytes(id).unwrap()).collect();
        assert_eq!(bytes, text.as_bytes());
        assert_eq!(
            t.text_bytes(&[&t.encode_with_specials(text).unwrap()[..], &[9999]].concat()),
            "The café 🦀 \n".len() as u64
        );
        assert_eq!(t.token_bytes(9999), None);
        assert_eq!(t.decode(&[9999]), "");
    }

    #[test]
    fn saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokenizer.json");
        let t = trained();
        t.save(&path).unwrap();
        let loaded = Tokenizer::load(&path).unwrap();
        assert_eq!((loaded.hash(), loaded.vocab_size()), (t.hash(), t.vocab_size()));
        assert_eq!(loaded.encode("the cat").unwrap(), t.encode("the cat").unwrap());
        assert_eq!(trained().hash(), t.hash()); // training is deterministic
        assert_ne!(Tokenizer::bytes().hash(), t.hash());
    }

    #[test]
    fn other_programs_read_the_bytes_json() {
        let read = Tokenizer { kind: Kind::Json(Box::new(Json::parse(bytes_json()).unwrap())) };
        for text in SAMPLES {
            assert_eq!(read.encode_with_specials(text).unwrap(), encode_bytes(text));
            assert_eq!(read.decode_with_specials(&encode_bytes(text)), text);
        }
    }

    /// The ids that the crate gives.
    fn theirs(json: &Json, specials: bool) -> impl Fn(&str) -> Vec<u32> {
        let mut tokenizer = json.inner.clone();
        tokenizer.set_encode_special_tokens(!specials);
        move |text| tokenizer.encode_fast(text, false).unwrap().get_ids().to_vec()
    }

    /// Tokenizers that our own code encodes: the pre-tokenizers of published ones, and what else a file may hold.
    fn variants() -> Vec<String> {
        let world = crate::data::synthetic::generate(0, 60_000).train;
        let hard = hard_texts().concat();
        let mut trainer = BpeTrainer::new(1200).unwrap();
        trainer.add(&world);
        trainer.add(&hard);
        let mut trained: Value = serde_json::from_str(&trainer.finish().unwrap().to_json()).unwrap();
        // A token with a contraction, which GPT-4o's expression keeps in the word.
        let model = &mut trained["model"];
        model["vocab"]["the's"] = model["vocab"].as_object().unwrap().len().into();
        model["merges"].as_array_mut().unwrap().push(json!(["the", "'s"]));
        let digits = json!({"type": "Digits", "individual_digits": false});
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let split = |expression: &str| json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false});
        let sequence = |steps: &[Value]| json!({"type": "Sequence", "pretokenizers": steps});
        let vocab = trained["model"]["vocab"].as_object().unwrap();
        let mut next = vocab.len();
        let mut added = |content: &str, special: bool, normalized: bool| {
            let id = vocab.get(content).cloned().unwrap_or_else(|| next.into());
            next = next.max(id.as_u64().unwrap() as usize + 1);
            json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": normalized, "special": special})
        };
        let with = |changes: &[(&str, Value)]| {
            let mut changed = trained.clone();
            changes.iter().for_each(|(at, value)| *changed.pointer_mut(at).unwrap() = value.clone());
            changed.to_string()
        };
        let pre = |value: Value| ("/pre_tokenizer", value);
        let nfc = || ("/normalizer", json!({"type": "NFC"}));
        let tokens: Vec<Value> = trained["added_tokens"].as_array().unwrap().clone();
        let more = [
            added("the cat", false, false),
            added("cat", false, true),
            added("  ", false, true),
            added("\n\n", true, true),
            added("|>", false, false),
            added("<|end", false, false),
        ];
        vec![
            with(&[]),
            with(&[pre(level(true))]),
            with(&[("/model/ignore_merges", true.into())]),
            with(&[("/added_tokens", [&tokens[..], &more].concat().into())]),
            with(&[pre(sequence(&[digits.clone(), level(true)]))]),
            with(&[pre(sequence(&[split(LLAMA3), bytes.clone()])), ("/model/ignore_merges", true.into())]),
            with(&[pre(sequence(&[split(QWEN2), bytes.clone()])), nfc()]),
            with(&[pre(sequence(&[split(split::O200K), bytes.clone()]))]),
            with(&[pre(sequence(&[
                split(r"\p{N}{1,3}"),
                split("[一-龥]+"),
                split(r" ?\p{L}+|\s+(?!\S)|\s+"),
                bytes.clone(),
            ]))]),
        ]
    }

    fn ours(json: &Json) -> bool {
        matches!(json.encoder, bpe::Encoder::Ours(..))
    }

    #[test]
    fn our_code_gives_the_ids_of_the_tokenizers_crate() {
        let texts = hard_texts();
        let shared = std::fs::read_to_string("../shared/data/gpt2-tokenizer.json").ok();
        for (i, json) in variants().into_iter().chain(shared).enumerate() {
            let json = Json::parse(&json).unwrap();
            assert!(ours(&json), "variant {i}");
            for specials in [false, true] {
                let theirs = theirs(&json, specials);
                for text in &texts {
                    assert!(
                        json.encode(text, specials).unwrap() == theirs(text),
                        "variant {i}: {:?}",
                        text.chars().take(80).collect::<String>()
                    );
                }
            }
        }
    }

    #[test]
    fn the_crate_encodes_what_our_code_does_not() {
        let json = trained().to_json();
        let long = format!("\"content\":\"{}\"", "<|user|>".repeat(200));
        for (from, to) in [
            ("\"normalizer\":null", "\"normalizer\":{\"type\":\"NFKC\"}"),
            ("\"content\":\"<|user|>\"", &long),
            ("\"lstrip\":false", "\"lstrip\":true"),
            ("\"single_word\":false", "\"single_word\":true"),
            (
                "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[",
                "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\" ++\"},\"behavior\":\"Isolated\",\"invert\":false},",
            ),
            ("\"id\":3,\"content\":\"<|user|>\"", "\"id\":9,\"content\":\"<|user|>\""),
        ] {
            let changed = json.replace(from, to);
            assert_ne!(changed, json, "{from}");
            let json = Json::parse(&changed).unwrap();
            assert!(!ours(&json), "{to}");
            let text = "the  cat\n<|user|> sat";
            assert_eq!((json.encode(text, true).unwrap(), json.cut(text, 1)), (theirs(&json, true)(text), None));
        }
    }

    #[test]
    fn cuts_keep_the_ids() {
        let texts = hard_texts();
        for (i, json) in variants().into_iter().enumerate() {
            let json = Json::parse(&json).unwrap();
            let mut cuts = 0;
            for specials in [false, true] {
                let theirs = theirs(&json, specials);
                for text in texts.iter().filter(|text| text.len() < 600) {
                    let (whole, mut from) = (theirs(text), 0);
                    while let Some(at) = json.cut(text, from) {
                        let (left, right) = text.split_at(at);
                        assert!(
                            at > 0 && [theirs(left), theirs(right)].concat() == whole,
                            "variant {i}: {left:?} and {right:?}"
                        );
                        (from, cuts) = (at + 1, cuts + 1);
                    }
                    // The start of a text is cut as the whole may be.
                    for end in
                        (0..text.len()).filter(|end| text.is_char_boundary(*end) && text[*end..].starts_with('|'))
                    {
                        if let Some((left, right)) =
                            json.cut(&text[..=end], end - end.min(4)).map(|at| text.split_at(at))
                        {
                            assert!(
                                [theirs(left), theirs(right)].concat() == whole,
                                "variant {i}: {left:?} and {right:?}"
                            );
                        }
                    }
                }
            }
            assert!(i == 8 || cuts > 1000, "variant {i}: {cuts}");
            assert_eq!(json.encode("the's", true).unwrap().len() == 1, i == 7, "variant {i}");
            let line = |end: &str| format!("{}{end}", "It's 12 cats, 3.5 rats");
            for text in [line("\n"), line("\r\n"), line(" "), "中文，中文。".to_string()] {
                let known = i != 8 && (i != 6 || text.is_ascii());
                assert_eq!(
                    json.cut(&text.repeat(9), 2 * text.len()).is_some_and(|at| at < 4 * text.len()),
                    known,
                    "{i}: {text:?}"
                );
            }
        }
    }

    #[test]
    fn letters_are_those_of_expressions() {
        let letter = regex_automata::meta::Regex::new(r"^\p{L}$").unwrap();
        for c in (0..=0x10_ffff).filter_map(char::from_u32) {
            assert_eq!(letters::is_letter(c), letter.is_match(&*c.encode_utf8(&mut [0; 4])), "{c:?}");
        }
    }

    #[test]
    fn long_words_are_encoded_in_little_time() {
        // Time and memory that grow with the square of the length would not end.
        let json = Json::parse(&variants()[0]).unwrap();
        for text in [" ".repeat(1 << 20), "ab".repeat(1 << 19), "東".repeat(1 << 18)] {
            let tokenizer = Tokenizer { kind: Kind::Json(Box::new(json.clone())) };
            assert!(tokenizer.decode(&tokenizer.encode(&text).unwrap()) == text);
        }
    }

    #[test]
    fn pieces_encode_as_the_whole() {
        let t = trained();
        let line = "the cat ate 12\n\n  the rats\n \nThe end\nof the mat\n";
        let text = line.repeat(4000);
        let Kind::Json(json) = &t.kind else { panic!() };
        let whole: Vec<u32> = json.inner.encode_fast(text.as_str(), false).unwrap().get_ids().to_vec();
        assert!(text.len() > 100_000 && whole.len() > 10_000);
        assert_eq!(t.encode_with_specials(&text).unwrap(), whole);
    }

    /// Texts whose tokens change with any mistake in the character classes or the order of merges.
    fn hard_texts() -> Vec<String> {
        let mut rng = crate::rng::Rng::new(1);
        let pieces = [
            "the",
            " cat",
            "'s",
            "'LL",
            "\u{2019}s",
            " ",
            "  ",
            "\n",
            "\r\n",
            "\u{a0}",
            "\u{3000}",
            "\t",
            "12",
            "\u{b2}",
            "\u{217}",
            "\u{2165}",
            "\u{96b}",
            "e\u{301}",
            "\u{93e}",
            "\u{24d0}",
            "\u{2160}",
            "_",
            "--",
            "<|",
            "|>",
            "<|end|>",
            "\u{1f980}",
            "\u{5de}\u{5bc}",
            "\u{10fffd}",
            "fn f(x: i32) -> i32 {\n    x + 1\n}",
            "\u{0}",
        ];
        let mixed =
            (0..400).map(|_| (0..rng.below(12)).map(|_| *rng.pick(&pieces)).collect::<String>()).collect::<Vec<_>>();
        let random = (0..400).map(|_| {
            let chars = (0..rng.below(40)).filter_map(|_| char::from_u32(rng.below(0x11_0000) as u32 >> rng.below(18)));
            chars.collect::<String>()
        });
        let every = (0..0x3400u32).chain((0x3400..0x3_3000).step_by(7)).filter_map(char::from_u32);
        let every = every.map(|c| format!("a{c}1")).collect::<Vec<_>>();
        let every = every.chunks(1000).map(|texts| texts.concat());
        let long = "aaaaaaab".repeat(500) + &" ".repeat(300);
        let world = crate::data::synthetic::generate(3, 30_000).train;
        let shakespeare =
            "First Citizen:\nBefore we proceed any further, hear me speak.\n\nAll:\nSpeak, speak.\n".to_string();
        SAMPLES
            .map(String::from)
            .into_iter()
            .chain([long, world, shakespeare])
            .chain(every)
            .chain(mixed)
            .chain(random)
            .collect()
    }

    #[test]
    fn our_bpe_gives_the_ids_of_the_tokenizers_crate() {
        let world = crate::data::synthetic::generate(0, 60_000).train;
        let trained = Tokenizer::train_bpe(&world, 900).unwrap().to_json();
        let change = |from: &str, to: &str| {
            let changed = trained.replace(from, to);
            assert_ne!(changed, trained, "{from}");
            changed
        };
        let variants = [
            trained.clone(),
            bytes_json().to_string(),
            change("\"individual_digits\":true", "\"individual_digits\":false"),
            change("\"use_regex\":true},", "\"use_regex\":false},"),
            change("\"ignore_merges\":false", "\"ignore_merges\":true"),
            change("\"normalized\":false", "\"normalized\":true"),
        ];
        let texts = hard_texts();
        for (i, json) in variants.iter().enumerate() {
            let (crates, ours) = (Json::parse(json).unwrap(), byte_level::ByteLevel::parse(json).unwrap());
            for specials in [false, true] {
                let theirs = theirs(&crates, specials);
                for text in &texts {
                    assert!(
                        theirs(text) == ours.encode(text, specials).unwrap(),
                        "variant {i}: {:?}",
                        text.chars().take(80).collect::<String>()
                    );
                }
            }
            assert_eq!((ours.vocab_size(), ours.to_json()), (crates.vocab_size(), json.clone()));
            for id in 0..ours.vocab_size() as u32 + 2 {
                assert_eq!(
                    (ours.token_bytes(id), ours.is_special(id)),
                    (crates.token_bytes(id), crates.is_special(id))
                );
            }
            for token in SPECIALS.into_iter().chain(["Ġthe", "a", "é", "nothing of it"]) {
                assert_eq!(ours.token_id(token), crates.token_id(token), "{token}");
            }
        }
    }

    #[test]
    fn our_bpe_refuses_what_it_does_not_do() {
        let json = trained().to_json();
        let refused = [
            ("\"normalizer\":null", "\"normalizer\":{\"type\":\"NFC\"}", "the normalizer \"NFC\""),
            ("\"lstrip\":false", "\"lstrip\":true", "lstrip"),
            ("\"add_prefix_space\":false", "\"add_prefix_space\":true", "pre-tokenizer"),
            // Without bytes at the end, the crate has no token for most characters.
            (
                "\"pre_tokenizer\":{\"type\":\"Sequence\"",
                "\"pre_tokenizer\":null,\"_\":{\"type\":\"Sequence\"",
                "as the last",
            ),
            ("\"byte_fallback\":false", "\"byte_fallback\":true", "byte_fallback"),
            ("\"decoder\":{\"type\":\"ByteLevel\"", "\"decoder\":{\"type\":\"Fuse\"", "the decoder \"Fuse\""),
            ("\"type\":\"BPE\"", "\"type\":\"WordPiece\"", "the model \"WordPiece\""),
            ("\"id\":5,", "\"id\":4294967295,", "4294967295"),
        ];
        for (from, to, what) in refused {
            let changed = json.replace(from, to);
            assert_ne!(changed, json, "{from}");
            let error = byte_level::ByteLevel::parse(&changed).unwrap_err();
            assert!(error.contains(what), "{error}");
        }
        for broken in ["", "[]", "{}", "null", &json[..json.len() / 2]] {
            assert!(byte_level::ByteLevel::parse(broken).is_err());
        }
    }

    #[test]
    fn malformed_json_is_an_error() {
        let trained = trained().to_json();
        let without_model = trained.replace("\"BPE\"", "\"XYZ\"");
        let huge_id = bytes_json().replace(":255,", ":4294967295,");
        let bad_decoder = bytes_json().replace("\"decoder\":{", "\"decoder\":{\"type\",");
        let charsmap = r#""normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"}"#;
        let bad_normalizer = bytes_json().replace("\"normalizer\":null", charsmap);
        let cut = &trained[..trained.len() / 2];
        let bad = ["", "{", "[]", "{}", "null", "\"x\"", cut, &without_model, &huge_id, &bad_decoder, &bad_normalizer];
        for json in bad {
            let message = Tokenizer::from_json(json).unwrap_err().to_string();
            assert!(message.contains("not a usable tokenizer"), "{message}");
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.json");
        std::fs::write(&path, "{\"model\":").unwrap();
        assert!(matches!(Tokenizer::load(&path), Err(Error::Invalid { .. })));
        assert!(matches!(Tokenizer::load(&dir.path().join("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn training_needs_text_and_room() {
        assert!(Tokenizer::train_bpe("", 300).is_err());
        let message = Tokenizer::train_bpe("text", 261).unwrap_err().to_string();
        assert!(message.contains("261") && message.contains("262"), "{message}");
        assert_eq!(Tokenizer::train_bpe("ab", 262).unwrap().vocab_size(), 262);
    }
}
