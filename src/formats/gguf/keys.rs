//! The config as keys, and back. Keys that stock runtimes know are `ARCH.*`; the rest of the config is `nanotern.*`.

use super::super::MAX_VOCAB;
use super::encodings::Format;
use super::read::{Gguf, Value};
use super::write::KeyWriter;
use super::{F16, Q8_0};
use crate::model::{Embeddings, ModelConfig, Quantize};

/// Stock runtimes compute the same model.
const BITNET: &str = "bitnet";
const NANOTERN: &str = "nanotern";

/// The shape: the key after the architecture, and its place in the config.
type Size = (&'static str, fn(&mut ModelConfig) -> &mut usize);
const SIZES: [Size; 6] = [
    ("context_length", |c| &mut c.seq_len),
    ("embedding_length", |c| &mut c.dim),
    ("block_count", |c| &mut c.layers),
    ("feed_forward_length", |c| &mut c.ffn),
    ("attention.head_count", |c| &mut c.heads),
    ("attention.head_count_kv", |c| &mut c.kv_heads),
];
const EPS: &str = "attention.layer_norm_rms_epsilon";
const FREQ_BASE: &str = "rope.freq_base";
const ROPE_DIMS: &str = "rope.dimension_count";
const VOCAB: &str = "vocab_size";

/// The tensor whose type is that of the tables, and whose rows are the vocabulary, where no key says so.
const EMBEDDING: &str = "token_embd.weight";

/// What the key of the tables' type may say.
const EMBEDDINGS: [(&str, Embeddings); 3] =
    [("f16", Embeddings::F16), ("f32", Embeddings::F32), ("q8_0", Embeddings::Q8_0)];

/// Keys under `nanotern.` that are read whatever the architecture.
const OWN: [&str; 9] = [
    "group_size",
    "mhc_streams",
    "sub_norm",
    "tie_embeddings",
    "quantize",
    "embeddings",
    "ternary_head",
    "rope_theta",
    "stop_token_ids",
];

/// The architecture that a model is written as.
fn architecture(config: &ModelConfig, format: Format) -> &'static str {
    let plain = config.mhc_streams == 1 && config.sub_norm && config.tie_embeddings && config.is_ternary();
    if plain && format != Format::Q1_58 { BITNET } else { NANOTERN }
}

pub(super) fn write(config: &ModelConfig, vocab: usize, format: Format, out: &mut KeyWriter) {
    let arch = architecture(config, format);
    let mut config = config.clone();
    out.str("general.architecture", arch);
    out.u32("general.quantization_version", 2);
    for (key, place) in SIZES {
        out.u32(&format!("{arch}.{key}"), *place(&mut config) as u32);
    }
    out.f32(&format!("{arch}.{EPS}"), config.norm_eps);
    out.f32(&format!("{arch}.{FREQ_BASE}"), config.rope_theta as f32);
    out.u32(&format!("{arch}.{ROPE_DIMS}"), config.head_dim() as u32);
    out.u32(&format!("{arch}.{VOCAB}"), vocab as u32);
    out.u32("nanotern.group_size", config.group_size as u32);
    out.u32("nanotern.mhc_streams", config.mhc_streams as u32);
    out.bool("nanotern.sub_norm", config.sub_norm);
    out.bool("nanotern.tie_embeddings", config.tie_embeddings);
    out.str("nanotern.quantize", if config.is_ternary() { "ternary" } else { "none" });
    let (embeddings, _) = EMBEDDINGS.iter().find(|(_, e)| *e == config.embeddings).expect("every kind has a word");
    out.str("nanotern.embeddings", embeddings);
    out.bool("nanotern.ternary_head", config.ternary_head);
    out.f64("nanotern.rope_theta", config.rope_theta);
}

/// Reads keys of an expected type.
pub(super) struct Keys<'f, 'a> {
    pub file: &'f Gguf<'a>,
}

impl<'a> Keys<'_, 'a> {
    /// The value of a key, if it is there.
    pub fn get<T>(&self, key: &str, want: &str, as_t: impl Fn(&Value<'a>) -> Option<T>) -> Result<Option<T>, String> {
        let Some(value) = self.file.keys.get(key) else { return Ok(None) };
        as_t(value).map(Some).ok_or_else(|| format!("key {key:?} is {value}: it must be {want}"))
    }

    pub fn size(&self, key: &str) -> Result<Option<usize>, String> {
        self.get(key, "a size", |v| v.as_u64().and_then(|v| usize::try_from(v).ok()))
    }

    pub fn f32(&self, key: &str) -> Result<Option<f32>, String> {
        self.get(key, "an f32", |v| if let Value::F32(v) = v { Some(*v) } else { None })
    }

    fn bool(&self, key: &str) -> Result<Option<bool>, String> {
        self.get(key, "a boolean", |v| if let Value::Bool(v) = v { Some(*v) } else { None })
    }

    pub fn str(&self, key: &str) -> Result<Option<&'a str>, String> {
        self.get(key, "a string", Value::as_str)
    }

    /// One of two words.
    fn word<T: Copy>(&self, key: &str, words: &[(&str, T)]) -> Result<Option<T>, String> {
        let find = |v: &Value<'a>| words.iter().find(|(w, _)| Some(*w) == v.as_str()).map(|(_, t)| *t);
        let names: Vec<String> = words.iter().map(|(w, _)| format!("{w:?}")).collect();
        self.get(key, &names.join(" or "), find)
    }
}

