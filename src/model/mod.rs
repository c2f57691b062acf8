//! The model: a decoder-only transformer with ternary linear layers. Each layer is written once, as a function that puts
//! ops into a graph; training and inference build it from here.

mod attention;
mod config;
mod ffn;
mod init;
mod linear;
mod residual;
mod table;

use crate::graph::{DType, Graph, TensorId};
use crate::ops::{self, Int8Weight, KvCache, TernaryWeight, rope_table};
use attention::Attention;
use ffn::FeedForward;
use linear::Linear;
use table::Table;

pub use config::{Embeddings, ModelConfig, PRESETS, Preset, Quantize};
pub use init::Init;

/// Who updates a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A matrix within a layer: Muon.
    Matrix,
    /// Embedding, head, norms, residual mixing: AdamW or Lion.
    Other,
}

#[derive(Clone, Debug)]
pub struct Param {
    pub name: String,
    pub id: TensorId,
    pub role: Role,
    pub init: Init,
}

/// What a forward pass is fed.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// (rows): token ids.
    pub ids: TensorId,
    /// (rows): position of each token in its sequence.
    pub positions: TensorId,
    pub context: Context<'a>,
}

/// What a token attends to.
#[derive(Clone, Copy, Debug)]
pub enum Context<'a> {
    /// The rows are this many whole sequences of equal length.
    Batch(usize),
    /// Each row goes on a sequence whose keys and values are cached, layer by layer; `slots` (rows) says which.
    Cached { slots: TensorId, layers: &'a [KvCache] },
}

/// What a stored model gives the forward pass: values as they are used, not what they were rounded from.
#[derive(Clone, Debug)]
pub struct Weight {
    pub name: String,
    pub form: WeightForm,
}

#[derive(Clone, Copy, Debug)]
pub enum WeightForm {
    Dense(TensorId),
    Ternary(TernaryWeight),
    Int8(Int8Weight),
}

/// A model's tensors in a graph.
pub struct Model {
    pub config: ModelConfig,
    pub vocab: usize,
    /// What is trained; empty in a model made for inference.
    pub params: Vec<Param>,
    /// What the forward pass reads.
    pub weights: Vec<Weight>,
    /// (seq_len, head_dim): fill it with [`Model::rope_table`].
    pub rope: TensorId,
    embed: Table,
    layers: Vec<Layer>,
    norm: TensorId,
    head: Option<Head>,
}

/// The head where it is not the embedding.
enum Head {
    Table(Table),
    Ternary(Linear),
}

struct Layer {
    attention: Attention,
    ffn: FeedForward,
}

impl Model {
    /// Declares the tensors of a checked config, for training: parameters, and what is rounded from them.
    pub fn new(g: &mut Graph, config: &ModelConfig, vocab: usize) -> Model {
        Self::declare(Maker { g, config, training: true, params: Vec::new(), weights: Vec::new() }, vocab)
    }

    /// Declares the tensors that inference needs.
    pub fn for_inference(g: &mut Graph, config: &ModelConfig, vocab: usize) -> Model {
        Self::declare(Maker { g, config, training: false, params: Vec::new(), weights: Vec::new() }, vocab)
    }

    fn declare(mut make: Maker<'_>, vocab: usize) -> Model {
        let config = make.config;
        let embed = Table::new(&mut make, "embed.weight", vocab);
        let layers = (0..config.layers)
            .map(|i| Layer {
                attention: Attention::new(&mut make, &format!("layers.{i}.attn"), 2 * i),
                ffn: FeedForward::new(&mut make, &format!("layers.{i}.ffn"), 2 * i + 1),
            })
            .collect();
        let norm = make.norm("norm.weight", config.dim);
        let head = (!config.tie_embeddings).then(|| {
            if config.is_ternary() && config.ternary_head {
                Head::Ternary(Linear::new(&mut make, "head.weight", vocab, config.dim, Role::Other))
            } else {
                Head::Table(Table::new(&mut make, "head.weight", vocab))
            }
        });
        let rope = make.g.persistent("rope", &[config.seq_len, config.head_dim()], DType::F32);
        let Maker { params, weights, .. } = make;
        Model { config: config.clone(), vocab, params, weights, rope, embed, layers, norm, head }
    }

    /// Contents of `rope`.
    pub fn rope_table(&self) -> Vec<f32> {
        rope_table(self.config.seq_len, self.config.head_dim(), self.config.rope_theta)
    }

