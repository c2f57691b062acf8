//! Files that hold a whole model. What is trained is what is served, bit for bit.
//!
//! A [`ModelFile`] is a model without its container: ternary weights as canonical packed codes and scales, tables as the
//! f16 values of the forward pass, norms and residual mixing as f32. Writing copies these values, and reading returns them.
//! No value is ever computed from a dequantised weight. Files may come from strangers: every reader validates before it
//! allocates, and names what is wrong.

mod arch;
#[cfg(feature = "native")]
mod checkpoint;
mod cursor;
pub mod gguf;
#[cfg(feature = "native")]
pub mod hf;
mod latent;
pub mod mhc;
#[cfg(feature = "native")]
mod parameters;
#[cfg(feature = "native")]
mod target;

pub use gguf::Format;
#[cfg(feature = "native")]
pub use {checkpoint::ReadFrom, parameters::Parameters, target::Target};

use crate::model::{Embeddings, ModelConfig, Quantize, Role, Scales, Weight};
use crate::ops::packed_row_bytes;
use crate::tokenizer::{ASSISTANT, END, SYSTEM, Tokenizer, USER};
use crate::{Error, Result};
use cpu_kernels::{Level, matrix::quantize};
use half::f16;
use half::slice::HalfFloatSliceExt;
#[cfg(feature = "native")]
use std::path::Path;

/// The chat format of the synthetic data and of the special tokens, as a jinja template.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] \
                                 + '<|end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}\
                                 {% endif %}";

pub(crate) use crate::tokenizer::MAX_VOCAB;

/// A model as it is served.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelFile {
    /// What the model is.
    pub config: ModelConfig,
    /// Rows of the embedding. Every token id is below it.
    pub vocab: usize,
    /// One tensor for each of [`ModelConfig::weights`], in that order.
    pub tensors: Vec<Tensor>,
    /// How ids are spelled.
    pub text: TextConfig,
}

/// How ids are spelled and where generation stops.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(feature = "native", derive(serde::Serialize, serde::Deserialize))]
pub struct TextConfig {
    /// The text of a `tokenizer.json`. None if the model was trained on ids without a tokenizer.
    #[cfg_attr(feature = "native", serde(skip))]
    pub tokenizer_json: Option<String>,
    /// The reason, if the file has a tokenizer of an unknown kind.
    pub no_tokenizer: Option<String>,
    /// The id that starts a document.
    pub bos: Option<u32>,
    /// The id that ends a document.
    pub eos: Option<u32>,
    /// The id that stands for text outside of the vocabulary.
    pub unk: Option<u32>,
    /// The id that fills what is no text.
    pub pad: Option<u32>,
    /// Whether every prompt begins with `bos`. No model of this program is trained so.
    pub add_bos: bool,
    /// Whether other programs end every text with `eos`. Here a text goes on, so it gets no end: the program says so.
    pub add_eos: bool,
    /// The ids at which generation stops.
    pub stop: Vec<u32>,
    /// The chat template, in Jinja.
    pub chat_template: Option<String>,
}

/// A named tensor, row-major.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// As in training, such as `layers.0.attn.q.weight`.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// As the weight's: a matrix is (outs, inputs).
    pub shape: Vec<usize>,
    /// Its values.
    pub data: TensorData,
}

impl Tensor {
    /// The values of a weight.
    pub fn new(weight: &Weight, data: TensorData) -> Tensor {
        Tensor { name: weight.name.clone(), role: weight.role, shape: weight.shape.clone(), data }
    }
}

/// The values of a tensor, in the form that the forward pass uses.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorData {
    /// f32 values.
    F32(Vec<f32>),
    /// f16 values.
    F16(Vec<f16>),
    /// A ternary matrix.
    Ternary(Ternary),
    /// An int8 table.
    Int8(Int8),
}

/// A table with a scale for every 32 consecutive values of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Int8 {
    /// (outs, dim): a value is scale * code.
    pub codes: Vec<i8>,
    /// (outs, dim / 32): f16 values.
    pub scales: Vec<f32>,
}

