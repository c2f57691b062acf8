//! The model: a decoder-only transformer with ternary linear layers. Each layer is written once, as a function that appends
//! ops to a graph. Training and inference build the model from here.
//!
//! A new mixer or feed-forward is a file beside this one, an arm in `layer`, and its name and options in `config`.

mod attention;
mod config;
mod delta_net;
mod ffn;
mod init;
mod layer;
mod linear;
mod loops;
mod moe;
mod mtp;
mod residual;
#[cfg(test)]
mod running_mean;
mod state;
mod weight;

use crate::graph::{DType, Graph, TensorId};
use crate::ops::{self, Exits, PAGE, rope_table_of};
use layer::{Layer, Pass};
use linear::Table;
use mtp::Ahead;
use std::collections::HashMap;
use std::ops::Range;
use weight::{Builder, Purpose};

pub(crate) use config::BIASED;
pub use config::{Embeddings, FfnKind, MixerKind, ModelConfig, PRESETS, Preset, Quantize, RopeScaling, Scales};
pub use delta_net::DeltaNetOptions;
pub use init::Init;
pub use loops::LoopOptions;
pub use moe::MoeOptions;
pub use residual::mixing_params;
pub use state::{Context, State};
pub use weight::{ALIGN, Form, Role, Stack, Value, Weight};

/// Least rows of logits that are held at once, where a step has as many.
pub const LEAST_CHUNK: usize = 64;
/// Most bytes of logits that are held at once, unless [`LEAST_CHUNK`] rows have more.
const MOST_LOGITS: usize = 256 << 20;

/// What a forward pass reads.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// (rows): token ids.
    pub ids: TensorId,
    /// (rows): position of each token in its sequence.
    pub positions: TensorId,
    /// What the tokens can see.
    pub context: Context<'a>,
}

/// A loss besides that of the head, such as one that balances experts.
#[derive(Clone, Copy, Debug)]
pub struct ExtraLoss {
    /// (1): its value, as a mean over the rows of the pass.
    pub value: TensorId,
    /// Its weight in what training minimises; the head's cross-entropy per token has weight 1.
    pub weight: f32,
}

/// How a layer divides the rows of a batch among its experts.
#[derive(Clone, Copy, Debug)]
pub struct ExpertLoad {
    /// (experts): the bias of their choice.
    pub bias: TensorId,
    /// (experts + 1): expert e has the assignments from `starts[e]` up to `starts[e + 1]`.
    pub starts: TensorId,
}

/// What layers give besides the hidden state.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    /// Further losses.
    pub losses: Vec<ExtraLoss>,
    /// The load of the experts of each layer that has some.
    pub loads: Vec<ExpertLoad>,
}

/// The nodes of a pass through shared layers, in a step whose rows may take fewer passes.
#[derive(Clone, Debug)]
pub struct PassNodes {
    /// Those of the shared layers.
    pub layers: Range<usize>,
    /// Those behind them: the layers after, and the readout.
    pub readout: Range<usize>,
}

/// What a forward pass gives.
pub struct Forward {
    /// The head, with its input.
    pub head: ops::Head,
    /// (rows, dim): the state behind the last layer, which the first further head reads.
    pub state: TensorId,
    /// What else the layers give.
    pub extras: Extras,
}

/// A model's tensors in a graph.
pub struct Model {
    /// What it was declared from.
    pub config: ModelConfig,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Every weight, in the order of declaration.
    pub weights: Vec<Weight>,
    /// What training holds their parameters in. There are none in other models.
    pub stacks: Vec<Stack>,
    /// (seq_len, head_dim): fill it with [`Model::rope_table`].
    pub rope: TensorId,
    embed: Table,
    layers: Vec<Layer>,
    norm: TensorId,
    /// The head, where it is not the embedding.
    head: Option<Table>,
    /// The further heads.
    ahead: Vec<Ahead>,
}

impl ModelConfig {
    /// The weights of a checked configuration with `vocab` tokens. Nothing is allocated for their values.
    pub fn weights(&self, vocab: usize) -> Vec<Weight> {
        Model::for_inference(&mut Graph::new(), self, vocab).weights
    }
}

impl Model {
    /// Declares the tensors of a checked configuration, for training: parameters, and what is rounded from them.
    pub fn new(g: &mut Graph, config: &ModelConfig, vocab: usize) -> Model {
        let rows = Self::declare(&mut Graph::new(), config, vocab, Purpose::Decoding, HashMap::new()).1;
        Self::declare(g, config, vocab, Purpose::Training, rows).0
    }

    /// Declares the tensors that decoding needs.
    pub fn for_inference(g: &mut Graph, config: &ModelConfig, vocab: usize) -> Model {
        Self::declare(g, config, vocab, Purpose::Decoding, HashMap::new()).0
    }

