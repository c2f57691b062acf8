//! Folders as Hugging Face has them: `config.json`, one or more files of tensors, a tokenizer.
//!
//! A matrix of a ternary model is stored in one of these ways, which `quantization_config` names:
//! - `bitnet` with the linear class `bitlinear` (the default): packed codes and a scale by which a code is *divided*,
//! - `autobitlinear`, `offline`: packed codes and a scale by which a code is *multiplied*,
//! - `autobitlinear`, `online`, and 1bitLLM's own architecture: the trained values, whose mean magnitude is the scale,
//! - none: dense values, and layers see their inputs as they are (TriLM).
//!
//! Tables and dense matrices of bf16 values become f16 ones; of those below 2^-17 the error is at most 2^-25.

mod config;
mod mean;
mod pieces;
mod shards;
mod write;

pub use write::Matrices;
pub(super) use write::save;

use super::{ModelFile, Parameters, Tensor, TensorData, Ternary, TextConfig, gguf};
use crate::checkpoint::Array;
use crate::files::{self, Links};
use crate::memory;
use crate::model::{Embeddings, Form, ModelConfig, Role, Weight};
use crate::{Error, Result};
use config::Stored;
use half::f16;
use serde_json::Value as Json;
use shards::{Place, Shards};
use std::path::Path;

const CONFIG: &str = "config.json";
/// Longest `config.json` and the like, and longest tokenizer and chat template, in bytes.
const MAX_CONFIG: u64 = 1 << 20;
const MAX_TOKENIZER: u64 = 64 << 20;

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

/// Reads the folder `path`.
pub(super) fn open(path: &Path) -> Result<ModelFile> {
    let read = |folder: &Folder, weight: &Weight, place: &Place| {
        Ok(folder.data(weight, place)?.map(|data| Tensor::new(weight, data)))
    };
    let (folder, text, tensors) = read_with(path, read)?;
    Ok(ModelFile { config: folder.config, vocab: folder.vocab, tensors, text })
}

/// Reads the folder `path` to train its model further.
pub(super) fn parameters(path: &Path) -> Result<Parameters> {
    let read = |folder: &Folder, weight: &Weight, place: &Place| {
        let values = match folder.stored {
            Stored::Packed { .. } => folder.data(weight, place)?.map(|data| super::parameters::values(&data)),
            Stored::Masters | Stored::Dense => folder.shards.floats(place)?,
        };
        Ok(values.map(|values| Array::f32(weight.name.clone(), weight.shape.clone(), values)))
    };
    let (folder, text, weights) = read_with(path, read)?;
    Ok(Parameters { config: folder.config, vocab: folder.vocab, text, weights })
}

/// Reads the folder `path`, each weight by `read`, whose inner error says what is wrong with the values.
fn read_with<T>(
    path: &Path,
    read: impl Fn(&Folder, &Weight, &Place) -> Result<Result<T, String>>,
) -> Result<(Folder, TextConfig, Vec<T>)> {
    let folder = Folder::open(path)?;
    let wrong = |what: String| Error::invalid(path, what);
    let weights = folder.config.weights(folder.vocab);
    let places = weights.iter().map(|weight| folder.place(weight)).collect::<Result<Vec<_>, _>>().map_err(wrong)?;
    // A matrix of f32 values is read whole before it is rounded.
    let bytes = |all: usize, place: &&Place| all.saturating_add(place.bytes as usize);
    let largest = places.iter().map(|place| 4 * place.bytes as usize).max().unwrap_or(0);
    memory::check(places.iter().fold(largest, bytes), memory::free(), "use a smaller model")?;
    let text = text(path, &folder.json, folder.vocab)?;
    let one = |(weight, place): (&Weight, &&Place)| {
        read(&folder, weight, place)?.map_err(|what| wrong(format!("tensor {:?}: {what}", place.name)))
    };
    let all = weights.iter().zip(&places).map(one).collect::<Result<Vec<_>>>()?;
    Ok((folder, text, all))
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
        let (mut config, vocab, stored, what) =
            config::model(&json, &shards).map_err(|what| Error::invalid(&file, what))?;
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
            // Those that multiply a product by its scale do so after its bias was added.
            let after = self.stored == (Stored::Packed { divides: false }) && weight.name.ends_with(".bias");
            let scale = match after.then(|| self.scale(&place.name.replace(".bias", ".weight"))).transpose()? {
                Some(Err(what)) => return Ok(Err(what)),
                scale => scale.map_or(1.0, Result::unwrap_or_default),
            };
            let values = self.shards.floats(place)?;
            return Ok(values.and_then(|mut values| match weight.form {
                Form::F32 if after => {
                    values.iter_mut().for_each(|value| *value *= scale);
                    Ok(TensorData::F32(values))
                }
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
        let scale = match self.scale(&place.name)? {
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

    /// By what the packed matrix of this name is to be multiplied.
    fn scale(&self, name: &str) -> Result<Result<f32, String>> {
        let Some(scale) = self.shards.get(&format!("{name}_scale")) else {
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
    let (part, kind) = part.rsplit_once('.').expect("a weight of a layer has a kind");
    let parts: &[&str] = match part {
        "attn.norm" => &["input_layernorm"],
        "attn.sub_norm" => &["self_attn.attn_sub_norm", "self_attn.inner_attn_ln"],
        "attn.q_norm" => &["self_attn.q_norm"],
        "attn.k_norm" => &["self_attn.k_norm"],
        "ffn.norm" => &["post_attention_layernorm"],
        "ffn.sub_norm" => &["mlp.ffn_sub_norm", "mlp.ffn_layernorm"],
        _ => {
            let (sub, name) = part.split_once('.').expect("a mixer or feed-forward and its part");
            let sub = if sub == "attn" { "self_attn" } else { "mlp" };
            return vec![format!("model.layers.{layer}.{sub}.{name}_proj.{kind}")];
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
