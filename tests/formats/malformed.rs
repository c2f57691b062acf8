//! Files that are wrong: each class by name, each refused with an error that names the thing; then random damage, which
//! must neither panic nor hang nor take memory.

use super::raw::{Raw, string};
use super::{latent, model, save, small, tiniest};
use nanotern::checkpoint::Array;
use nanotern::formats::{Format, ModelFile, TextConfig, gguf, mhc::MhcFile};
use nanotern::model::ModelConfig;
use nanotern::rng::Rng;
use nanotern::tokenizer::Tokenizer;
use nanotern::{Error, Result};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

fn valid(config: &ModelConfig, format: Format) -> Vec<u8> {
    let model = model(config, 262, Some(&Tokenizer::bytes()));
    gguf::Layout::new(&model, format).unwrap().to_vec()
}

/// The error of a file that must not open; it is typed, names the path, and says `part`.
fn refused<T>(name: &str, path: &Path, result: Result<T>, part: &str) {
    let Err(error) = result else { panic!("{name}: was accepted") };
    let typed = matches!(&error, Error::Invalid { .. });
    assert!(typed, "{name}: {error:?} is not Error::Invalid");
    let text = error.to_string();
    assert!(text.contains(part), "{name}: {text:?} does not say {part:?}");
    assert!(text.starts_with(&*path.to_string_lossy()) && text.len() < 2000, "{name}: {text}");
}

/// Name, change, what the error says.
type Case = (&'static str, fn(&mut Raw), &'static str);

const U32: u32 = 4;
const Q: &str = "blk.0.attn_q.weight";

fn u32_key(raw: &mut Raw, name: &str, value: u32) {
    raw.set(name, U32, &value.to_le_bytes());
}

const HEADER: &[Case] = &[
    ("wrong magic", |r| r.magic = *b"GGML", "magic at offset 0"),
    ("version 0", |r| r.version = 0, "version 0"),
    ("version 1", |r| r.version = 1, "version 1 at offset 4: 2 and 3 can be read"),
    ("future version", |r| r.version = 4, "version 4"),
    ("big-endian", |r| r.version = 3 << 24, "version 3 at offset 4 is big-endian: little-endian can be read"),
    ("version 0 of many bytes", |r| r.version = 1 << 16, "version 65536 at offset 4: 2"),
    ("no tensors", |r| r.tensors.clear(), "\"token_embd.weight\" is missing"),
    ("too many tensors", |r| r.tensor_count = Some(1 << 40), "number of tensors"),
    ("tensor count of -1", |r| r.tensor_count = Some(u64::MAX), "number of tensors"),
    ("one tensor too many", |r| r.tensor_count = Some(r.tensors.len() as u64 + 1), "tensor"),
    ("too many keys", |r| r.key_count = Some(u64::MAX), "number of keys"),
    ("more keys than bytes", |r| r.key_count = Some(60_000), "number of keys"),
    ("one key too many", |r| r.key_count = Some(r.keys.len() as u64 + 1), ""),
    ("one key too few", |r| r.key_count = Some(r.keys.len() as u64 - 1), ""),
];