    /// Declares the tensors that forward passes over whole sequences need.
    pub fn for_scoring(g: &mut Graph, config: &ModelConfig, vocab: usize) -> Model {
        Self::declare(g, config, vocab, Purpose::Scoring, HashMap::new()).0
    }

    /// The model, and the rows of its stacks, which training takes.
    fn declare(
        g: &mut Graph,
        config: &ModelConfig,
        vocab: usize,
        purpose: Purpose,
        rows: HashMap<String, usize>,
    ) -> (Model, HashMap<String, usize>) {
        let rope = g.persistent("rope", &[config.seq_len, config.head_dim()], DType::F32);
        let mut make = Builder::new(g, config, purpose, rope, rows);
        let embed = Table::new(&mut make, "embed.weight", vocab, config.table_form());
        let layers = (0..config.layers).map(|i| Layer::new(&mut make, i)).collect();
        let norm = make.norm("norm.weight", config.dim);
        let head = config.head_form().map(|form| Table::new(&mut make, "head.weight", vocab, form));
        let ahead = (0..config.mtp).map(|k| Ahead::new(&mut make, k)).collect();
        let Builder { weights, stacks, rows, .. } = make;
        (Model { config: config.clone(), vocab, weights, stacks, rope, embed, layers, norm, head, ahead }, rows)
    }

    /// Contents of `rope`.
    pub fn rope_table(&self) -> Vec<f32> {
        let magnitude = self.config.rope_scaling.as_ref().map_or(1.0, RopeScaling::magnitude);
        rope_table_of(self.config.seq_len, &self.config.rope_frequencies(), magnitude)
    }

    /// The weights that are trained, each with its parameter. There are none in a model that was declared for inference.
    pub fn params(&self) -> impl Iterator<Item = (&Weight, TensorId)> {
        self.weights.iter().filter_map(|weight| Some((weight, weight.latent?)))
    }

    /// Number of values of all weights.
    pub fn param_count(&self) -> usize {
        self.weights.iter().map(Weight::elements).sum()
    }

    /// Number of values that a token uses: of the experts of a layer, those that are active.
    pub fn active_params(&self) -> usize {
        self.weights.iter().map(|weight| weight.active(&self.config)).sum()
    }

    /// The layers in the order in which a token passes them.
    fn passed(&self) -> impl Iterator<Item = &Layer> {
        self.config.schedule().into_iter().map(|i| &self.layers[i])
    }

    /// Memory for `slots` sequences of at most `context` tokens each, for each time that a token passes a layer, with a single page
    /// at first.
    pub fn state(&self, g: &mut Graph, slots: usize, context: usize) -> State {
        let pages = g.persistent("pages", &[slots, context.div_ceil(PAGE)], DType::U32);
        let passed = self.passed().enumerate();
        State { pages, layers: passed.map(|(i, layer)| layer.state(g, &format!("cache.{i}"), pages)).collect() }
    }

    /// Adds memory for the first further head to that of the layers.
    ///
    /// # Panics
    /// When there is no further head.
    pub fn add_draft_state(&self, g: &mut Graph, state: &mut State) {
        state.layers.push(self.ahead[0].state(g, "cache.mtp.0", state.pages));
    }

    /// Appends the rounding of every weight from its parameter. It must run after parameters changed and before a forward
    /// pass.
    pub fn quantize(&self, g: &mut Graph) {
        self.stacks.iter().for_each(|stack| stack.round(g));
        self.weights.iter().for_each(|weight| weight.round_whole(g));
    }

    /// Embedding: (rows) -> (rows, dim).
    pub fn embed(&self, g: &mut Graph, inputs: &Inputs<'_>) -> TensorId {
        self.embed.embed(g, inputs)
    }

    /// Layers and head, from the embedding (rows, dim) to what the loss takes.
    pub fn forward(&self, g: &mut Graph, inputs: &Inputs<'_>, embedded: TensorId, recompute: bool) -> Forward {
        let (state, extras) = self.pass(g, inputs, embedded, recompute);
        let hidden = self.hidden(g, state);
        Forward { head: self.head(g, hidden), state, extras }
    }

    /// Further head `k`, from 0: from the state before it (rows, dim) and the embedding (rows, dim) of the tokens k + 1 places
    /// behind those of `inputs`, to its own state (rows, dim). `recompute` is as in
    /// [`Model::pass`].
    pub fn further(
        &self,
        g: &mut Graph,
        k: usize,
        inputs: &Inputs<'_>,
        [state, token]: [TensorId; 2],
        recompute: bool,
    ) -> TensorId {
        let Inputs { positions, context, .. } = *inputs;
        // Attention and a gated feed-forward give nothing besides.
        let Extras { losses, loads } = &mut Extras::default();
        let mut pass = Pass { positions, context, state: self.passed().count() + k, losses, loads };
        let before = g.set_prefix(&format!("mtp.{k}."));
        let mut build = |g: &mut Graph| self.ahead[k].forward(g, [state, token], &self.config, &mut pass);
        let state = if recompute { g.recompute(build) } else { build(g) };
        g.set_prefix(&before);
        state
    }