impl Int8 {
    /// Rounds finite values whose number is a multiple of 32. The largest of each 32 becomes +-127.
    pub fn quantize(values: &[f32]) -> Int8 {
        let mut table = Int8 { codes: Vec::with_capacity(values.len()), scales: Vec::new() };
        for block in values.chunks_exact(32) {
            let largest = block.iter().fold(0f32, |m, v| m.max(v.abs()));
            let scale = f16::from_f32(largest / 127.0).to_f32();
            let inverse = if scale > 0.0 { 1.0 / scale } else { 0.0 };
            table.scales.push(scale);
            table.codes.extend(block.iter().map(|v| (v * inverse).round_ties_even().clamp(-127.0, 127.0) as i8));
        }
        table
    }
}

/// A ternary matrix (outs, dim).
#[derive(Clone, Debug, PartialEq)]
pub struct Ternary {
    /// (outs, ceil(dim / 128) * 32): 2-bit codes, value + 1, in the order of GGUF's TQ2_0. Rows are padded with zeros (code 1).
    pub codes: Vec<u8>,
    /// (outs, dim / group): f16 values; or one f32 value for the whole matrix.
    pub scales: Vec<f32>,
    /// Outputs.
    pub outs: usize,
    /// Inputs.
    pub dim: usize,
    /// Consecutive inputs that share a scale on a device.
    pub group: usize,
}

impl Ternary {
    /// Quantises latent weights (outs, dim) as training does, with scales for groups or one for all.
    pub fn quantize(latent: &[f32], (outs, dim): (usize, usize), group: usize, of: Scales) -> Ternary {
        let (level, mut codes) = (Level::detect(), vec![0; outs * packed_row_bytes(dim)]);
        let scales = match of {
            Scales::Group => {
                let mut scales = vec![0.0; outs * (dim / group)];
                quantize::ternary(level, latent, dim, group, &mut codes, &mut scales);
                scales
            }
            Scales::Tensor => vec![quantize::ternary_whole(level, latent, dim, group, &mut codes)],
        };
        Ternary { codes, scales, outs, dim, group }
    }

    /// A matrix (outs, dim) with one scale. `code` gives the code of a row and a column: 0, 1 or 2.
    #[cfg(feature = "native")]
    pub(crate) fn from_codes(
        (outs, dim): (usize, usize),
        group: usize,
        scale: f32,
        code: impl Fn(usize, usize) -> u8,
    ) -> Ternary {
        // Rows are padded with zeros.
        let mut codes = vec![0b01_01_01_01; outs * packed_row_bytes(dim)];
        for (row, packed) in codes.chunks_exact_mut(packed_row_bytes(dim)).enumerate() {
            for col in 0..dim {
                let (byte, shift) = (&mut packed[col / 128 * 32 + col % 32], col % 128 / 32 * 2);
                *byte = *byte & !(3 << shift) | code(row, col) << shift;
            }
        }
        Ternary { codes, scales: vec![scale], outs, dim, group }
    }

    /// The scale of group `i` of a device, counted over all rows.
    pub fn scale(&self, i: usize) -> f32 {
        self.scales[if self.scales.len() == 1 { 0 } else { i }]
    }

    /// Takes one scale instead of those of groups: all must be equal, but for groups of zeros. The error names one that is not.
    pub(crate) fn merge_scales(&mut self) -> Result<(), String> {
        let scale = self.scales.iter().copied().fold(0.0, f32::max);
        let groups = self.dim / self.group;
        let zeros = |i: usize| (i % groups * self.group..).take(self.group).all(|col| self.code(i / groups, col) == 0);
        match (0..self.scales.len()).find(|i| self.scales[*i] != scale && !zeros(*i)) {
            Some(i) => {
                Err(format!("scale {i} is {:e}, another {scale:e}: one for the matrix is possible", self.scales[i]))
            }
            None => {
                self.scales = vec![scale];
                Ok(())
            }
        }
    }

    /// A weight: -1, 0 or 1.
    ///
    /// # Panics
    /// When it is outside of the matrix.
    pub fn code(&self, row: usize, col: usize) -> i8 {
        assert!(row < self.outs && col < self.dim, "({row}, {col}) of ({}, {})", self.outs, self.dim);
        let byte = self.codes[row * packed_row_bytes(self.dim) + col / 128 * 32 + col % 32];
        (byte >> (col % 128 / 32 * 2) & 3) as i8 - 1
    }
}