const KEYS: &[Case] = &[
    ("empty key", |r| r.keys[1].0.clear(), "name of key 1"),
    ("key too long", |r| r.keys[1].0 = vec![b'x'; 1 << 16], "name of key 1 at offset"),
    ("long key twice", |r| (0..2).for_each(|_| r.keys.push((vec![b'x'; 60_000], U32, vec![0; 4]))), "is there twice"),
    (
        "long option",
        |r| r.keys.push(([&b"nanotern."[..], &[b'x'; 60_000]].concat(), U32, vec![0; 4])),
        "is unknown to this program",
    ),
    ("key not UTF-8", |r| r.keys[1].0 = vec![0xff; 4], "name of key 1 at offset"),
    ("key twice", |r| r.keys.push(r.keys[0].clone()), "\"general.architecture\" is there twice"),
    ("unknown value type", |r| r.keys[3].1 = 13, "value type 13"),
    ("huge value type", |r| r.keys[3].1 = u32::MAX, "value type 4294967295"),
    (
        "value of another type",
        |r| r.set("nanotern.embedding_length", 8, &string(b"32")),
        "embedding_length\" is \"32\"",
    ),
    ("negative size", |r| r.set("nanotern.block_count", 5, &(-1i32).to_le_bytes()), "block_count\" is -1"),
    ("boolean of 2", |r| r.key("nanotern.sub_norm").2 = vec![2], "\"nanotern.sub_norm\" at offset"),
    (
        "string not UTF-8",
        |r| r.set("nanotern.quantize", 8, &string(b"\xc3\x28")),
        "\"nanotern.quantize\" is 2 bytes of text that is not UTF-8",
    ),
    ("string longer than the file", |r| r.set("x", 8, &(1u64 << 40).to_le_bytes()), "\"x\" at offset"),
    ("string of length -1", |r| r.set("x", 8, &u64::MAX.to_le_bytes()), "\"x\" at offset"),
    (
        "array of unknown type",
        |r| r.set("x", 9, &[99u32.to_le_bytes().as_slice(), &[0; 8]].concat()),
        "unknown type 99",
    ),
    (
        "arrays within each other",
        |r| r.set("x", 9, &[[9, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]; 1000].concat()),
        "more than 16 arrays within each other",
    ),
    (
        "array of arrays that ends early",
        |r| r.set("x", 9, &[[9, 0, 0, 0, 255, 255, 255, 0, 0, 0, 0, 0], [4, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]].concat()),
        "array \"x\"",
    ),
    (
        "array of a huge length",
        |r| r.set("x", 9, &[4u32.to_le_bytes(), [0; 4], [0, 0, 0, 64]].concat()),
        "length of the array \"x\"",
    ),
    (
        "array length that wraps",
        |r| r.set("x", 9, &[4u32.to_le_bytes(), [1, 0, 0, 0], [0, 0, 0, 0x40]].concat()),
        "length of the array \"x\"",
    ),
    (
        "array of strings that ends early",
        |r| r.set("x", 9, &[&8u32.to_le_bytes()[..], &[2, 0, 0, 0, 0, 0, 0, 0], &string(b"a")].concat()),
        "",
    ),
    ("alignment 0", |r| u32_key(r, "general.alignment", 0), "\"general.alignment\" is 0"),
    ("alignment 3", |r| u32_key(r, "general.alignment", 3), "\"general.alignment\" is 3"),
    ("alignment 2^21", |r| u32_key(r, "general.alignment", 1 << 21), "\"general.alignment\" is 2097152"),
    ("alignment of text", |r| r.set("general.alignment", 8, &string(b"32")), "\"general.alignment\" is not a number"),
    ("alignment unlike the offsets", |r| u32_key(r, "general.alignment", 1 << 16), "it has 0"),
];

