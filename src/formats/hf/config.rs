//! What `config.json` says of a model. A key that would change what is computed is honoured or refused by its name.

use super::super::MAX_VOCAB;
use super::super::gguf::short;
use super::names;
use super::shards::{Place, Shards};
use crate::model::{Embeddings, ModelConfig, Quantize, RopeScaling, Scales};
use crate::ops::Activation;
use serde_json::Value as Json;

/// Most tokens of context that a model may have here; more in a file are not used.
const MAX_CONTEXT: usize = 65_536;

/// How a folder stores matrices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Stored {
    /// Codes, four rows in a byte, and a scale.
    Packed { divides: bool },
    /// What was trained, to be rounded.
    Masters,
    /// What a layer multiplies by.
    Dense,
}

/// An architecture, and what it has where its files do not say.
struct Family {
    name: &'static str,
    /// What its files have as `model_type`.
    kinds: &'static [&'static str],
    activation: Activation,
    rope_theta: f64,
    head_dim: Option<usize>,
    qk_norm: bool,
    /// The matrices of attention that have a bias whatever a file says.
    biases: &'static [&'static str],
    /// Whether dense matrices are trained values that are rounded.
    rounds: bool,
    /// Keys of its own. What they say is read, or says nothing of what is computed.
    keys: &'static [&'static str],
}

/// What most of them have.
const LLAMA: Family = Family {
    name: "LlamaForCausalLM",
    kinds: &["llama"],
    activation: Activation::Silu,
    rope_theta: 10_000.0,
    head_dim: None,
    qk_norm: false,
    biases: &[],
    rounds: false,
    keys: &["attention_bias", "mlp_bias", "pretraining_tp"],
};

const FAMILIES: [Family; 5] = [
    LLAMA,
    Family {
        name: "BitNetForCausalLM",
        kinds: &["bitnet"],
        activation: Activation::Relu2,
        rope_theta: 500_000.0,
        keys: &["attention_bias"],
        ..LLAMA
    },
    // 1bitLLM's own.
    Family {
        name: "BitnetForCausalLM",
        kinds: &["llama", "bitnet"],
        rounds: true,
        keys: &["attention_bias", "input_bits", "weight_bits", "pretraining_tp"],
        ..LLAMA
    },
    // The window counts with `use_sliding_window` alone, which is not honoured.
    Family {
        name: "Qwen2ForCausalLM",
        kinds: &["qwen2"],
        biases: &["q", "k", "v"],
        keys: &["sliding_window", "max_window_layers"],
        ..LLAMA
    },
    Family {
        name: "Qwen3ForCausalLM",
        kinds: &["qwen3"],
        head_dim: Some(128),
        qk_norm: true,
        keys: &["attention_bias", "sliding_window", "max_window_layers"],
        ..LLAMA
    },
];

/// Keys of every architecture that are read.
const READ: [&str; 22] = [
    "architectures",
    "bos_token_id",
    "eos_token_id",
    "head_dim",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "layer_types",
    "max_position_embeddings",
    "model_type",
    "num_attention_heads",
    "num_hidden_layers",
    "num_key_value_heads",
    "pad_token_id",
    "quantization_config",
    "rms_norm_eps",
    "rope_parameters",
    "rope_scaling",
    "rope_theta",
    "tie_word_embeddings",
    "unk_token_id",
    "vocab_size",
];
/// Keys that say nothing of what is computed, besides those that begin with `_`.
const SILENT: [&str; 10] = [
    "attention_dropout",
    "auto_map",
    "dtype",
    "initializer_range",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

/// The first key that is in none of the lists and that is neither null nor false, which switch nothing on.
fn unread<'a>(json: &'a Json, lists: &[&[&str]]) -> Option<&'a str> {
    let off = |value: &Json| value.is_null() || *value == false;
    let known = |key: &str| key.starts_with('_') || lists.iter().any(|list| list.contains(&key));
    json.as_object()?.iter().find(|(key, value)| !known(key) && !off(value)).map(|(key, _)| &key[..])
}

