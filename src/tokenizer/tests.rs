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
        assert_eq!(t.decode_with_specials(&t.encode_with_specials(text)), text);
        assert_eq!(t.decode(&t.encode(text)), text);
    }
    assert_eq!(t.encode_with_specials("A<|eos|>é"), [65, 257, 0xc3, 0xa9]);
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
            assert_eq!(t.decode_with_specials(&t.encode_with_specials(text)), text);
            assert_eq!(t.decode(&t.encode(text)), text);
        }
        let all: String = (0..0x3000u32).filter_map(char::from_u32).collect();
        assert_eq!(t.decode(&t.encode(&all)), all);
        assert!(t.vocab_size() <= 300);
    }

    #[test]
    fn every_byte_and_digit_is_a_token() {
        let t = trained();
        let bytes: std::collections::BTreeSet<Vec<u8>> =
            (0..t.vocab_size() as u32).filter_map(|id| t.token_bytes(id)).filter(|b| b.len() == 1).collect();
        assert_eq!(bytes.len(), 256);
        assert_eq!(t.encode("123").len(), 3);
        assert_eq!(t.encode(" cat").len(), 1);
        let special: Vec<u32> = (0..6).collect();
        assert_eq!(SPECIALS.map(|s| t.token_id(s).unwrap()).to_vec(), special);
        assert_eq!(t.encode_with_specials("<|user|> cat<|end|>").len(), 3);
        assert_eq!(t.token_id("<|"), None); // markers are not trained on
    }

    #[test]
    fn token_bytes_join_to_the_text() {
        let t = trained();
        let text = "The café 🦀 <|end|>\n";
        let bytes: Vec<u8> = t.encode_with_specials(text).iter().flat_map(|&id| t.token_bytes(id).unwrap()).collect();
        assert_eq!(bytes, text.as_bytes());
        assert_eq!(t.text_bytes(&[&t.encode_with_specials(text)[..], &[9999]].concat()), "The café 🦀 \n".len() as u64);
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
        assert_eq!(loaded.encode("the cat"), t.encode("the cat"));
        assert_eq!(trained().hash(), t.hash()); // training is deterministic
        assert_ne!(Tokenizer::bytes().hash(), t.hash());
    }

    #[test]
    fn other_programs_read_the_bytes_json() {
        let read = Tokenizer { kind: Kind::Json(Box::new(Json::parse(&bytes_json()).unwrap())) };
        for text in SAMPLES {
            assert_eq!(read.encode_with_specials(text), encode_bytes(text));
            assert_eq!(read.decode_with_specials(&encode_bytes(text)), text);
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
        assert_eq!(t.encode_with_specials(&text), whole);
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
            bytes_json(),
            change("\"individual_digits\":true", "\"individual_digits\":false"),
            change("\"use_regex\":true},", "\"use_regex\":false},"),
            change("\"ignore_merges\":false", "\"ignore_merges\":true"),
            change("\"normalized\":false", "\"normalized\":true"),
        ];
        let texts = hard_texts();
        for (i, json) in variants.iter().enumerate() {
            let (theirs, ours) = (Json::parse(json).unwrap(), byte_level::ByteLevel::parse(json).unwrap());
            for text in &texts {
                for specials in [false, true] {
                    assert!(
                        theirs.encode(text, specials) == ours.encode(text, specials),
                        "variant {i}: {:?}",
                        text.chars().take(80).collect::<String>()
                    );
                }
            }
            assert_eq!((ours.vocab_size(), ours.to_json()), (theirs.vocab_size(), json.clone()));
            for id in 0..ours.vocab_size() as u32 + 2 {
                assert_eq!(
                    (ours.token_bytes(id), ours.is_special(id)),
                    (theirs.token_bytes(id), theirs.is_special(id))
                );
            }
            for token in SPECIALS.into_iter().chain(["Ġthe", "a", "é", "nothing of it"]) {
                assert_eq!(ours.token_id(token), theirs.token_id(token), "{token}");
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