const CONFIG: &[Case] = &[
    ("no architecture", |r| r.remove("general.architecture"), "\"general.architecture\" is missing"),
    (
        "foreign architecture",
        |r| r.set("general.architecture", 8, &string(b"mamba")),
        "\"general.architecture\" is \"mamba\"",
    ),
    ("missing size", |r| r.remove("nanotern.feed_forward_length"), "\"nanotern.feed_forward_length\" is missing"),
    (
        "missing epsilon",
        |r| r.remove("nanotern.attention.layer_norm_rms_epsilon"),
        "layer_norm_rms_epsilon\" is missing",
    ),
    ("missing option", |r| r.remove("nanotern.mhc_streams"), "\"nanotern.mhc_streams\" is missing"),
    ("unknown option", |r| u32_key(r, "nanotern.experts", 8), "\"nanotern.experts\" is unknown"),
    ("no heads", |r| u32_key(r, "nanotern.attention.head_count", 0), "heads = 0"),
    ("no key-value heads", |r| u32_key(r, "nanotern.attention.head_count_kv", 0), "kv_heads = 0"),
    ("no width", |r| u32_key(r, "nanotern.embedding_length", 0), "dim = 0"),
    ("huge width", |r| u32_key(r, "nanotern.embedding_length", u32::MAX), "dim = 4294967295"),
    ("huge depth", |r| u32_key(r, "nanotern.block_count", u32::MAX), "layers = 4294967295"),
    ("group size 0", |r| u32_key(r, "nanotern.group_size", 0), "groups of 0"),
    ("group size that divides nothing", |r| u32_key(r, "nanotern.group_size", 48), ""),
    ("three streams", |r| u32_key(r, "nanotern.mhc_streams", 3), "mhc_streams = 3"),
    (
        "epsilon NaN",
        |r| r.key("nanotern.attention.layer_norm_rms_epsilon").2 = f32::NAN.to_le_bytes().to_vec(),
        "layer_norm_rms_epsilon\" is NaN",
    ),
    (
        "rope bases that differ",
        |r| r.key("nanotern.rope.freq_base").2 = 5f32.to_le_bytes().to_vec(),
        "freq_base\" is 5",
    ),
    ("head size that differs", |r| u32_key(r, "nanotern.rope.dimension_count", 8), "dimension_count\" is 8"),
    ("no vocabulary", |r| u32_key(r, "nanotern.vocab_size", 0), "vocab_size\" is 0"),
    ("huge vocabulary", |r| u32_key(r, "nanotern.vocab_size", u32::MAX), "vocab_size\" is 4294967295"),
    (
        "vocabulary unlike the embedding",
        |r| {
            u32_key(r, "nanotern.vocab_size", 263);
            r.remove("tokenizer.ggml.tokens");
        },
        "\"token_embd.weight\" has shape",
    ),
    ("more tokens than rows", |r| u32_key(r, "nanotern.vocab_size", 261), "\"tokenizer.ggml.tokens\" has 262"),
    (
        "tokens that are not UTF-8",
        |r| {
            r.set(
                "tokenizer.ggml.tokens",
                9,
                &[&8u32.to_le_bytes()[..], &1u64.to_le_bytes(), &string(b"\xff")].concat(),
            )
        },
        "\"tokenizer.ggml.tokens\" is 1 strings, not all of them UTF-8",
    ),
    (
        "tokens that are numbers",
        |r| r.set("tokenizer.ggml.tokens", 9, &[4u32.to_le_bytes(), [0; 4], [0; 4]].concat()),
        "\"tokenizer.ggml.tokens\"",
    ),
    ("EOS beyond the vocabulary", |r| u32_key(r, "tokenizer.ggml.eos_token_id", 262), "eos token 262"),
    ("BOS of -1", |r| u32_key(r, "tokenizer.ggml.bos_token_id", u32::MAX), "bos token 4294967295"),
    (
        "stop token beyond the vocabulary",
        |r| {
            r.key("nanotern.stop_token_ids").2 =
                [&4u32.to_le_bytes()[..], &1u64.to_le_bytes(), &999u32.to_le_bytes()].concat();
        },
        "stop token 999",
    ),
    (
        "stop tokens that are text",
        |r| r.set("nanotern.stop_token_ids", 8, &string(b"257")),
        "\"nanotern.stop_token_ids\"",
    ),
];