/// The configuration, the rows of the embedding, how matrices are stored, and what the model is in words. The error names the key.
pub(super) fn model(json: &Json, shards: &Shards) -> Result<(ModelConfig, usize, Stored, String), String> {
    let wrong = |key: &str, must: &str| {
        let value = json[key].to_string();
        format!("{key:?} is {}: it must be {must}", short(&value))
    };
    let size = |key: &str| match json[key].as_u64().and_then(|n| usize::try_from(n).ok()) {
        Some(n) => Ok(n),
        None => Err(wrong(key, "a size")),
    };
    let or = |key: &str, default: usize| if json[key].is_null() { Ok(default) } else { size(key) };
    let flag = |key: &str| match &json[key] {
        Json::Null => Ok(false),
        value => value.as_bool().ok_or_else(|| wrong(key, "true or false")),
    };
    let architecture = json["architectures"][0].as_str().unwrap_or("none");
    let family = FAMILIES.iter().find(|family| family.name == architecture).ok_or_else(|| {
        let known = FAMILIES.each_ref().map(|family| family.name);
        format!("\"architectures\" is {architecture:?}: it must be {}", known.join(" or "))
    })?;
    if !json["model_type"].is_null() && !family.kinds.iter().any(|kind| json["model_type"] == *kind) {
        return Err(wrong("model_type", &format!("{:?} in files of {architecture}", family.kinds[0])));
    }
    if let Some(key) = unread(json, &[&READ, &SILENT, family.keys]) {
        let (value, key) = (json[key].to_string(), short(key));
        return Err(format!("{key:?} is {}: this program does not honour it", short(&value)));
    }
    for (key, bits) in [("input_bits", 8), ("weight_bits", 1)] {
        if !json[key].is_null() && json[key] != bits {
            return Err(wrong(key, &bits.to_string()));
        }
    }
    if json["layer_types"].as_array().is_some_and(|types| types.iter().any(|kind| kind != "full_attention")) {
        return Err(wrong("layer_types", "\"full_attention\" for every layer"));
    }
    let (stored, how) = stored(json, family)?;
    let activation = match json["hidden_act"].as_str() {
        None if json["hidden_act"].is_null() => family.activation,
        Some("silu") => Activation::Silu,
        Some("relu2") => Activation::Relu2,
        _ => return Err(wrong("hidden_act", "\"silu\" or \"relu2\"")),
    };
    let attention: &[&str] = if flag("attention_bias")? { &["q", "k", "v", "o"] } else { family.biases };
    let gated: &[&str] = if flag("mlp_bias")? { &["gate", "up", "down"] } else { &[] };
    let biases = [("attn", attention), ("ffn", gated)];
    let biases = biases.into_iter().flat_map(|(sub, parts)| parts.iter().map(move |part| format!("{sub}.{part}")));
    let rope = &json["rope_parameters"];
    let rope_scaling = match scaling(&json["rope_scaling"])? {
        Some(scaling) => Some(scaling),
        None => scaling(rope)?,
    };
    let theta = match [&rope["rope_theta"], &json["rope_theta"]].into_iter().find(|theta| !theta.is_null()) {
        Some(theta) => theta.as_f64().ok_or_else(|| wrong("rope_theta", "a number"))?,
        None => family.rope_theta,
    };
    let Some(eps) = json["rms_norm_eps"].as_f64() else { return Err(wrong("rms_norm_eps", "a number")) };
    let (dim, heads, vocab) = (size("hidden_size")?, size("num_attention_heads")?, size("vocab_size")?);
    if !(1..=MAX_VOCAB).contains(&vocab) {
        return Err(wrong("vocab_size", "between 1 and 16777216"));
    }
    let has = |weight: &str| names(weight).iter().any(|name| shards.get(name).is_some());
    let tie_embeddings = match &json["tie_word_embeddings"] {
        Json::Null => !has("head.weight"),
        _ => flag("tie_word_embeddings")?,
    };
    let head = match &json["head_dim"] {
        Json::Null => family.head_dim,
        _ => Some(size("head_dim")?),
    };
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
        qk_norm: family.qk_norm,
        biases: biases.collect(),
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

/// The tokens of the first context.
const CONTEXT: &str = "original_max_position_embeddings";
/// The numbers of YaRN.
const YARN: [&str; 8] =
    ["factor", CONTEXT, "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate"];

/// How rotary frequencies are scaled.
fn scaling(rope: &Json) -> Result<Option<RopeScaling>, String> {
    let refused = |key: &str, what: &str| {
        let value = rope[key].to_string();
        format!("{:?} of the rotary positions is {}: {what}", short(key), short(&value))
    };
    let optional = |key: &str| match &rope[key] {
        Json::Null => Ok(None),
        value => value.as_f64().map(Some).ok_or_else(|| refused(key, "it must be a number")),
    };
    let number = |key: &str| optional(key)?.ok_or_else(|| refused(key, "it must be a number"));
    let (scaling, own): (_, &[&str]) = match rope["rope_type"].as_str().or(rope["type"].as_str()) {
        None | Some("default") => (None, &[]),
        Some("linear") => (Some(RopeScaling::Linear { factor: number("factor")? }), &["factor"]),
        Some("llama3") => {
            let scaling = RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_context: number(CONTEXT)?,
            };
            (Some(scaling), &["factor", "low_freq_factor", "high_freq_factor", CONTEXT])
        }
        Some("yarn") => {
            let factor = number("factor")?;
            // Two factors of the recommended one's logarithm, of which 0 is none.
            let [mscale, all] = ["mscale", "mscale_all_dim"].map(optional);
            let recommended = match [mscale?, all?] {
                [Some(mscale), Some(all)] if mscale != 0.0 && all != 0.0 => {
                    let of = |by: f64| 1.0 + by * (RopeScaling::recommended(factor) - 1.0);
                    of(mscale) / of(all)
                }
                _ => RopeScaling::recommended(factor),
            };
            let scaling = RopeScaling::Yarn {
                factor,
                beta_fast: optional("beta_fast")?.filter(|beta| *beta != 0.0).unwrap_or(32.0),
                beta_slow: optional("beta_slow")?.filter(|beta| *beta != 0.0).unwrap_or(1.0),
                original_context: number(CONTEXT)?,
                attention_factor: optional("attention_factor")?.unwrap_or(recommended),
            };
            if rope["truncate"] == false {
                return Err(refused("truncate", "this program does not honour it"));
            }
            (Some(scaling), &YARN)
        }
        Some(kind) => {
            return Err(format!("the rotary positions are scaled by {kind:?}: this program does not honour it"));
        }
    };
    match unread(rope, &[&["rope_type", "type", "rope_theta"], own]) {
        Some(key) => Err(refused(key, "this program does not honour it")),
        None => Ok(scaling),
    }
}

