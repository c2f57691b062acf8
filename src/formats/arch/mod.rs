//! Architectures of GGUF files: what each calls the parts of a model. Each has a file here, which turns keys into a
//! [`ModelConfig`] and back, and names of weights into names of tensors.

mod bitnet;
mod bitnet_b158;
mod llama;
mod nanotern;
mod qwen2;
mod qwen3;
mod rope;

use super::MAX_VOCAB;
use super::gguf::encodings::Format;
use super::gguf::keys::{KeyWriter, Keys, required};
use super::gguf::{TensorInfo, Value, short};
use crate::model::{BIASED, Embeddings, ModelConfig, Quantize, Role, RopeScaling, Scales, Weight};
use serde_json::{Map, Value as Json};

/// The key that holds a whole [`ModelConfig`], as JSON.
const CONFIG: &str = "nanotern.config";
/// The key that holds the group size of the encoding `q1_58`.
const GROUP_SIZE: &str = "nanotern.group_size";
const ARCHITECTURE: &str = "general.architecture";
/// What the keys of this program start with.
const OWN: &str = "nanotern.";
/// Keys that start so and say nothing about the model.
const NO_OPTIONS: [&str; 3] = [CONFIG, GROUP_SIZE, super::gguf::STOP];

/// A family of GGUF files.
pub(super) trait Architecture: Sync {
    /// Its name, the value of `general.architecture` and the start of its keys.
    fn name(&self) -> &'static str;

    /// Another name that files have for it.
    fn older_name(&self) -> Option<&'static str> {
        None
    }

    /// Whether a model is written as this.
    fn writes(&self, config: &ModelConfig, format: Format) -> bool;

    /// The configuration that the keys describe, as the serde form of [`ModelConfig`]. They start with `arch`, one of its names.
    fn config(&self, keys: &Keys<'_, '_>, arch: &str) -> Result<Map<String, Json>, String>;

    /// Rows of a head of the weight `name`, if files hold the two halves of its rotary pairs in adjacent rows. In a model they are half a
    /// head apart.
    fn pairs(&self, _config: &ModelConfig, _name: &str) -> Option<usize> {
        None
    }

    /// What its files call the weight `name`, such as `blk.0.attn_q.weight` for `layers.0.attn.q.weight`.
    fn tensor(&self, name: &str) -> String;
}

/// Every architecture. A model is written as the first that takes it.
static ALL: [&dyn Architecture; 6] =
    [&bitnet::Bitnet, &bitnet_b158::BitnetB158, &llama::Llama, &qwen2::Qwen2, &qwen3::Qwen3, &nanotern::Nanotern];

/// Standard keys: what follows the architecture, and the field of [`ModelConfig`] that the value is.
const STANDARD: [(&str, &str); 8] = [
    ("context_length", "seq_len"),
    ("embedding_length", "dim"),
    ("block_count", "layers"),
    ("feed_forward_length", "ffn"),
    ("attention.head_count", "heads"),
    ("attention.head_count_kv", "kv_heads"),
    ("attention.layer_norm_rms_epsilon", "norm_eps"),
    ("rope.freq_base", "rope_theta"),
];
const ROPE_DIMS: &str = "rope.dimension_count";
/// Values of a head of keys, and of values.
const HEAD: [&str; 2] = ["attention.key_length", "attention.value_length"];
const VOCAB: &str = "vocab_size";
/// The end of the name of a number by which a product is multiplied, instead of `.weight`. Only files of others have them.
pub(super) const SCALE: &str = ".scale";
/// The numbers by which rotary frequencies are divided, one for each pair of a head. Only files of others have them.
pub(super) const ROPE_FACTORS: &str = "rope_freqs.weight";

/// The architecture that a model is written as.
pub(super) fn of(config: &ModelConfig, format: Format) -> &'static dyn Architecture {
    ALL.into_iter().find(|arch| arch.writes(config, format)).expect("the last one takes every model")
}

/// Whether standard keys say all of a model, and other programs know the encoding of its matrices.
fn is_stock(config: &ModelConfig, format: Format) -> bool {
    let known = format != Format::Q1_58 || !config.is_ternary();
    let linear = matches!(config.rope_scaling, None | Some(RopeScaling::Linear { .. }));
    known && linear && config.unknown_to_others().is_none()
}

