//! Folders as Hugging Face has them: `config.json`, one or more files of tensors, a tokenizer.
//!
//! A matrix of a ternary model is stored in one of these ways, which `quantization_config` names:
//! - `bitnet` with the linear class `bitlinear` (the default): packed codes and a scale by which a code is *divided*,
//! - `autobitlinear`, `offline`: packed codes and a scale by which a code is *multiplied*,
//! - `autobitlinear`, `online`, and 1bitLLM's own architecture: the trained values, whose mean magnitude is the scale,
//! - none: dense values, and layers see their inputs as they are (TriLM).
//!
//! Tables and dense matrices of bf16 values become f16 ones; of those below 2^-17 the error is at most 2^-25.

mod mean;
mod pieces;
mod shards;
mod write;

pub use write::Matrices;
pub(super) use write::save;

use super::{ModelFile, Tensor, TensorData, Ternary, TextConfig, gguf};
use crate::files::{self, Links};
use crate::memory;
use crate::model::{Embeddings, Form, ModelConfig, Quantize, Role, RopeScaling, Scales, Weight};
use crate::ops::Activation;
use crate::{Error, Result};
use half::f16;
use serde_json::Value as Json;
use shards::{Place, Shards};
use std::path::Path;

const CONFIG: &str = "config.json";
/// Longest `config.json` and the like, and longest tokenizer and chat template, in bytes.
const MAX_CONFIG: u64 = 1 << 20;
const MAX_TOKENIZER: u64 = 64 << 20;
/// Most tokens of context that a model may have here; more in a file are not used.
const MAX_CONTEXT: usize = 65_536;

/// How a folder stores matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stored {
    /// Codes, four rows in a byte, and a scale.
    Packed { divides: bool },
    /// What was trained, to be rounded.
    Masters,
    /// What a layer multiplies by.
    Dense,
}

/// What a folder holds, without its values.
pub struct Folder {
    /// What the model is.
    pub config: ModelConfig,
    /// Rows of the embedding.
    pub vocab: usize,
    /// The name of its architecture, and how its matrices are stored, for people.
    pub what: String,
    stored: Stored,
    json: Json,
    shards: Shards,
}

/// Whether this is such a folder.
pub fn is_folder(path: &Path) -> bool {
    path.join(CONFIG).is_file()
}