/// Of the one key that holds the whole configuration.
const WHOLE: &[Case] = &[
    ("no JSON", |r| set_config(r, |_| "dim = 32".into()), "\"nanotern.config\": expected value"),
    ("no object", |r| set_config(r, |_| "[32]".into()), "\"nanotern.config\""),
    ("a number", |r| u32_key(r, "nanotern.config", 7), "\"nanotern.config\" is 7: it must be a string"),
    ("unknown field", |r| set_config(r, |c| c.replacen('{', "{\"experts\":8,", 1)), "unknown field `experts`"),
    ("field twice", |r| set_config(r, |c| c.replacen('{', "{\"dim\":32,", 1)), "duplicate field `dim`"),
    ("missing field", |r| set_config(r, |c| c.replace("\"sub_norm\":true,", "")), "lacks \"sub_norm\""),
    (
        "field of another type",
        |r| set_config(r, |c| c.replace("\"sub_norm\":true", "\"sub_norm\":3")),
        "expected a boolean",
    ),
    ("unknown mixer", |r| set_config(r, |c| c.replacen('{', "{\"mixers\":[\"delta\"],", 1)), "unknown variant `delta`"),
    (
        "more mixers than layers",
        |r| set_config(r, |c| c.replacen('{', "{\"mixers\":[\"attention\",\"attention\"],", 1)),
        "mixers has 2 entries",
    ),
    ("size that differs", |r| u32_key(r, "nanotern.embedding_length", 64), "embedding_length\" is 64, but"),
    ("epsilon that differs", |r| set_config(r, |c| c.replace("\"norm_eps\":", "\"norm_eps\":1")), "has norm_eps ="),
    ("group size that differs", |r| u32_key(r, "nanotern.group_size", 64), ""),
    ("no group size", |r| r.remove("nanotern.group_size"), "groups of 32 take"),
    ("an option beside it", |r| r.set("nanotern.sub_norm", 7, &[1]), "\"nanotern.sub_norm\" is unknown beside"),
];

fn set_config(raw: &mut Raw, change: impl FnOnce(String) -> String) {
    let text = String::from_utf8(raw.key("nanotern.config").2[8..].to_vec()).unwrap();
    raw.set("nanotern.config", 8, &string(change(text).as_bytes()));
}

const TENSORS: &[Case] = &[
    ("missing tensor", |r| r.tensors.retain(|t| t.name != Q.as_bytes()), "\"blk.0.attn_q.weight\" is missing"),
    (
        "unknown tensor",
        |r| r.tensors.push(super::raw::RawTensor { name: b"blk.9.x".to_vec(), ..r.tensors[1].clone() }),
        "\"blk.9.x\" is unknown",
    ),
    ("tensor twice", |r| r.tensors.push(r.tensors[1].clone()), "\"blk.0.attn_norm.weight\" is there twice"),
    ("unnamed tensor", |r| r.tensor(Q).name.clear(), "name of a tensor"),
    ("tensor name too long", |r| r.tensor(Q).name = vec![b'q'; 65536], "name of a tensor at offset"),
    ("tensor name not UTF-8", |r| r.tensor(Q).name = vec![0x80], "name of a tensor at offset"),
    ("no dimensions", |r| r.tensor(Q).dims.clear(), "0 dimensions"),
    ("five dimensions", |r| r.tensor(Q).dims = vec![32, 32, 1, 1, 1], "5 dimensions"),
    ("dimension count of -1", |r| r.tensor(Q).dim_count = Some(u32::MAX), "4294967295 dimensions"),
    ("dimension of 0", |r| r.tensor(Q).dims[1] = 0, "with a zero"),
    ("dimensions that wrap to few", |r| r.tensor(Q).dims = vec![1 << 32, 1 << 32], "too large"),
    ("dimensions that wrap in four", |r| r.tensor(Q).dims = vec![1 << 16, 1 << 16, 1 << 16, 1 << 17], "too large"),
    ("bytes that wrap", |r| r.tensor("output_norm.weight").dims = vec![1 << 62], "too many"),
    ("more elements than the file", |r| r.tensor(Q).dims[1] = 1 << 40, "out of range"),
    ("rows that are no whole bytes", |r| r.tensor(Q).dims = vec![33, 32], "multiple of 32"),
    ("shape unlike the config", |r| r.tensor(Q).dims = vec![32, 16], "\"blk.0.attn_q.weight\" has shape [16, 32]"),
    ("transposed", |r| r.tensor("blk.0.ffn_down.weight").dims = vec![32, 64], "\"blk.0.ffn_down.weight\" has shape"),
    ("unknown type", |r| r.tensor(Q).kind = 77, "\"blk.0.attn_q.weight\" is type 77; the configuration needs"),
    ("type of -1", |r| r.tensor(Q).kind = u32::MAX, "is type 4294967295; the configuration needs"),
    (
        "f32 where ternary belongs",
        |r| {
            let t = r.tensor(Q);
            (t.kind, t.data) = (0, vec![0; 4096]);
        },
        "\"blk.0.attn_q.weight\" is f32",
    ),
    (
        "f32 where f16 belongs",
        |r| {
            let t = r.tensor("token_embd.weight");
            (t.kind, t.data) = (0, vec![0; 4 * 262 * 32]);
        },
        "\"token_embd.weight\" is f32",
    ),
    ("f16 where f32 belongs", |r| r.tensor("output_norm.weight").kind = 1, "\"output_norm.weight\" is f16"),
    ("offset not aligned", |r| r.tensor("output_norm.weight").offset = Some(8), "is not a multiple of 32"),
    ("offset beyond the file", |r| r.tensor(Q).offset = Some(1 << 30), "out of range"),
    ("offset that wraps", |r| r.tensor(Q).offset = Some(u64::MAX - 31), "out of range"),
    ("tensor on top of another", |r| r.tensor("output_norm.weight").offset = Some(32), "overlaps tensor"),
    ("last tensor cut off", |r| r.tensor("output_norm.weight").data.truncate(100), "out of range"),
];