/// Checks that every scale is finite and at least 0, and that of a group an f16 value. The error names the index of the first that
/// is not.
fn check_scales(scales: &[f32], of: Scales) -> Result<(), String> {
    let exact = |s: f32| of == Scales::Tensor || f16::from_f32(s).to_f32() == s;
    let kind = if of == Scales::Tensor { "f32" } else { "f16" };
    match scales.iter().position(|s| !(s.is_finite() && *s >= 0.0 && exact(*s))) {
        Some(i) => Err(format!("scale {i} is {:e}: a scale is a finite {kind} value of at least 0", scales[i])),
        None => Ok(()),
    }
}

impl TensorData {
    /// The values, in order.
    pub(crate) fn values(&self) -> Box<dyn Iterator<Item = f32> + '_> {
        match self {
            TensorData::F32(v) => Box::new(v.iter().copied()),
            TensorData::F16(v) => Box::new(v.iter().map(|v| v.to_f32())),
            TensorData::Ternary(t) => {
                let value = |i: usize| f32::from(t.code(i / t.dim, i % t.dim)) * t.scale(i / t.group);
                Box::new((0..t.outs * t.dim).map(value))
            }
            TensorData::Int8(t) => {
                Box::new(t.codes.iter().enumerate().map(|(i, code)| t.scales[i / 32] * f32::from(*code)))
            }
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            TensorData::F32(v) => 4 * v.len(),
            TensorData::F16(v) => 2 * v.len(),
            TensorData::Ternary(t) => t.codes.len() + 4 * t.scales.len(),
            TensorData::Int8(t) => t.codes.len() + 4 * t.scales.len(),
        }
    }

    /// `f32`, `f16`, `ternary` or `int8`.
    pub fn kind(&self) -> &'static str {
        match self {
            TensorData::F32(_) => "f32",
            TensorData::F16(_) => "f16",
            TensorData::Ternary(_) => "ternary",
            TensorData::Int8(_) => "int8",
        }
    }
}

impl TextConfig {
    /// The configuration that follows from a tokenizer.
    pub fn new(tokenizer: &Tokenizer) -> TextConfig {
        let roles = [SYSTEM, USER, ASSISTANT, END];
        let chats = roles.iter().all(|role| tokenizer.token_id(role).is_some());
        TextConfig {
            tokenizer_json: Some(tokenizer.to_json()),
            no_tokenizer: None,
            bos: tokenizer.token_id(crate::tokenizer::BOS),
            eos: tokenizer.eos(),
            stop: tokenizer.stop_ids(),
            chat_template: chats.then(|| CHAT_TEMPLATE.to_string()),
            unk: None,
            pad: None,
            add_bos: false,
            add_eos: false,
        }
    }

    /// The texts of the ids with a meaning, under the names that they have in chat templates and in `tokenizer_config.json`.
    #[cfg(feature = "native")]
    pub(crate) fn named(&self, tokenizer: &Tokenizer) -> Vec<(&'static str, String)> {
        let ids = [("bos_token", self.bos), ("eos_token", self.eos), ("unk_token", self.unk), ("pad_token", self.pad)];
        let spelling = |id: Option<u32>| tokenizer.token_bytes(id?).map(|b| String::from_utf8_lossy(&b).into_owned());
        ids.into_iter().filter_map(|(name, id)| Some((name, spelling(id)?))).collect()
    }

    /// The id with which every prompt begins, if there is one.
    pub fn prompt_start(&self) -> Option<u32> {
        self.bos.filter(|_| self.add_bos)
    }

    /// The tokens of a text that the model is to go on from, with the one with which every prompt begins.
    pub fn prompt(&self, ids: Vec<u32>) -> Vec<u32> {
        begin_with(self.prompt_start(), ids)
    }