/// Reads a folder whose name is `path`.
pub(super) fn open(path: &Path) -> Result<ModelFile> {
    let folder = Folder::open(path)?;
    let wrong = |what: String| Error::invalid(path, what);
    let weights = folder.config.weights(folder.vocab);
    let places = weights.iter().map(|weight| folder.place(weight)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    // A matrix of f32 values is read whole before it is rounded.
    let bytes = |all: usize, place: &&Place| all.saturating_add(place.bytes as usize);
    let largest = places.iter().map(|place| 4 * place.bytes as usize).max().unwrap_or(0);
    memory::check(places.iter().fold(largest, bytes), memory::free(), "use a smaller model")?;
    let text = text(path, &folder.json, folder.vocab)?;
    let tensor = |(weight, place): (&Weight, &&Place)| {
        let data = folder.data(weight, place)?.map_err(|what| wrong(format!("tensor {:?}: {what}", place.name)))?;
        Ok(Tensor::new(weight, data))
    };
    let tensors = weights.iter().zip(&places).map(tensor).collect::<Result<Vec<_>>>()?;
    Ok(ModelFile { config: folder.config, vocab: folder.vocab, tensors, text })
}

impl Folder {
    /// Reads what a folder says of its model, and where its tensors are.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Invalid`] names the file and the key or tensor that is wrong, or that is not honoured here.
    pub fn open(path: &Path) -> Result<Folder> {
        let file = path.join(CONFIG);
        let json = read_json(&file)?;
        let shards = Shards::open(path)?;
        let (mut config, vocab, stored, what) = model(&json, &shards).map_err(|what| Error::invalid(&file, what))?;
        if config.embeddings == Embeddings::F32 && are_halves(&shards)? {
            config.embeddings = Embeddings::F16;
        }
        config.check().map_err(|e| Error::invalid(&file, format!("its keys make no model: {e}")))?;
        let folder = Folder { config, vocab, what, stored, json, shards };
        folder.check_names().map_err(|what| Error::invalid(path, what))?;
        Ok(folder)
    }

    /// Every tensor: its name, type and shape.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, String, &[usize])> {
        self.shards.places().map(|place| (&place.name[..], format!("{:?}", place.kind), &place.shape[..]))
    }

    /// Refuses tensors that the model does not have.
    fn check_names(&self) -> Result<(), String> {
        let weights = self.config.weights(self.vocab);
        let known: Vec<String> = weights.iter().flat_map(|weight| names(&weight.name)).collect();
        let spare = |name: &str| {
            let packed = matches!(self.stored, Stored::Packed { .. });
            let own = name.strip_suffix("_scale").filter(|_| packed).unwrap_or(name);
            // Some files have a copy of a tied head, and all old ones the frequencies of rotary positions.
            let tied = self.config.tie_embeddings && own == "lm_head.weight";
            known.iter().any(|k| k == own) || tied || own.ends_with(".rotary_emb.inv_freq")
        };
        match self.shards.places().map(|place| &place.name).find(|name| !spare(name)) {
            Some(name) => Err(format!("tensor {name:?} is unknown to the architecture")),
            None => Ok(()),
        }
    }

    /// Where a weight is, its shape and type checked.
    fn place(&self, weight: &Weight) -> Result<&Place, String> {
        let names = names(&weight.name);
        let place = names.iter().find_map(|name| self.shards.get(name));
        let place = place.ok_or_else(|| format!("tensor {:?} is missing", names[0]))?;
        let packed = matches!((weight.form, self.stored), (Form::Ternary { .. }, Stored::Packed { .. }));
        let mut want = weight.shape.clone();
        if packed {
            if !want[0].is_multiple_of(4) {
                return Err(format!("tensor {:?} has {} rows: packed are multiples of 4", place.name, want[0]));
            }
            want[0] /= 4;
        }
        if place.shape != want || packed != place.is_bytes() {
            let (kind, shape) = (&place.kind, &place.shape);
            let needs = if packed { "packed codes" } else { "floats" };
            return Err(format!("tensor {:?} is {kind:?} {shape:?}: the model needs {needs} {want:?}", place.name));
        }
        Ok(place)
    }

    /// The values of a weight. The inner error says what is wrong with them.
    fn data(&self, weight: &Weight, place: &Place) -> Result<Result<TensorData, String>> {
        let Form::Ternary { group, .. } = weight.form else {
            let values = self.shards.floats(place)?;
            return Ok(values.and_then(|values| match weight.form {
                Form::F32 => Ok(TensorData::F32(values)),
                _ => shards::halves(&values).map(TensorData::F16),
            }));
        };
        let (outs, dim) = weight.matrix();
        if self.stored == Stored::Masters {
            let values = self.shards.floats(place)?;
            return Ok(values.map(|values| TensorData::Ternary(round(&values, outs, dim, group))));
        }
        let bytes = self.shards.bytes(place)?;
        let scale = match self.scale(place)? {
            Ok(scale) => scale,
            Err(what) => return Ok(Err(what)),
        };
        if let Some(at) = bytes.iter().position(|b| b & b >> 1 & 0x55 != 0) {
            return Ok(Err(format!("byte {at} is {:#04x}, which holds an invalid trit", bytes[at])));
        }
        let quarter = outs / 4;
        let code = |row: usize, col: usize| bytes[row % quarter * dim + col] >> (row / quarter * 2) & 3;
        Ok(Ok(TensorData::Ternary(Ternary::from_codes((outs, dim), group, scale, code))))
    }

    /// By what a packed matrix is to be multiplied.
    fn scale(&self, place: &Place) -> Result<Result<f32, String>> {
        let Some(scale) = self.shards.get(&format!("{}_scale", place.name)) else {
            return Ok(Err("its scale is missing".into()));
        };
        if scale.shape.iter().product::<usize>() != 1 {
            return Ok(Err(format!("its scale has shape {:?}: one value is possible", scale.shape)));
        }
        Ok(self.shards.floats(scale)?.and_then(|values| {
            let given = values[0];
            let scale = if self.stored == (Stored::Packed { divides: true }) { 1.0 / given } else { given };
            if scale.is_finite() && scale > 0.0 { Ok(scale) } else { Err(format!("its scale is {given}")) }
        }))
    }
}

