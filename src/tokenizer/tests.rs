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
        assert_eq!(t.decode(&t.encode(text)), text);
    }
    assert_eq!(t.encode("A<|eos|>é"), [65, 257, 0xc3, 0xa9]);
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
        assert_eq!(t.encode("<|user|> cat<|end|>").len(), 3);
        assert_eq!(t.token_id("<|"), None); // markers are not learnt from
    }

    #[test]
    fn token_bytes_join_to_the_text() {
        let t = trained();
        let text = "The café 🦀 <|end|>\n";
        let bytes: Vec<u8> = t.encode(text).iter().flat_map(|&id| t.token_bytes(id).unwrap()).collect();
        assert_eq!(bytes, text.as_bytes());
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
        let json = bpe::Json::parse(&bytes_json()).unwrap();
        for text in SAMPLES {
            assert_eq!(json.encode(text), encode_bytes(text));
            assert_eq!(json.decode(&json.encode(text)), text);
        }
    }

    #[test]
    fn pieces_encode_as_the_whole() {
        let t = trained();
        let line = "the cat ate 12\n\n  the rats\n \nThe end\nof the mat\n";
        let text = line.repeat(4000);
        let Kind::Json(json) = &t.kind else { panic!() };
        let whole: Vec<u32> = json.encode_whole(&text);
        assert!(text.len() > 100_000 && whole.len() > 10_000);
        assert_eq!(t.encode(&text), whole);
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

    #[test]
    fn training_from_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a.txt"), "one one one one").unwrap();
        std::fs::write(dir.path().join("b.txt"), "two two two two").unwrap();
        let out = tempfile::tempdir().unwrap();
        let t = train_from_path(dir.path(), 280, &out.path().join("sub/t.json")).unwrap();
        assert_eq!((t.encode(" one").len(), t.encode(" two").len()), (1, 1));
        assert!(out.path().join("sub/t.json").exists());
    }
}