/// Writes the keys of a model: the standard ones, which other programs know, and the whole configuration.
pub(super) fn write(config: &ModelConfig, vocab: usize, format: Format, out: &mut KeyWriter) {
    let arch = of(config, format).name();
    out.str(ARCHITECTURE, arch);
    out.u32("general.quantization_version", 2);
    let fields = json(config);
    for (key, field) in STANDARD {
        let key = format!("{arch}.{key}");
        match &fields[field] {
            Json::Number(n) if n.is_u64() => out.u32(&key, n.as_u64().unwrap_or(0) as u32),
            value => out.f32(&key, value.as_f64().expect("standard keys are numbers") as f32),
        }
    }
    out.u32(&format!("{arch}.{ROPE_DIMS}"), config.head_dim() as u32);
    if let Some(head) = config.head_dim {
        HEAD.iter().for_each(|key| out.u32(&format!("{arch}.{key}"), head as u32));
    }
    if is_stock(config, format) {
        rope::write(config.rope_scaling.as_ref(), arch, out);
    }
    out.u32(&format!("{arch}.{VOCAB}"), vocab as u32);
    out.u32(GROUP_SIZE, config.group_size as u32);
    out.str(CONFIG, &Json::Object(fields).to_string());
}

/// Whether a file has the whole configuration of a model, and so is no file of another program.
pub(super) fn is_own(keys: &Keys<'_, '_>) -> bool {
    keys.file.keys.contains_key(CONFIG)
}

/// Reads the architecture, the configuration and the size of the vocabulary; `rows` are the rows of the embedding, where the
/// file has one.
pub(super) fn read(
    keys: &Keys<'_, '_>,
    rows: impl Fn(&str) -> Option<u64>,
) -> Result<(&'static dyn Architecture, ModelConfig, usize), String> {
    let name = required(keys.str(ARCHITECTURE), ARCHITECTURE)?;
    let arch =
        ALL.into_iter().find(|arch| arch.name() == name || arch.older_name() == Some(name)).ok_or_else(|| {
            let known: Vec<String> = ALL.iter().map(|arch| format!("{:?}", arch.name())).collect();
            format!("key {ARCHITECTURE:?} is {name:?}: it must be {}", known.join(" or "))
        })?;
    let fields = match keys.str(CONFIG)? {
        Some(text) => whole(keys, name, text)?,
        None => arch.config(keys, name)?,
    };
    let mut config = parse(fields)?;
    config.check().map_err(|e| format!("the keys make no model: {e}"))?;
    let key = format!("{name}.{ROPE_DIMS}");
    if let Some(dims) = keys.size(&key)?.filter(|d| *d != config.head_dim()) {
        return Err(format!("key {key:?} is {dims}: it must be the size of a head, {}", config.head_dim()));
    }
    let key = format!("{name}.{VOCAB}");
    let vocab = match keys.size(&key)? {
        Some(vocab) => vocab,
        None => rows(&arch.tensor("embed.weight"))
            .and_then(|rows| usize::try_from(rows).ok())
            .ok_or_else(|| format!("key {key:?} is missing"))?,
    };
    if !(1..=MAX_VOCAB).contains(&vocab) {
        return Err(format!("key {key:?} is {vocab}: between 1 and {MAX_VOCAB} is possible"));
    }
    if !is_own(keys) {
        let is_dense = |w: &Weight| {
            let info = keys.file.tensor(&arch.tensor(&w.name));
            w.role == Role::Matrix && info.is_some_and(|info| Format::from_id(info.kind).is_none())
        };
        config.dense = config.weights(vocab).into_iter().filter(is_dense).map(|w| w.name).collect();
    }
    Ok((arch, config, vocab))
}

/// The configuration of these fields; the error names the key of the one that is wrong.
fn parse(fields: Map<String, Json>) -> Result<ModelConfig, String> {
    // From text, as `whole` reads it: code for another source would add kilobytes to the module of browsers.
    let of = |fields: Map<String, Json>| {
        let config = serde_json::from_str::<ModelConfig>(&Json::Object(fields).to_string());
        config.map_err(|e| e.to_string().split(" at line ").next().unwrap_or_default().to_string())
    };
    of(fields.clone()).map_err(|error| {
        let wrong = fields.into_iter().find_map(|(field, value)| {
            let mut one = json(&ModelConfig::default());
            one.insert(field.clone(), value.clone());
            of(one).err().map(|e| format!("key \"{OWN}{field}\" is {value}: {e}"))
        });
        wrong.unwrap_or(error)
    })
}

/// The fields of a configuration.
fn json(config: &ModelConfig) -> Map<String, Json> {
    match serde_json::to_value(config) {
        Ok(Json::Object(fields)) => fields,
        other => unreachable!("a configuration is an object, not {other:?}"),
    }
}