    /// The tokenizer, if there is one, for an embedding of `rows` rows.
    ///
    /// # Errors
    /// [`Error::Model`] when it cannot be used, or has ids beyond the rows of the embedding.
    pub fn tokenizer(&self, rows: usize) -> Result<Option<Tokenizer>> {
        if let Some(why) = &self.no_tokenizer {
            return Err(Error::Model(format!("the model's tokenizer cannot be used: {why}")));
        }
        let Some(json) = &self.tokenizer_json else { return Ok(None) };
        let tokenizer = Tokenizer::from_json(json)?;
        let have = tokenizer.vocab_size();
        if have > rows {
            return Err(Error::Model(format!("the tokenizer has {have} tokens, the embedding only {rows} rows")));
        }
        Ok(Some(tokenizer))
    }

    /// Checks that every id is below the size of the vocabulary.
    fn check(&self, vocab: usize) -> Result<(), String> {
        let named = [("bos", self.bos), ("eos", self.eos), ("unknown", self.unk), ("padding", self.pad)];
        let named = named.into_iter().filter_map(|(name, id)| Some((name, id?)));
        match named.chain(self.stop.iter().map(|id| ("stop", *id))).find(|(_, id)| *id as usize >= vocab) {
            Some((name, id)) => Err(format!("{name} token {id} is not below the vocabulary size {vocab}")),
            None => Ok(()),
        }
    }
}

/// A prompt with the token with which every prompt begins, unless it is there already: a template or a text may have it.
pub fn begin_with(start: Option<u32>, mut ids: Vec<u32>) -> Vec<u32> {
    if let Some(start) = start.filter(|start| ids.first() != Some(start)) {
        ids.insert(0, start);
    }
    ids
}

impl ModelFile {
    /// Reads a GGUF file from memory. The error names the key or tensor that is wrong.
    pub fn from_gguf(bytes: &[u8]) -> Result<ModelFile, String> {
        gguf::load(bytes)
    }