fn required<T>(value: Result<Option<T>, String>, key: &str) -> Result<T, String> {
    value?.ok_or_else(|| format!("key {key:?} is missing"))
}

/// The config and the size of the vocabulary.
pub(super) fn config(file: &Gguf<'_>) -> Result<(ModelConfig, usize), String> {
    let keys = Keys { file };
    let key = "general.architecture";
    let words = [(BITNET, BITNET), (NANOTERN, NANOTERN)];
    let arch = required(keys.word(key, &words), key)?;
    check_own(file, arch)?;
    // What stock `bitnet` files leave unsaid.
    let embeddings = match file.tensor(EMBEDDING).map(|t| t.kind) {
        Some(F16) => Embeddings::F16,
        Some(Q8_0) => Embeddings::Q8_0,
        _ => Embeddings::F32,
    };
    let mut config = ModelConfig { group_size: 256, rope_theta: 10_000.0, embeddings, ..ModelConfig::default() };
    for (name, place) in SIZES {
        let key = format!("{arch}.{name}");
        *place(&mut config) = match keys.size(&key)? {
            Some(size) => size,
            None if name == "attention.head_count_kv" => config.heads,
            None => return Err(format!("key {key:?} is missing")),
        };
    }
    let key = format!("{arch}.{EPS}");
    config.norm_eps = required(keys.f32(&key), &key)?;
    own(&keys, arch, &mut config)?;
    rope(&keys, arch, &mut config)?;
    config.check().map_err(|e| format!("the keys make no model: {e}"))?;
    let key = format!("{arch}.{ROPE_DIMS}");
    if let Some(dims) = keys.size(&key)?.filter(|d| *d != config.head_dim()) {
        return Err(format!("key {key:?} is {dims}: it must be the size of a head, {}", config.head_dim()));
    }
    let key = format!("{arch}.{VOCAB}");
    let vocab = match keys.size(&key)? {
        Some(vocab) => vocab,
        None => embedding_rows(file).ok_or_else(|| format!("key {key:?} is missing"))?,
    };
    if !(1..=MAX_VOCAB).contains(&vocab) {
        return Err(format!("key {key:?} is {vocab}: between 1 and {MAX_VOCAB} is possible"));
    }
    Ok((config, vocab))
}

fn embedding_rows(file: &Gguf<'_>) -> Option<usize> {
    file.tensor(EMBEDDING).and_then(|t| t.dims.get(1)).and_then(|rows| usize::try_from(*rows).ok())
}

/// The keys of the config that only this program has. The architecture `nanotern` has them all.
fn own(keys: &Keys<'_, '_>, arch: &str, config: &mut ModelConfig) -> Result<(), String> {
    if arch == NANOTERN
        && let Some(key) = OWN[..8].iter().find(|k| !keys.file.keys.contains_key(&*format!("nanotern.{k}")))
    {
        return Err(format!("key \"nanotern.{key}\" is missing"));
    }
    let quantize = keys.word("nanotern.quantize", &[("ternary", Quantize::Ternary), ("none", Quantize::None)])?;
    let embeddings = keys.word("nanotern.embeddings", &EMBEDDINGS)?;
    config.group_size = keys.size("nanotern.group_size")?.unwrap_or(config.group_size);
    config.mhc_streams = keys.size("nanotern.mhc_streams")?.unwrap_or(config.mhc_streams);
    config.sub_norm = keys.bool("nanotern.sub_norm")?.unwrap_or(config.sub_norm);
    config.tie_embeddings = keys.bool("nanotern.tie_embeddings")?.unwrap_or(config.tie_embeddings);
    config.ternary_head = keys.bool("nanotern.ternary_head")?.unwrap_or(config.ternary_head);
    config.quantize = quantize.unwrap_or(config.quantize);
    config.embeddings = embeddings.unwrap_or(config.embeddings);
    Ok(())
}

/// The base of the rotary frequencies: exact under our key, rounded to f32 under the one others know.
fn rope(keys: &Keys<'_, '_>, arch: &str, config: &mut ModelConfig) -> Result<(), String> {
    let key = format!("{arch}.{FREQ_BASE}");
    let base = keys.f32(&key)?;
    let exact = keys.get("nanotern.rope_theta", "an f64", |v| if let Value::F64(v) = v { Some(*v) } else { None })?;
    if let (Some(base), Some(exact)) = (base, exact)
        && exact as f32 != base
    {
        return Err(format!("key {key:?} is {base}, but \"nanotern.rope_theta\" is {exact}"));
    }
    config.rope_theta = exact.or(base.map(f64::from)).unwrap_or(config.rope_theta);
    Ok(())
}

/// An option of a model that this program does not know would be ignored in silence: it is an error.
fn check_own(file: &Gguf<'_>, arch: &str) -> Result<(), String> {
    let shape = |k: &str| {
        arch == NANOTERN && (SIZES.iter().any(|s| s.0 == k) || [EPS, FREQ_BASE, ROPE_DIMS, VOCAB].contains(&k))
    };
    let unknown = |k: &&&str| k.strip_prefix("nanotern.").is_some_and(|k| !OWN.contains(&k) && !shape(k));
    match file.keys.keys().find(unknown) {
        Some(key) => Err(format!("key {key:?} is unknown to this program: the file may be newer")),
        None => Ok(()),
    }
}