/// The configuration in the key [`CONFIG`]. Nothing may be missing, and no other key may contradict it.
fn whole(keys: &Keys<'_, '_>, arch: &str, text: &str) -> Result<Map<String, Json>, String> {
    let wrong = |e: serde_json::Error| format!("key {CONFIG:?}: {e}; the file may be newer than this program");
    let config: ModelConfig = serde_json::from_str(text).map_err(wrong)?;
    let given: Map<String, Json> = serde_json::from_str(text).map_err(wrong)?;
    complete(&given).map_err(|field| format!("key {CONFIG:?} lacks {field:?}"))?;
    let fields = json(&config);
    let contradicts = |key: &str, field: &str| {
        let (Some(value), want) = (keys.file.keys.get(key), &fields[field]) else { return false };
        value.as_f64().map(|v| v as f32) != want.as_f64().map(|v| v as f32)
    };
    let standard = STANDARD.map(|(key, field)| (format!("{arch}.{key}"), field));
    for (key, field) in standard.iter().map(|(k, f)| (k.as_str(), *f)).chain([(GROUP_SIZE, "group_size")]) {
        if contradicts(key, field) {
            let value = &keys.file.keys[key];
            return Err(format!("key {key:?} is {value}, but {CONFIG:?} has {field} = {}", fields[field]));
        }
    }
    match options(keys, arch).next() {
        Some((key, _)) => Err(format!("key {:?} is unknown beside {CONFIG:?}: the file may be newer", short(key))),
        None => Ok(fields),
    }
}

/// The standard keys of an architecture, as fields.
fn standard(keys: &Keys<'_, '_>, arch: &str) -> Result<Map<String, Json>, String> {
    let mut fields = Map::new();
    for (key, field) in STANDARD {
        let key = format!("{arch}.{key}");
        let value = match field {
            "norm_eps" => Some(required(keys.finite(&key), &key)?.into()),
            "rope_theta" => keys.finite(&key)?.map(Json::from),
            "kv_heads" => keys.size(&key)?.map(Json::from).or_else(|| fields.get("heads").cloned()),
            _ => Some(required(keys.size(&key), &key)?.into()),
        };
        fields.extend(value.map(|value| (field.to_string(), value)));
    }
    Ok(fields)
}

/// [`stock`] of an architecture without sub-norms, whose head is the embedding where it is no tensor of its own.
fn llama_like(keys: &Keys<'_, '_>, arch: &str, defaults: ModelConfig) -> Result<Map<String, Json>, String> {
    let tie_embeddings = keys.file.tensor(&block_name("head.weight")).is_none();
    stock(keys, arch, ModelConfig { sub_norm: false, tie_embeddings, ..defaults })
}

/// The configuration of a file of another program. Such files leave options unsaid: those of `defaults` count, and forms follow
/// from the types of tensors. A key that would change the result and is not read is refused.
fn stock(keys: &Keys<'_, '_>, arch: &str, defaults: ModelConfig) -> Result<Map<String, Json>, String> {
    let has = |of: &dyn Fn(Format) -> bool| keys.file.tensors.iter().any(|t| Format::from_id(t.kind).is_some_and(of));
    // Tables of other types become f16.
    let tables =
        ["embed.weight", "head.weight"].map(|name| keys.file.tensor(&block_name(name)).map(TensorInfo::kind_name));
    let are = |kind: &str| tables.iter().flatten().all(|table| table == kind);
    let embeddings = match () {
        () if are("f32") => Embeddings::F32,
        () if are("q8_0") => Embeddings::Q8_0,
        () => Embeddings::F16,
    };
    let quantize = if has(&|_| true) { Quantize::Ternary } else { Quantize::F16 };
    let factors = keys.file.tensors.iter().any(|t| t.name.ends_with(SCALE));
    let scales = if factors || has(&|format| format == Format::I2S) { Scales::Tensor } else { Scales::Group };
    let mut given = standard(keys, arch)?;
    add_options(keys, arch, &mut given)?;
    let [key, value] = HEAD.map(|key| format!("{arch}.{key}"));
    let [dim, heads] = ["dim", "heads"].map(|field| given[field].as_u64().unwrap_or(0));
    let plain = dim.checked_div(heads).filter(|head| head * heads == dim);
    let given_head = keys.size(&key)?.map(|head| head as u64);
    if let Some(other) = keys.size(&value)?.filter(|other| Some(*other as u64) != given_head.or(plain)) {
        return Err(format!("key {value:?} is {other}: it must be the size of a head of keys"));
    }
    if let Some(head) = given_head.filter(|head| Some(*head) != plain) {
        given.insert("head_dim".into(), head.into());
    }
    let (rope_scaling, of_rope) = rope::scaling(keys, arch)?;
    let has_bias = |part: &&str| keys.file.tensor(&block_name(&format!("layers.0.{part}.bias"))).is_some();
    let biases = BIASED.into_iter().filter(has_bias).map(String::from).collect();
    let mut fields =
        json(&ModelConfig { group_size: 256, embeddings, scales, quantize, rope_scaling, biases, ..defaults });
    fields.extend(given);
    let own = STANDARD.iter().map(|(key, _)| *key).chain(HEAD);
    let read = own.chain([ROPE_DIMS, VOCAB]).chain(of_rope.iter().copied()).collect::<Vec<_>>();
    for (key, value) in &keys.file.keys {
        let Some(own) = key.strip_prefix(arch).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let neutral = NEUTRAL.contains(&own) && value.as_u64() == Some(0);
        if !read.contains(&own) && !neutral {
            return Err(format!("key {:?} is {value}: this program does not honour it", short(key)));
        }
    }
    Ok(fields)
}