    /// The tensor of that name, such as `layers.0.attn.q.weight`.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.iter().find(|t| t.name == name)
    }

    /// The tokenizer, if there is one.
    ///
    /// # Errors
    /// [`Error::Model`] when it cannot be used, or has ids beyond the rows of the embedding.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        self.text.tokenizer(self.vocab)
    }

    /// Number of parameters.
    pub fn param_count(&self) -> usize {
        self.tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum()
    }

    /// Removes the further heads. Then nothing drafts tokens; the text is the same.
    pub fn remove_further_heads(&mut self) {
        let config = ModelConfig { mtp: 0, ..self.config.clone() };
        let kept: Vec<String> = config.weights(self.vocab).into_iter().map(|weight| weight.name).collect();
        self.tensors.retain(|tensor| kept.contains(&tensor.name));
        self.config = config;
    }

    /// Number of parameters that a token uses: of the experts of a layer, those that are active.
    pub fn active_params(&self) -> usize {
        self.config.weights(self.vocab).iter().map(|weight| weight.active(&self.config)).sum()
    }

    /// Rounds the embedding, and a head that is not ternary, to 8 bits. They take half the memory and are no longer exactly
    /// what was trained.
    ///
    /// # Errors
    /// When the width is not a multiple of 32, or a value is too large.
    pub fn round_tables_to_int8(&mut self) -> Result<()> {
        let config = ModelConfig { embeddings: Embeddings::Q8_0, ..self.config.clone() };
        config.check()?;
        for tensor in self.tensors.iter_mut().filter(|t| t.role == Role::Table) {
            tensor.data = match &tensor.data {
                TensorData::F32(v) => TensorData::Int8(Int8::quantize(v)),
                TensorData::F16(v) => TensorData::Int8(Int8::quantize(&v.to_f32_vec())),
                other => other.clone(),
            };
            if matches!(&tensor.data, TensorData::Int8(table) if table.scales.iter().any(|s| s.is_infinite())) {
                return Err(Error::Model(format!("{}: q8_0 cannot hold values beyond 127 * 65504", tensor.name)));
            }
        }
        self.config = config;
        Ok(())
    }

    /// Lets layers see their inputs as they are, not rounded to 8 bits, as a model needs that was trained so, such as TriLM (Kaushal et
    /// al. 2024). Its files do not say it. Ternary matrices become f16 ones of the same values.
    ///
    /// # Errors
    /// [`Error::Model`] when a scale is no f16 value, or a matrix of experts or the head is ternary.
    pub fn keep_inputs(&mut self) -> Result<()> {
        let refused = |name: &str, why| Err(Error::Model(format!("{name} cannot be made f16: {why}")));
        for tensor in &mut self.tensors {
            let TensorData::Ternary(t) = &tensor.data else { continue };
            if t.scales.iter().any(|s| f16::from_f32(*s).to_f32() != *s) {
                return refused(&tensor.name, "its scale is no f16 value");
            }
            if tensor.role != Role::Matrix || tensor.shape.len() > 2 {
                return refused(&tensor.name, "only matrices of ordinary layers can be");
            }
            tensor.data = TensorData::F16(tensor.data.values().map(f16::from_f32).collect());
        }
        self.config = ModelConfig { quantize: Quantize::F16, dense: Vec::new(), ..self.config.clone() };
        Ok(())
    }

    /// Replaces the residual mixing by that of a `.mhc` file. The error names both numbers of sub-layers and streams, if they
    /// differ.
    pub fn set_mhc(&mut self, file: mhc::MhcFile) -> Result<(), String> {
        let own = self.mhc();
        let (have, n) = own.map_or((2 * self.config.layers, 1), |own| (own.sublayers.len(), own.streams));
        if (file.sublayers.len(), file.streams) != (have, n) {
            let (given, streams) = (file.sublayers.len(), file.streams);
            return Err(format!("{given} sub-layers of {streams} streams, but the model has {have} of {n} streams"));
        }
        let mixing = self.tensors.iter_mut().filter(|t| t.role == Role::Mixing);
        for (tensor, params) in mixing.zip(file.sublayers) {
            tensor.data = TensorData::F32(params);
        }
        Ok(())
    }

    /// Replaces the tokenizer, and with it the ids at which generation stops. A chat template stays, and so do the file's ids
    /// of special tokens that the new tokenizer does not name, and whether prompts begin with one. The new tokenizer must have
    /// as many tokens as the old one, or a token for every row of the embedding.
    pub fn set_tokenizer(&mut self, tokenizer: &Tokenizer) -> Result<(), String> {
        let (have, rows) = (tokenizer.vocab_size(), self.vocab);
        // The old tokenizer may be unusable.
        let own = self.tokenizer().ok().flatten().map(|own| own.vocab_size());
        if have != rows && Some(have) != own {
            return Err(format!("has {have} tokens, but the model has {}", own.unwrap_or(rows)));
        }
        let new = TextConfig::new(tokenizer);
        let old = std::mem::take(&mut self.text);
        self.text = TextConfig {
            bos: old.bos.or(new.bos),
            eos: new.eos.or(old.eos),
            stop: if new.stop.is_empty() { old.stop } else { new.stop },
            chat_template: old.chat_template.or(new.chat_template),
            unk: old.unk,
            pad: old.pad,
            add_bos: old.add_bos,
            add_eos: old.add_eos,
            ..new
        };
        self.text.check(rows)
    }

    /// The residual mixing. None for a model with one stream.
    pub fn mhc(&self) -> Option<mhc::MhcFile> {
        let sublayers = self.tensors.iter().filter(|t| t.role == Role::Mixing).map(|t| match &t.data {
            TensorData::F32(params) => params.clone(),
            _ => unreachable!("residual mixing is f32"),
        });
        mhc::MhcFile::new(sublayers.collect())
    }
}

#[cfg(feature = "native")]
impl ModelFile {
    /// Opens a GGUF file, a folder as Hugging Face has them, a checkpoint, or the newest checkpoint of a run.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Invalid`] names the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<ModelFile> {
        if hf::is_folder(path) {
            return hf::open(path);
        }
        if path.is_dir() {
            return Ok(ModelFile::from_checkpoint(path, false)?.0);
        }
        gguf::open(path)
    }

    /// Writes a GGUF file atomically. Returns its size in bytes.
    ///
    /// # Errors
    /// [`Error::Usage`] when the format cannot hold the model, [`Error::Io`] when the file cannot be written.
    pub fn save_gguf(&self, path: &Path, format: Format) -> Result<u64> {
        let layout = gguf::Layout::new(self, format)?;
        crate::files::write_atomic_with(path, |out| layout.write(out))?;
        Ok(layout.bytes())
    }
}