const VALUES: &[Case] = &[
    ("invalid trit", |r| r.tensor(Q).data[37] = 0b00_10_00_00, "byte 37 is 0x20, which holds an invalid trit"),
    ("negative scale", |r| r.tensor(Q).data[256..260].copy_from_slice(&(-1f32).to_le_bytes()), "scale 0 is -1"),
    ("scale NaN", |r| r.tensor(Q).data[260..264].copy_from_slice(&f32::NAN.to_le_bytes()), "scale 1 is NaN"),
    ("infinite scale", |r| r.tensor(Q).data[256..260].copy_from_slice(&f32::INFINITY.to_le_bytes()), "scale 0 is inf"),
    ("scale that is no f16", |r| r.tensor(Q).data[256..260].copy_from_slice(&0.1f32.to_le_bytes()), "scale 0 is 1"),
    (
        "embedding NaN",
        |r| r.tensor("token_embd.weight").data[2..4].copy_from_slice(&[0, 0x7e]),
        "\"token_embd.weight\" at offset",
    ),
    (
        "infinite norm",
        |r| r.tensor("output_norm.weight").data[4..8].copy_from_slice(&f32::INFINITY.to_le_bytes()),
        "value 1 is not",
    ),
    (
        "mixing NaN",
        |r| r.tensor("blk.0.ffn_mhc").data[..4].copy_from_slice(&f32::NAN.to_le_bytes()),
        "\"blk.0.ffn_mhc\"",
    ),
];

#[test]
fn malformed_gguf_files_are_refused_by_name() {
    let good = valid(&tiniest(), Format::Q1_58);
    // A file from before there was one key for the configuration; its tensors have other sizes.
    let old = fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old/nanotern.gguf")).unwrap();
    let (raw, old_raw) = (Raw::parse(&good), Raw::parse(&old));
    assert!(raw.bytes() == good && old_raw.bytes() == old, "taking apart and putting together changes nothing");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.gguf");
    let mut names = std::collections::BTreeSet::new();
    let today = [HEADER, WHOLE, TENSORS, VALUES].into_iter().flatten().map(|case| (case, &raw));
    let before = [KEYS, CONFIG].into_iter().flatten().map(|case| (case, &old_raw));
    for ((name, change, part), raw) in today.chain(before) {
        let mut raw = raw.clone();
        change(&mut raw);
        fs::write(&path, raw.bytes()).unwrap();
        let start = Instant::now();
        refused(name, &path, ModelFile::open(&path), part);
        assert!(start.elapsed() < Duration::from_secs(1), "{name} took {:?}", start.elapsed());
        assert!(names.insert(name), "two cases are named {name}");
    }
    println!("{} classes of malformed GGUF", names.len());
    for (name, bytes) in [("empty", vec![]), ("one byte", vec![b'G']), ("the magic alone", b"GGUF".to_vec())] {
        fs::write(&path, bytes).unwrap();
        refused(name, &path, ModelFile::open(&path), "");
    }
}