/// Keys that say nothing new where they are 0.
const NEUTRAL: [&str; 2] = ["expert_count", "expert_used_count"];

/// Adds the options of files from before [`CONFIG`], which have a key for each field that no standard key has.
fn add_options(keys: &Keys<'_, '_>, arch: &str, fields: &mut Map<String, Json>) -> Result<(), String> {
    if let Some(group) = keys.size(GROUP_SIZE)? {
        fields.insert("group_size".into(), group.into());
    }
    for (key, value) in options(keys, arch) {
        let field = &key[OWN.len()..];
        let value =
            value.to_json().ok_or_else(|| format!("key {:?} is {value}: it must be a number or a word", short(key)))?;
        // The base of the rotary frequencies is exact here, and rounded under the standard key.
        if let Some(before) = fields.get(field)
            && before.as_f64() != value.as_f64().map(|v| f64::from(v as f32))
        {
            let (standard, _) = STANDARD.iter().find(|(_, f)| *f == field).expect("the other fields have one key");
            return Err(format!("key \"{arch}.{standard}\" is {before}, but {key:?} is {value}"));
        }
        fields.insert(field.into(), value);
    }
    let known = json(&ModelConfig::default());
    match fields.keys().find(|field| !known.contains_key(*field)) {
        Some(field) => {
            let field = short(field);
            Err(format!("key \"{OWN}{field}\" is unknown to this program: the file may be newer"))
        }
        None => Ok(()),
    }
}

/// The keys of this program that are options of the model.
fn options<'k, 'a>(keys: &'k Keys<'_, 'a>, arch: &'k str) -> impl Iterator<Item = (&'a str, &'k Value<'a>)> + 'k {
    let is_standard = move |key: &str| {
        let rest = key.strip_prefix(arch).and_then(|rest| rest.strip_prefix('.'));
        rest.is_some_and(|k| STANDARD.iter().any(|s| s.0 == k) || [ROPE_DIMS, VOCAB].contains(&k) || HEAD.contains(&k))
    };
    let own = keys.file.keys.iter().map(|(key, value)| (*key, value));
    own.filter(move |(key, _)| key.starts_with(OWN) && !NO_OPTIONS.contains(key) && !is_standard(key))
}

/// Refuses a configuration in which a field is missing that has no value that means off; the error is its name.
fn complete(fields: &Map<String, Json>) -> Result<(), String> {
    json(&ModelConfig::default())
        .into_iter()
        .find(|(field, _)| !fields.contains_key(field))
        .map_or(Ok(()), |f| Err(f.0))
}

/// The name of a weight where layers are `blk.N`, further heads `mtp.N`, and a sub-layer and its part are one word.
fn block_name(name: &str) -> String {
    let numbered = |start: &str| name.strip_prefix(start)?.split_once('.');
    let parts = [("layers.", "blk"), ("mtp.", "mtp")].map(|(start, block)| Some((block, numbered(start)?)));
    let Some((block, (layer, rest))) = parts.into_iter().flatten().next() else {
        return name.replace("embed", "token_embd").replace("head", "output").replace("norm", "output_norm");
    };
    let name = rest.replacen('.', "_", 1).replace("attn_o.", "attn_output.");
    format!("{block}.{layer}.{}", expert_name(&name).unwrap_or(name))
}

/// What other programs call the weights of experts.
fn expert_name(name: &str) -> Option<String> {
    let of = |rest: &str, suffix: &str| rest.split_once('.').map(|(part, rest)| format!("ffn_{part}_{suffix}.{rest}"));
    match name {
        "ffn_router.weight" => Some("ffn_gate_inp.weight".to_string()),
        "ffn_router.bias" => Some("exp_probs_b.bias".to_string()),
        _ => name
            .strip_prefix("ffn_experts.")
            .and_then(|rest| of(rest, "exps"))
            .or_else(|| name.strip_prefix("ffn_shared.").and_then(|rest| of(rest, "shexp"))),
    }
}