/// How matrices are stored, also in words.
fn stored(json: &Json, family: &Family) -> Result<(Stored, &'static str), String> {
    let quantization = &json["quantization_config"];
    let get = |key: &str| quantization[key].as_str();
    let refused = |key: &str| {
        let value = quantization[key].to_string();
        Err(format!("\"quantization_config\" has {key:?} {}: this program does not honour it", short(&value)))
    };
    if quantization.is_null() {
        return Ok(match family.rounds {
            true => (Stored::Masters, "trained values that are rounded to ternary ones"),
            false => (Stored::Dense, "dense"),
        });
    }
    if get("quant_method") != Some("bitnet") {
        return refused("quant_method");
    }
    // The last says something with `use_rms_norm` alone, which is not in this list.
    let read = ["quant_method", "linear_class", "quantization_mode", "modules_to_not_convert", "rms_norm_eps"];
    if let Some(key) = unread(quantization, &[&read]) {
        return refused(key);
    }
    let others = quantization["modules_to_not_convert"].as_array().into_iter().flatten();
    if others.into_iter().any(|module| module != "lm_head") {
        return refused("modules_to_not_convert");
    }
    match (get("linear_class"), get("quantization_mode")) {
        (None | Some("bitlinear"), None | Some("offline")) => {
            Ok((Stored::Packed { divides: true }, "packed ternary, divided by its scale"))
        }
        (Some("autobitlinear"), None | Some("offline")) => {
            Ok((Stored::Packed { divides: false }, "packed ternary, multiplied by its scale"))
        }
        (Some("autobitlinear"), Some("online")) => {
            Ok((Stored::Masters, "trained values that are rounded to ternary ones"))
        }
        (Some("autobitlinear" | "bitlinear") | None, _) => refused("quantization_mode"),
        _ => refused("linear_class"),
    }
}