type BlockCase = (Format, fn(&mut Raw), &'static str);

#[test]
fn malformed_blocks_are_refused() {
    let with = |format: Format, change: fn(&mut Raw)| {
        let mut raw = Raw::parse(&valid(&small(), format));
        change(&mut raw);
        ModelFile::from_gguf(&raw.bytes()).expect_err("a damaged block")
    };
    let cases: [BlockCase; 8] = [
        (Format::Tq2_0, |r| r.tensor(Q).data[5] = 0xff, "byte 5 is 0xff, which holds an invalid trit"),
        (Format::Tq2_0, |r| r.tensor(Q).data[65] = 0x7c, "scale 0"),
        (Format::Tq2_0, |r| r.tensor(Q).data[65] |= 0x80, "scale 0 is -"),
        (Format::Tq1_0, |r| r.tensor(Q).data[3] = 1, "byte 3 is 0x01, which holds an invalid trit"),
        (Format::Tq1_0, |r| r.tensor(Q).data[50] = 2, "byte 50 is 0x02, which holds an invalid trit"),
        (Format::Tq1_0, |r| r.tensor(Q).dims = vec![128, 512], "multiple of 256"),
        (Format::Tq2_0, |r| u32_key(r, "nanotern.group_size", 128), "group_size\" is 128, but"),
        (Format::Tq2_0, |r| u32_key(r, "bitnet.attention.head_count_kv", 3), "head_count_kv\" is 3, but"),
    ];
    for (i, (format, change, part)) in cases.into_iter().enumerate() {
        let error = with(format, change);
        assert!(error.contains(part), "case {i}: {error:?} does not say {part:?}");
    }
}

/// What other programs write: a stock `bitnet` file, none of whose keys are ours, with the table in `q8_0`. Code j of block
/// i is i + j modulo 256, so every code occurs; the scales are i / 64.
pub fn stock_q8_0() -> Raw {
    let mut raw = Raw::parse(&valid(&small(), Format::Tq2_0));
    raw.keys.retain(|(name, ..)| !name.starts_with(b"nanotern.") && name != b"tokenizer.huggingface.json");
    let block = |i: usize| {
        let scale = half::f16::from_f32(i as f32 / 64.0).to_le_bytes();
        scale.into_iter().chain((0..32).map(move |j| (i + j) as u8))
    };
    let table = raw.tensor("token_embd.weight");
    (table.kind, table.data) = (8, (0..262 * 256 / 32).flat_map(block).collect());
    raw
}

const TABLE: &str = "token_embd.weight";

#[test]
fn malformed_q8_0_tables_are_refused() {
    let cases: [Case; 9] = [
        ("NaN", |r| r.tensor(TABLE).data[68..70].copy_from_slice(&[0, 0x7e]), "scale 2 is NaN"),
        ("infinite", |r| r.tensor(TABLE).data[34..36].copy_from_slice(&[0, 0xfc]), "scale 1 is -inf"),
        (
            "part of a block",
            |r| r.tensor(TABLE).dims = vec![16, 262],
            "rows of 16 values in q8_0: must be a multiple of 32",
        ),
        ("no shape of the config", |r| r.tensor(TABLE).dims = vec![32, 2096], "has shape [2096, 32]"),
        ("more blocks than bytes", |r| r.tensor(TABLE).dims[1] = 1 << 30, "out of range"),
        ("bytes that wrap", |r| r.tensor(TABLE).dims = vec![32, (1 << 59) - 1], "are too many"),
        ("cut off", |r| r.tensors.last_mut().unwrap().data.truncate(32), "out of range"),
        (
            "where ternary belongs",
            |r| {
                let t = r.tensor(Q);
                (t.kind, t.data) = (0, vec![0; 256 * 256 * 4]);
            },
            "\"blk.0.attn_q.weight\" is f32",
        ),
        (
            "of a type that nothing reads",
            |r| r.tensor(TABLE).kind = 77,
            "\"token_embd.weight\" is type 77; the configuration needs F16",
        ),
    ];
    assert!(ModelFile::from_gguf(&stock_q8_0().bytes()).is_ok());
    for (name, change, part) in cases {
        let mut raw = stock_q8_0();
        change(&mut raw);
        let error = ModelFile::from_gguf(&raw.bytes()).expect_err(name);
        assert!(error.contains(part), "{name}: {error:?} does not say {part:?}");
    }
}

#[test]
fn metadata_is_bounded() {
    let mut raw = Raw::parse(&valid(&tiniest(), Format::Q1_58));
    raw.set("x", 8, &string(&vec![b' '; 65 << 20]));
    let error = ModelFile::from_gguf(&raw.bytes()).err().unwrap();
    assert!(error.contains("\"x\"") && error.contains("64 MiB"), "{error}");
}

#[test]
fn malformed_mhc_files_are_refused_by_name() {
    let good = model(&tiniest(), 20, None).mhc().unwrap().to_bytes();
    assert_eq!(good.len(), 16 + 72);
    let put = |at: usize, value: u32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        bytes
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.mhc");
    for (name, bytes, part) in [
        ("empty", vec![], "magic at offset 0 needs 4 bytes, 0 remain"),
        ("cut header", good[..10].to_vec(), "number of sub-layers at offset 8"),
        ("wrong magic", put(0, 0x2143_486D), "magic at offset 0"),
        ("version 0", put(4, 0), "version 0"),
        ("version 3", put(4, 3), "version 3"),
        ("no sub-layers", put(8, 0), "0 sub-layers"),
        ("odd sub-layers", put(8, 3), "3 sub-layers"),
        ("sub-layers of -1", put(8, u32::MAX), "4294967295 sub-layers"),
        ("more sub-layers than bytes", put(8, 4), "take 144 bytes, the file has 72"),
        ("one stream", put(12, 1), "1 streams at offset 12"),
        ("three streams", put(12, 3), "3 streams at offset 12"),
        ("streams of -1", put(12, u32::MAX), "4294967295 streams"),
        ("cut", good[..87].to_vec(), "the file has 71"),
        ("too long", [&good[..], &[0]].concat(), "the file has 73"),
        ("NaN", put(16, f32::NAN.to_bits()), "sub-layer 0 at offset 16: parameter 0"),
        ("infinite", put(56, f32::INFINITY.to_bits()), "sub-layer 1 at offset 52: parameter 1"),
    ] {
        fs::write(&path, bytes).unwrap();
        refused(name, &path, MhcFile::open(&path), part);
    }
}

type CheckpointCase = (&'static str, fn(&mut Vec<Array>), &'static str);

/// Checkpoints whose checksums are right and whose tensors are not; damaged ones are the business of `tests/checkpoint.rs`.
#[test]
fn malformed_checkpoints_are_refused_by_name() {
    let config = tiniest();
    let cases: [CheckpointCase; 5] = [
        ("no embedding", |t| drop(t.remove(0)), "embed.weight is missing"),
        ("missing tensor", |t| drop(t.pop()), "norm.weight is missing"),
        ("unknown tensor", |t| t[1].name = "extra".into(), "extra is unknown"),
        ("shape", |t| t[1].shape = vec![4, 8], "layers.0.attn.norm.weight has shape [4, 8]"),
        ("weights beyond f16", |t| t[3].data.fill(1e6), "layers.0.attn.q.weight: scale 0 is inf"),
    ];
    for (name, change, part) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut tensors = latent(&config, 262, 1);
        change(&mut tensors);
        let path = save(dir.path(), &config, &tensors, None);
        refused(name, &path, ModelFile::open(&path), part);
    }
    // Such a checkpoint cannot be saved.
    for (i, at, value) in [(0, 9, f32::NAN), (3, 0, f32::INFINITY)] {
        let mut tensors = latent(&config, 262, 1);
        tensors[i].data[at] = value;
        let what = ModelFile::from_latent(config.clone(), TextConfig::default(), &tensors).unwrap_err();
        assert_eq!(what, format!("{}: value {at} is {value}: not a finite number", tensors[i].name));
    }
    let dir = tempfile::tempdir().unwrap();
    refused("no checkpoint", dir.path(), ModelFile::open(dir.path()), "holds no checkpoint");
    let bad = ModelConfig { heads: 3, ..config.clone() };
    let path = save(dir.path(), &bad, &latent(&config, 262, 1), None);
    refused("config that makes no model", &path, ModelFile::open(&path), "dim / heads");
    let dir = tempfile::tempdir().unwrap();
    let path = save(dir.path(), &config, &latent(&config, 100, 1), Some(&Tokenizer::bytes()));
    refused("tokenizer larger than the embedding", &path, ModelFile::open(&path), "token 256 is not below");
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused() {
    let mut model = model(&tiniest(), 100, None);
    model.text.tokenizer_json = Some(Tokenizer::bytes().to_json());
    let message = model.tokenizer().unwrap_err().to_string();
    assert!(message.contains("262 tokens") && message.contains("100 rows"), "{message}");
    assert!(gguf::Layout::new(&model, Format::Q1_58).err().unwrap().to_string().contains("100 rows"));
}

const CHILD: &str = "NANOTERN_TEST_DAMAGE";

/// The readers in a process of their own, whose peak memory is theirs.
#[test]
fn random_damage_neither_panics_nor_hangs_nor_takes_memory() {
    if std::env::var_os(CHILD).is_some() {
        return damage();
    }
    let me = std::env::current_exe().unwrap();
    let name = "malformed::random_damage_neither_panics_nor_hangs_nor_takes_memory";
    let run = std::process::Command::new(me).args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
    let text = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{text}{}", String::from_utf8_lossy(&run.stderr));
    println!("{}", text.lines().find(|l| l.contains("damaged files")).unwrap());
}

/// Peak resident memory in KiB, where the system tells it.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn damage() {
    let files = [
        valid(&tiniest(), Format::Q1_58),
        valid(&ModelConfig { mhc_streams: 4, tie_embeddings: false, ..tiniest() }, Format::Q1_58),
        stock_q8_0().bytes(),
    ];
    let mhc = model(&tiniest(), 20, None).mhc().unwrap().to_bytes();
    let (mut rng, before) = (Rng::new(1), peak_kib());
    let (mut count, mut slowest, mut accepted) = (0, Duration::ZERO, 0);
    for good in &files {
        // Everything before the data is denser in meaning, so it takes most of the damage.
        let head = Raw::parse(good).tensors.iter().map(|t| t.data.len()).sum::<usize>();
        let head = good.len() - head;
        for i in 0..3000 {
            let mut bytes = good.clone();
            if i % 3 == 0 {
                bytes.truncate(rng.below(good.len() as u64) as usize);
            } else {
                for _ in 0..1 + rng.below(4) {
                    let at = rng.below(if i % 3 == 1 { head } else { good.len() } as u64) as usize;
                    bytes[at] = if rng.below(2) == 0 { bytes[at] ^ 1 << rng.below(8) } else { rng.next_u64() as u8 };
                }
            }
            let start = Instant::now();
            let opened = ModelFile::from_gguf(&bytes);
            slowest = slowest.max(start.elapsed());
            assert!(i % 3 != 0 || opened.is_err(), "a file cut to {} bytes was accepted", bytes.len());
            accepted += usize::from(opened.is_ok());
            count += 1;
        }
    }
    for i in 0..20_000 {
        let mut bytes = mhc.clone();
        bytes[rng.below(88) as usize] ^= 1 << rng.below(8);
        bytes.truncate(if i % 2 == 0 { 88 } else { rng.below(88) as usize });
        assert!(i % 2 == 0 || MhcFile::parse(&bytes).is_err());
        let _ = MhcFile::parse(&bytes);
    }
    let grown = peak_kib() - before;
    println!("{count} damaged files, {accepted} of them still models, slowest {slowest:?}, {grown} KiB of memory");
    assert!(slowest < Duration::from_secs(1) && grown < 64 << 10);
}
