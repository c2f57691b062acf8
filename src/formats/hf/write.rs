//! Writing a folder. Its model is `BitNetForCausalLM` where there are sub-norms, otherwise `LlamaForCausalLM`.
//!
//! Packed matrices are of the class `autobitlinear`, `offline`: a code is multiplied by the scale, which is then the same number as here.
//! The class `bitlinear` would divide by an inverse, which f32 does not hold exactly. transformers gives no other type to the numbers of
//! a packed model than they have in the file, so all have one type: the narrowest that changes none.

use super::super::{ModelFile, Tensor, TensorData, Ternary, TextConfig};
use super::{CONFIG, names};
use crate::files::{make_folder, write_within, write_within_with};
use crate::formats::gguf::implied_start;
use crate::model::{ModelConfig, Role};
use crate::ops::Activation;
use crate::tokenizer::{Tokenizer, parse_json};
use crate::{Error, Result};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;
use std::path::Path;

/// How a folder is to hold ternary matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrices {
    /// Codes, four rows in a byte, and a scale.
    Packed,
    /// The values, as bf16.
    Bf16,
}

/// A tensor of the file, whose bytes are made when they are written.
struct Piece<'a> {
    name: String,
    kind: Dtype,
    shape: Vec<usize>,
    bytes: Bytes<'a>,
}

type Bytes<'a> = Box<dyn Fn() -> Vec<u8> + 'a>;

/// Writes a folder, which must not exist. Returns the size of its files.
pub(in crate::formats) fn save(model: &ModelFile, path: &Path, matrices: Matrices) -> Result<u64> {
    check(model, matrices).map_err(Error::Usage)?;
    let floats = match matrices {
        Matrices::Packed => narrowest(model),
        Matrices::Bf16 => Dtype::BF16,
    };
    let pieces: Vec<Piece<'_>> = model.tensors.iter().flat_map(|tensor| pieces(tensor, matrices, floats)).collect();
    let mut files = vec![
        (CONFIG, config(model, matrices, floats)?.to_string()),
        ("generation_config.json", Json::Object(generation(&model.text)).to_string()),
    ];
    if let Some(tokenizer) = tokenizer(&model.text)? {
        files.push(("tokenizer.json", tokenizer));
        files.push(("tokenizer_config.json", tokenizer_config(model)?.to_string()));
    }
    let mut size = 0;
    make_folder(path, |folder| {
        for (name, text) in &files {
            write_within(&folder.join(name), text.as_bytes())?;
            size += text.len() as u64;
        }
        let header = header(&pieces);
        size += header.len() as u64;
        write_within_with(&folder.join(super::shards::ONE), |out| {
            out.write_all(&header)?;
            for piece in &pieces {
                let bytes = (piece.bytes)();
                assert_eq!(bytes.len(), piece.size(), "bytes of {}", piece.name);
                out.write_all(&bytes)?;
                size += bytes.len() as u64;
            }
            Ok(())
        })
    })?;
    Ok(size)
}

/// The narrowest type of floats that holds exactly all numbers of a model but the codes.
fn narrowest(model: &ModelFile) -> Dtype {
    let all = |keeps: fn(f32) -> bool| {
        model.tensors.iter().all(|tensor| match &tensor.data {
            TensorData::Ternary(t) => t.scales.iter().all(|scale| keeps(*scale)),
            other => other.values().all(keeps),
        })
    };
    match () {
        () if all(|v| bf16::from_f32(v).to_f32() == v) => Dtype::BF16,
        () if all(|v| f16::from_f32(v).to_f32() == v) => Dtype::F16,
        () => Dtype::F32,
    }
}