/// Rounds what was trained, as BitNet b1.58 does in every forward pass (Ma et al. 2024): the scale is the mean magnitude.
fn round(values: &[f32], outs: usize, dim: usize, group: usize) -> Ternary {
    let inverse = 1.0 / mean::magnitude(values).max(1e-5);
    let code = |row: usize, col: usize| {
        ((values[row * dim + col] * inverse).round_ties_even().clamp(-1.0, 1.0) as i8 + 1).cast_unsigned()
    };
    Ternary::from_codes((outs, dim), group, 1.0 / inverse, code)
}

/// The names that files have for a weight of a model.
fn names(weight: &str) -> Vec<String> {
    let Some((layer, part)) = weight.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else {
        let name = match weight {
            "embed.weight" => "model.embed_tokens.weight",
            "norm.weight" => "model.norm.weight",
            _ => "lm_head.weight",
        };
        return vec![name.to_string()];
    };
    let (part, _) = part.rsplit_once('.').expect("a weight of a layer has a kind");
    let parts: &[&str] = match part {
        "attn.norm" => &["input_layernorm"],
        "attn.sub_norm" => &["self_attn.attn_sub_norm", "self_attn.inner_attn_ln"],
        "ffn.norm" => &["post_attention_layernorm"],
        "ffn.sub_norm" => &["mlp.ffn_sub_norm", "mlp.ffn_layernorm"],
        _ => {
            let (sub, name) = part.split_once('.').expect("a mixer or feed-forward and its part");
            let sub = if sub == "attn" { "self_attn" } else { "mlp" };
            return vec![format!("model.layers.{layer}.{sub}.{name}_proj.weight")];
        }
    };
    parts.iter().map(|part| format!("model.layers.{layer}.{part}.weight")).collect()
}

fn read_json(path: &Path) -> Result<Json> {
    let bytes = files::read(path, Links::Follow, MAX_CONFIG)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::invalid(path, e.to_string()))
}