    /// The state of further head `k` (rows, dim), from 0, normalised for the head.
    pub fn further_hidden(&self, g: &mut Graph, k: usize, state: TensorId) -> TensorId {
        self.ahead[k].hidden(g, state, self.config.norm_eps)
    }

    /// The state behind the last layer (rows, dim), normalised for the head.
    pub fn hidden(&self, g: &mut Graph, state: TensorId) -> TensorId {
        let hidden = g.rms_norm(state, self.norm, self.config.norm_eps);
        g.name(hidden, "hidden")
    }

    /// The layers, from the embedding (rows, dim) to the state behind the last (rows, dim) and what they give besides. With
    /// `recompute`, the backward pass computes each layer again instead of keeping its activations.
    pub fn pass(&self, g: &mut Graph, inputs: &Inputs<'_>, embedded: TensorId, recompute: bool) -> (TensorId, Extras) {
        let mut extras = Extras::default();
        let mut x = residual::open(g, embedded, &self.config);
        for step in self.passed().enumerate() {
            let mut build = |g: &mut Graph| Self::layer(g, inputs, step, x, &mut extras);
            x = if recompute { g.recompute(build) } else { build(g) };
        }
        (residual::close(g, x, &self.config), extras)
    }

    /// A layer, with the number of its state: x (rows, dim) or (streams, rows, dim) -> the same.
    fn layer(
        g: &mut Graph,
        inputs: &Inputs<'_>,
        (state, layer): (usize, &Layer),
        x: TensorId,
        extras: &mut Extras,
    ) -> TensorId {
        let Inputs { positions, context, .. } = *inputs;
        let Extras { losses, loads } = extras;
        layer.forward(g, x, &mut Pass { positions, context, state, losses, loads })
    }

    /// [`Model::pass`] in a step of decoding whose rows may take fewer passes through the shared layers (Schuster et al. 2022,
    /// "Confident Adaptive Language Modeling"). After each pass, `readout` gets the state behind the last layer (rows, dim), and
    /// how many passes there were; it may end rows. The state of a row that has ended stays as it is: what the shared layers
    /// keep of it in further passes is made of that. Returns the nodes of each pass.
    ///
    /// # Panics
    /// When the model has no loop.
    pub fn pass_with_exits(
        &self,
        g: &mut Graph,
        inputs: &Inputs<'_>,
        embedded: TensorId,
        exits: Exits,
        mut readout: impl FnMut(&mut Graph, TensorId, usize),
    ) -> Vec<PassNodes> {
        let LoopOptions { before, shared, times, .. } = self.config.looped.expect("a loop");
        let passed: Vec<_> = self.passed().enumerate().collect();
        let (first, rest) = passed.split_at(before);
        let (again, after) = rest.split_at(shared * times);
        let layer = |g: &mut Graph, x, step: &_| Self::layer(g, inputs, *step, x, &mut Extras::default());
        let opened = residual::open(g, embedded, &self.config);
        let mut x = first.iter().fold(opened, |x, step| layer(g, x, step));
        let mut nodes = Vec::new();
        for (pass, layers) in (0..times).zip(again.chunks(shared)) {
            let start = g.nodes.len();
            for step in layers {
                let next = layer(g, x, step);
                x = if pass == 0 { next } else { g.keep_rows(exits, [x, next]) };
            }
            let end = g.nodes.len();
            let last = after.iter().fold(x, |x, step| layer(g, x, step));
            let state = residual::close(g, last, &self.config);
            readout(g, state, pass + 1);
            nodes.push(PassNodes { layers: start..end, readout: end..g.nodes.len() });
        }
        nodes
    }

    /// The head over hidden (rows, dim).
    pub fn head(&self, g: &mut Graph, hidden: TensorId) -> ops::Head {
        self.head.as_ref().unwrap_or(&self.embed).head(g, hidden)
    }

    /// Rows of logits to hold at once: many, since each chunk reads the head's weight and reads and writes its gradient. It is
    /// a power of two, so that the chunks of most batches are equal.
    pub fn head_chunk(&self, rows: usize) -> usize {
        let fit = MOST_LOGITS / size_of::<f32>() / self.vocab;
        (1 << fit.max(LEAST_CHUNK).ilog2()).min(rows)
    }

    /// The embedding's parameter, for its gradient.
    pub fn embedding_table(&self) -> Option<TensorId> {
        self.embed.latent()
    }
}