/// Refuses a model that a folder cannot hold. The error says why, and what holds it.
fn check(model: &ModelFile, matrices: Matrices) -> Result<(), String> {
    let c = &model.config;
    let refused = |why: String| Err(format!("a Hugging Face folder cannot hold the model, but a GGUF file can: {why}"));
    if let Some(what) = c.unknown_to_others() {
        return refused(format!("it has {what}, which transformers does not know"));
    }
    if c.sub_norm && c.attention_dim() != c.dim {
        let (heads, dim) = (c.attention_dim(), c.dim);
        return refused(format!("its heads have {heads} values together, in BitNetForCausalLM they have {dim}"));
    }
    for tensor in &model.tensors {
        let name = &tensor.name;
        match (&tensor.data, matrices) {
            (TensorData::Int8(_), _) => return refused(format!("{name} is q8_0, for which transformers has no type")),
            (TensorData::Ternary(t), Matrices::Packed) if t.scales[0] == 0.0 => {
                return refused(format!("the scale of {name} is 0"));
            }
            (TensorData::F32(_) | TensorData::F16(_), Matrices::Packed) if tensor.role == Role::Matrix => {
                let kind = tensor.data.kind();
                return Err(format!("hf-packed holds ternary matrices, and {name} is {kind}; hf-bf16 holds the model"));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The tensors of the file for one of the model. Where matrices are packed, all numbers but codes are of the type `floats`.
fn pieces(tensor: &Tensor, matrices: Matrices, floats: Dtype) -> Vec<Piece<'_>> {
    let name = names(&tensor.name).swap_remove(0);
    let kind = match &tensor.data {
        TensorData::Ternary(t) if matrices == Matrices::Packed => {
            let scale = Box::new(move || encode(t.scales.iter().copied(), floats));
            return vec![
                Piece { name: format!("{name}_scale"), kind: floats, shape: vec![1], bytes: scale },
                Piece { name, kind: Dtype::U8, shape: vec![t.outs / 4, t.dim], bytes: Box::new(|| pack(t)) },
            ];
        }
        _ if matrices == Matrices::Packed || tensor.role == Role::Matrix => floats,
        TensorData::F16(_) => Dtype::F16,
        _ => Dtype::F32,
    };
    let bytes = Box::new(move || encode(tensor.data.values(), kind));
    vec![Piece { name, kind, shape: tensor.shape.clone(), bytes }]
}

impl Piece<'_> {
    /// Its bytes.
    fn size(&self) -> usize {
        self.shape.iter().product::<usize>() * self.kind.bitsize() / 8
    }
}

fn encode(values: impl Iterator<Item = f32>, kind: Dtype) -> Vec<u8> {
    match kind {
        Dtype::BF16 => values.flat_map(|v| bf16::from_f32(v).to_le_bytes()).collect(),
        Dtype::F16 => values.flat_map(|v| f16::from_f32(v).to_le_bytes()).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    }
}

/// Four rows in a byte, a quarter of the matrix apart, the first in the low bits: 0, 1 and 2 are -1, 0 and 1.
fn pack(t: &Ternary) -> Vec<u8> {
    let quarter = t.outs / 4;
    let cell = |row: usize, col: usize| (t.code(row, col) + 1).cast_unsigned();
    let byte = |i: usize| (0..4).map(|k| cell(i / t.dim + k * quarter, i % t.dim) << (2 * k)).sum();
    (0..quarter * t.dim).map(byte).collect()
}

/// What a file of tensors begins with.
fn header(pieces: &[Piece<'_>]) -> Vec<u8> {
    let mut end = 0;
    let infos = pieces.iter().map(|piece| {
        let start = end;
        end += piece.size();
        let info = TensorInfo { dtype: piece.kind, shape: piece.shape.clone(), data_offsets: (start, end) };
        (piece.name.clone(), info)
    });
    // Readers need this key.
    let note = HashMap::from([("format".to_string(), "pt".to_string())]);
    let metadata = Metadata::new(Some(note), infos.collect()).expect("offsets were laid out in order");
    let mut json = serde_json::to_vec(&metadata).expect("strings and integers always serialise");
    json.resize(json.len().next_multiple_of(8), b' ');
    [&(json.len() as u64).to_le_bytes()[..], &json].concat()
}

/// `config.json`.
fn config(model: &ModelFile, matrices: Matrices, floats: Dtype) -> Result<Json> {
    let c = &model.config;
    let (architecture, family) =
        if c.sub_norm { ("BitNetForCausalLM", "bitnet") } else { ("LlamaForCausalLM", "llama") };
    let mut config = json!({
        "architectures": [architecture],
        "model_type": family,
        "hidden_size": c.dim,
        "intermediate_size": c.ffn,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim(),
        "vocab_size": model.vocab,
        "max_position_embeddings": c.seq_len,
        "hidden_act": match c.activation {
            Activation::Silu => "silu",
            Activation::Relu2 => "relu2",
        },
        // The decimal that was rounded to f32.
        "rms_norm_eps": c.norm_eps.to_string().parse::<f64>().expect("a number as text"),
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tie_embeddings,
        "attention_bias": false,
        "mlp_bias": false,
        "use_cache": true,
        "torch_dtype": match floats {
            Dtype::BF16 => "bfloat16",
            Dtype::F16 => "float16",
            _ => "float32",
        },
    });
    let fields = config.as_object_mut().expect("an object");
    fields.extend(generation(&model.text));
    fields.extend(rope_scaling(c)?.map(|scaling| ("rope_scaling".to_string(), scaling)));
    if matrices == Matrices::Packed {
        let packed = json!({"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"});
        fields.insert("quantization_config".into(), packed);
    }
    Ok(config)
}

/// How rotary frequencies are scaled, in the words of `config.json`.
fn rope_scaling(c: &ModelConfig) -> Result<Option<Json>> {
    let Some(scaling) = &c.rope_scaling else { return Ok(None) };
    let Ok(Json::Object(mut fields)) = serde_json::to_value(scaling) else { unreachable!("a scaling is an object") };
    let kind = fields.remove("type").expect("a scaling has a type");
    if !["linear", "llama3", "yarn"].iter().any(|known| kind == *known) {
        return Err(Error::usage(format!("a Hugging Face folder has no word for rotary positions scaled by {kind}")));
    }
    fields.insert("rope_type".into(), kind);
    if let Some(context) = fields.remove("original_context") {
        // It is a number of tokens there.
        fields.insert("original_max_position_embeddings".into(), json!(context.as_f64().unwrap_or(0.0) as u64));
    }
    Ok(Some(Json::Object(fields)))
}

/// The ids with a meaning.
fn generation(text: &TextConfig) -> Map<String, Json> {
    let ends = match (&text.stop[..], text.eos) {
        ([], None) => None,
        ([], Some(one)) | (&[one], _) => Some(json!(one)),
        (many, _) => Some(json!(many)),
    };
    let id = |id: Option<u32>| id.map(Json::from);
    let ids = [
        ("bos_token_id", id(text.bos)),
        ("eos_token_id", ends),
        ("pad_token_id", id(text.pad)),
        ("unk_token_id", id(text.unk)),
    ];
    ids.into_iter().filter_map(|(key, id)| Some((key.to_string(), id?))).collect()
}

/// `tokenizer.json`. Only its post-processor tells transformers whether a text begins with a token.
fn tokenizer(text: &TextConfig) -> Result<Option<String>> {
    let Some(own) = &text.tokenizer_json else { return Ok(None) };
    let start = text.prompt_start();
    if implied_start(Some(own)) == start {
        return Ok(Some(own.clone()));
    }
    let mut json = parse_json(own).map_err(Error::Usage)?;
    json["post_processor"] = match start {
        None => Json::Null,
        Some(id) => {
            let tokenizer = Tokenizer::from_json(own)?;
            let named = text.named(&tokenizer).into_iter().find(|(name, _)| *name == "bos_token");
            let (_, token) =
                named.ok_or_else(|| Error::usage(format!("the tokenizer has no token {id}, which starts texts")))?;
            let special = json!({"SpecialToken": {"id": token, "type_id": 0}});
            let text = |name: &str, kind: u32| json!({"Sequence": {"id": name, "type_id": kind}});
            json!({
                "type": "TemplateProcessing",
                "single": [special, text("A", 0)],
                "pair": [special, text("A", 0), text("B", 1)],
                "special_tokens": {token.clone(): {"id": token, "ids": [id], "tokens": [token]}},
            })
        }
    };
    Ok(Some(json.to_string()))
}

/// `tokenizer_config.json`.
fn tokenizer_config(model: &ModelFile) -> Result<Json> {
    let text = &model.text;
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": model.config.seq_len,
        "clean_up_tokenization_spaces": false,
        "add_bos_token": text.add_bos,
        "add_eos_token": text.add_eos,
    });
    let fields = config.as_object_mut().expect("an object");
    if let Some(tokenizer) = model.tokenizer()? {
        fields.extend(text.named(&tokenizer).into_iter().map(|(name, token)| (name.to_string(), token.into())));
    }
    fields.extend(text.chat_template.iter().map(|template| ("chat_template".to_string(), template.clone().into())));
    Ok(config)
}