/// Whether f16 holds all values of tables exactly: a packed folder may have f32 ones only because its scales are.
fn are_halves(shards: &Shards) -> Result<bool> {
    for place in ["embed.weight", "head.weight"].iter().filter_map(|table| shards.get(&names(table)[0])) {
        let exact = |v: &f32| f16::from_f32(*v).to_f32() == *v;
        if !shards.floats(place)?.is_ok_and(|values| values.iter().all(exact)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The configuration, the rows of the embedding, how matrices are stored, and what the model is in words. The error names the key.
fn model(json: &Json, shards: &Shards) -> Result<(ModelConfig, usize, Stored, String), String> {
    let wrong = |key: &str, must: &str| format!("{key:?} is {}: it must be {must}", json[key]);
    let size = |key: &str| match json[key].as_u64().and_then(|n| usize::try_from(n).ok()) {
        Some(n) => Ok(n),
        None => Err(wrong(key, "a size")),
    };
    let or = |key: &str, default: usize| if json[key].is_null() { Ok(default) } else { size(key) };
    let architecture = json["architectures"][0].as_str().unwrap_or("none");
    let known = ["LlamaForCausalLM", "BitNetForCausalLM", "BitnetForCausalLM"];
    if !known.contains(&architecture) {
        return Err(format!("\"architectures\" is {architecture:?}: it must be {}", known.join(" or ")));
    }
    let (stored, how) = stored(json, architecture)?;
    let activation = match json["hidden_act"].as_str() {
        Some("silu") | None => Activation::Silu,
        Some("relu2") => Activation::Relu2,
        _ => return Err(wrong("hidden_act", "\"silu\" or \"relu2\"")),
    };
    for key in ["attention_bias", "mlp_bias"] {
        if json[key] == true {
            return Err(wrong(key, "false, since layers have no bias here"));
        }
    }
    let rope = &json["rope_parameters"];
    let rope_scaling = match scaling(&json["rope_scaling"])? {
        Some(scaling) => Some(scaling),
        None => scaling(rope)?,
    };
    let theta = rope["rope_theta"].as_f64().or(json["rope_theta"].as_f64()).unwrap_or(10_000.0);
    let Some(eps) = json["rms_norm_eps"].as_f64() else { return Err(wrong("rms_norm_eps", "a number")) };
    let (dim, heads, vocab) = (size("hidden_size")?, size("num_attention_heads")?, size("vocab_size")?);
    if !(1..=super::MAX_VOCAB).contains(&vocab) {
        return Err(wrong("vocab_size", "between 1 and 16777216"));
    }
    let has = |weight: &str| names(weight).iter().any(|name| shards.get(name).is_some());
    let tie_embeddings = match json["tie_word_embeddings"].as_bool() {
        Some(tied) => tied,
        None => !has("head.weight"),
    };
    let head = json["head_dim"].as_u64().map(|head| head as usize);
    let wide = shards.get(&names("embed.weight")[0]).is_some_and(Place::is_f32);
    let config = ModelConfig {
        dim,
        layers: size("num_hidden_layers")?,
        heads,
        kv_heads: or("num_key_value_heads", heads)?,
        head_dim: head.filter(|head| head.checked_mul(heads) != Some(dim)),
        ffn: size("intermediate_size")?,
        seq_len: or("max_position_embeddings", MAX_CONTEXT)?.min(MAX_CONTEXT),
        scales: Scales::Tensor,
        activation,
        sub_norm: has("layers.0.attn.sub_norm.weight"),
        tie_embeddings,
        quantize: if stored == Stored::Dense { Quantize::F16 } else { Quantize::Ternary },
        embeddings: if wide { Embeddings::F32 } else { Embeddings::F16 },
        rope_theta: theta,
        rope_scaling,
        norm_eps: eps as f32,
        ..ModelConfig::default()
    };
    Ok((config, vocab, stored, format!("{architecture}, {how}")))
}

/// How rotary frequencies are scaled.
fn scaling(rope: &Json) -> Result<Option<RopeScaling>, String> {
    let number = |key: &str| {
        let number = rope[key].as_f64();
        number.ok_or_else(|| format!("{key:?} of the rotary positions is {}: it must be a number", rope[key]))
    };
    match rope["rope_type"].as_str().or(rope["type"].as_str()) {
        None | Some("default") => Ok(None),
        Some("linear") => Ok(Some(RopeScaling::Linear { factor: number("factor")? })),
        Some("llama3") => Ok(Some(RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_context: number("original_max_position_embeddings")?,
        })),
        Some(kind) => Err(format!("the rotary positions are scaled by {kind:?}: this program does not honour it")),
    }
}

/// How matrices are stored, also in words.
fn stored(json: &Json, architecture: &str) -> Result<(Stored, &'static str), String> {
    let quantization = &json["quantization_config"];
    let get = |key: &str| quantization[key].as_str();
    let refused = |key: &str| {
        Err(format!("\"quantization_config\" has {key:?} {}: this program does not honour it", quantization[key]))
    };
    if quantization.is_null() {
        return Ok(match architecture {
            "BitnetForCausalLM" => (Stored::Masters, "trained values that are rounded to ternary ones"),
            _ => (Stored::Dense, "dense"),
        });
    }
    if get("quant_method") != Some("bitnet") {
        return refused("quant_method");
    }
    if quantization["use_rms_norm"] == true {
        return refused("use_rms_norm");
    }
    let others = quantization["modules_to_not_convert"].as_array().into_iter().flatten();
    if others.into_iter().any(|module| module != "lm_head") {
        return refused("modules_to_not_convert");
    }
    match (get("linear_class"), get("quantization_mode")) {
        (None | Some("bitlinear"), None | Some("offline")) => {
            Ok((Stored::Packed { divides: true }, "packed ternary, divided by its scale"))
        }
        (Some("autobitlinear"), Some("offline")) => {
            Ok((Stored::Packed { divides: false }, "packed ternary, multiplied by its scale"))
        }
        (Some("autobitlinear"), None | Some("online")) => {
            Ok((Stored::Masters, "trained values that are rounded to ternary ones"))
        }
        (Some("autobitlinear" | "bitlinear") | None, _) => refused("quantization_mode"),
        _ => refused("linear_class"),
    }
}

/// How a folder spells ids, for an embedding of `vocab` rows.
fn text(path: &Path, json: &Json, vocab: usize) -> Result<TextConfig> {
    let optional = |name: &str| match path.join(name) {
        file if file.is_file() => read_json(&file),
        _ => Ok(Json::Null),
    };
    let (generation, tokenizer) = (optional("generation_config.json")?, optional("tokenizer_config.json")?);
    let read = |name: &str| {
        let file = path.join(name);
        if !file.is_file() {
            return Ok(None);
        }
        files::read(&file, Links::Follow, MAX_TOKENIZER).map(Some)
    };
    let utf8 = |name: &str, bytes: Vec<u8>| {
        String::from_utf8(bytes).map_err(|_| Error::invalid(&path.join(name), "is not UTF-8"))
    };
    let (mut tokenizer_json, mut no_tokenizer) = (None, None);
    if let Some(bytes) = read("tokenizer.json")? {
        tokenizer_json = Some(utf8("tokenizer.json", bytes)?);
    } else if let Some(bytes) = read("tokenizer.model")? {
        match pieces::to_json(&bytes) {
            Ok(json) => tokenizer_json = Some(json),
            Err(why) => no_tokenizer = Some(format!("tokenizer.model: {why}")),
        }
    }
    let template = match &tokenizer["chat_template"] {
        Json::String(template) => Some(template.clone()),
        Json::Array(list) => {
            let default = list.iter().find(|template| template["name"] == "default");
            default.and_then(|template| template["template"].as_str().map(String::from))
        }
        _ => None,
    };
    let template = match template {
        Some(template) => Some(template),
        None => read("chat_template.jinja")?.map(|bytes| utf8("chat_template.jinja", bytes)).transpose()?,
    };
    let ids = |key: &str| {
        let of = |json: &Json| match &json[key] {
            Json::Array(list) => list.clone(),
            one => vec![one.clone()],
        };
        let ids = [&generation, json].map(of).concat();
        let mut ids: Vec<u32> = ids.iter().filter_map(|id| id.as_u64()?.try_into().ok()).collect();
        let mut seen = std::collections::BTreeSet::new();
        ids.retain(|id| seen.insert(*id));
        ids
    };
    let implied = gguf::implied_start(tokenizer_json.as_deref());
    let (bos, stop) = (implied.or(ids("bos_token_id").first().copied()), ids("eos_token_id"));
    let text = TextConfig {
        add_bos: tokenizer["add_bos_token"].as_bool().unwrap_or(implied.is_some()) && bos.is_some(),
        add_eos: tokenizer["add_eos_token"] == true,
        tokenizer_json,
        no_tokenizer,
        bos,
        eos: stop.first().copied(),
        unk: ids("unk_token_id").first().copied(),
        pad: ids("pad_token_id").first().copied(),
        stop,
        chat_template: template,
    };
    text.check(vocab).map_err(|what| Error::invalid(path, what))?;
    Ok(text)
}

/// Whether a matrix has at most three values, 0 and one with both signs: it is ternary, whatever it is stored as.
#[must_use]
pub(super) fn is_three_valued(values: &[f32]) -> bool {
    let magnitude = values.iter().map(|v| v.abs()).find(|v| *v != 0.0).unwrap_or(0.0);
    values.iter().all(|v| *v == 0.0 || v.abs() == magnitude)
}

impl Folder {
    /// How many of the dense matrices of layers have at most three values, and how many there are: a ternary model may be stored so.
    ///
    /// # Errors
    /// When a file cannot be read or a value is not finite.
    pub fn three_valued(&self) -> Result<(usize, usize)> {
        let (mut found, mut all) = (0, 0);
        if self.stored == Stored::Dense {
            for weight in self.config.weights(self.vocab).iter().filter(|weight| weight.role == Role::Matrix) {
                let place = self.place(weight).map_err(Error::Model)?;
                let values = self.shards.floats(place)?.map_err(Error::Model)?;
                found += usize::from(is_three_valued(&values));
                all += 1;
            }
        }
        Ok((found, all))
    }
}