    pub fn param_count(&self, g: &Graph) -> usize {
        self.params.iter().map(|p| g.tensor(p.id).elements()).sum()
    }

    /// Appends the rounding of tables and the quantisation of every ternary weight. Must run whenever parameters changed,
    /// before a forward pass.
    pub fn quantize(&self, g: &mut Graph) {
        self.embed.round(g);
        for layer in &self.layers {
            layer.attention.linears().into_iter().chain(layer.ffn.linears()).for_each(|linear| linear.quantize(g));
        }
        match &self.head {
            Some(Head::Table(table)) => table.round(g),
            Some(Head::Ternary(linear)) => linear.quantize(g),
            None => {}
        }
    }

    /// Embedding: (rows) -> (rows, dim).
    pub fn embed(&self, g: &mut Graph, inputs: &Inputs<'_>) -> TensorId {
        self.embed.embed(g, inputs)
    }

    /// Layers and head, from the embedding (rows, dim) to what the loss takes.
    pub fn forward(&self, g: &mut Graph, inputs: &Inputs<'_>, embedded: TensorId, recompute: bool) -> ops::Head {
        let hidden = self.hidden(g, inputs, embedded, recompute);
        self.head(g, hidden)
    }

    /// The layers, from the embedding (rows, dim) to the final hidden state (rows, dim). `recompute`: the backward pass
    /// computes each layer again instead of keeping its activations.
    pub fn hidden(&self, g: &mut Graph, inputs: &Inputs<'_>, embedded: TensorId, recompute: bool) -> TensorId {
        let streams = self.config.mhc_streams;
        let mut x = if streams == 1 { embedded } else { g.mhc_expand(embedded, streams) };
        for (i, layer) in self.layers.iter().enumerate() {
            let build = |g: &mut Graph| {
                let before = g.set_prefix(&format!("layers.{i}.attn."));
                let x = layer.attention.forward(g, x, i, inputs, self);
                g.set_prefix(&format!("layers.{i}.ffn."));
                let x = layer.ffn.forward(g, x, self);
                g.set_prefix(&before);
                x
            };
            x = if recompute { g.recompute(build) } else { build(g) };
        }
        let mean = if streams == 1 { x } else { g.mhc_collapse(x) };
        let hidden = g.rms_norm(mean, self.norm, self.config.norm_eps);
        g.name(hidden, "hidden")
    }

    /// The head over hidden (rows, dim).
    pub fn head(&self, g: &mut Graph, hidden: TensorId) -> ops::Head {
        match &self.head {
            Some(Head::Ternary(linear)) => linear.as_head(g, hidden),
            Some(Head::Table(table)) => table.as_head(g, hidden),
            None => self.embed.as_head(g, hidden),
        }
    }

    /// Rows of logits to hold at once: about 8 MiB of them.
    pub fn head_chunk(&self, rows: usize) -> usize {
        ((2 << 20) / self.vocab).next_multiple_of(64).min(rows)
    }

    /// The embedding's parameter, for its gradient.
    pub fn embedding_table(&self) -> Option<TensorId> {
        self.embed.latent()
    }
}

/// Declares a model's tensors and keeps the lists of them.
struct Maker<'a> {
    g: &'a mut Graph,
    config: &'a ModelConfig,
    training: bool,
    params: Vec<Param>,
    weights: Vec<Weight>,
}

impl Maker<'_> {
    /// A parameter whose forward value is something else; none in a model made for inference.
    fn latent(&mut self, name: &str, shape: &[usize], role: Role, init: Init) -> Option<TensorId> {
        self.training.then(|| {
            let id = self.g.persistent(name, shape, DType::F32);
            self.params.push(Param { name: name.to_string(), id, role, init });
            id
        })
    }

    /// A parameter that the forward pass reads as it is.
    fn dense(&mut self, name: &str, shape: &[usize], role: Role, init: Init) -> TensorId {
        let latent = self.latent(name, shape, role, init);
        let id = latent.unwrap_or_else(|| self.g.persistent(name, shape, DType::F32));
        self.weights.push(Weight { name: name.to_string(), form: WeightForm::Dense(id) });
        id
    }

    fn norm(&mut self, name: &str, dim: usize) -> TensorId {
        self.dense(name, &[dim], Role::Other, Init::Ones)
    }

    fn linear(&mut self, name: &str, outs: usize, dim: usize) -> Linear {
        Linear::new(self, name, outs, dim, Role::Matrix)
    }
}
