//! What a model is, as a configuration says it, and the presets.

use super::mtp::MOST_HEADS;
use super::weight::kind;
use super::{DeltaNetOptions, Form, LoopOptions, MoeOptions};
use crate::ops::{Activation, DeltaSizes, MAX_GROUP, MAX_HEAD_DIM, rope_frequencies};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;

/// Whether linear layers are ternary with int8 activations, or plain f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantize {
    /// Ternary weights, int8 activations.
    #[default]
    Ternary,
    /// f32.
    None,
    /// f16, for models that were trained elsewhere without rounding the inputs of layers. This form is not trained.
    F16,
}

/// Precision of the embedding and of an f32 head: what the forward pass uses is what files hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Embeddings {
    /// f16 values, to which training rounds its f32 parameters.
    #[default]
    F16,
    /// f32 values.
    F32,
    /// int8 with an f16 scale for every 32 values, to which an export may round. The head's input is int8 too. This form is
    /// not trained.
    #[serde(rename = "q8_0")]
    Q8_0,
}

/// What shares a scale of a ternary matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scales {
    /// `group_size` consecutive inputs of an output, in f16.
    #[default]
    Group,
    /// The whole matrix, in f32, as in BitNet b1.58 (Ma et al. 2024).
    Tensor,
}

/// How rotary frequencies are changed for a longer context than the model was first trained with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum RopeScaling {
    /// All are divided (Chen et al. 2023).
    Linear {
        /// By this.
        factor: f64,
    },
    /// Those that turn less than `low_freq_factor` times in the first context are divided, those that turn more than
    /// `high_freq_factor` times are kept, and what is between changes smoothly (Llama 3.1, Grattafiori et al. 2024).
    Llama3 {
        /// By this.
        factor: f64,
        /// Turns in the first context.
        low_freq_factor: f64,
        /// Turns in the first context.
        high_freq_factor: f64,
        /// Tokens of the first context.
        original_context: f64,
    },
    /// Those that turn less than `beta_slow` times in the first context are divided, those that turn more than `beta_fast` times
    /// are kept, and what is between changes evenly with the number of the pair. Rotated queries and keys are multiplied (YaRN,
    /// Peng et al. 2023).
    Yarn {
        /// By this.
        factor: f64,
        /// Turns in the first context.
        beta_fast: f64,
        /// Turns in the first context.
        beta_slow: f64,
        /// Tokens of the first context.
        original_context: f64,
        /// By what each rotated query and key is multiplied.
        attention_factor: f64,
    },
    /// Each is divided by a number of its own.
    Factors {
        /// By these, one for each pair of a head.
        factors: Vec<f64>,
    },
}

impl RopeScaling {
    /// The factor of attention that YaRN recommends: 0.1 ln(factor) + 1, and 1 for what is no longer context.
    pub fn recommended(factor: f64) -> f64 {
        0.1 * factor.max(1.0).ln() + 1.0
    }

    /// By what rotated queries and keys are multiplied.
    pub(super) fn magnitude(&self) -> f64 {
        match self {
            RopeScaling::Yarn { attention_factor, .. } => *attention_factor,
            _ => 1.0,
        }
    }

    /// The frequency that takes the place of that of pair `i` in heads of `dim` values.
    fn scaled(&self, i: usize, frequency: f64, (dim, theta): (usize, f64)) -> f64 {
        match *self {
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Factors { ref factors } => frequency / factors[i],
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, .. } => {
                // The pair that turns so many times.
                let pair = |turns: f64| {
                    dim as f64 * (original_context / (turns * std::f64::consts::TAU)).ln() / (2.0 * theta.ln())
                };
                let (low, high) = (pair(beta_fast).floor().max(0.0), pair(beta_slow).ceil().min(dim as f64 - 1.0));
                let width = if low == high { 0.001 } else { high - low };
                let divided = ((i as f64 - low) / width).clamp(0.0, 1.0);
                divided * frequency / factor + (1.0 - divided) * frequency
            }
            RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context } => {
                let turns = original_context * frequency / std::f64::consts::TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * frequency / factor + kept * frequency
            }
        }
    }

    /// Whether its numbers are in range, for heads of `dim` values.
    fn is_possible(&self, (dim, theta): (usize, f64)) -> bool {
        let within = |number: f64, most: f64| number > 0.0 && number <= most;
        match *self {
            RopeScaling::Linear { factor } => within(factor, 1e4),
            RopeScaling::Factors { ref factors } => {
                factors.len() == dim / 2 && factors.iter().all(|factor| within(*factor, 1e4))
            }
            RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, attention_factor } => {
                within(factor, 1e4)
                    && within(beta_fast, 1e4)
                    && within(beta_slow, beta_fast)
                    && within(original_context, 1e9)
                    && within(attention_factor, 1e4)
                    && theta > 1.0
            }
            RopeScaling::Llama3 { factor, low_freq_factor: low, high_freq_factor: high, original_context } => {
                within(factor, 1e4)
                    && within(high, 1e4)
                    && within(low, high)
                    && low < high
                    && within(original_context, 1e9)
            }
        }
    }
}

/// The matrices of a layer that may have a bias, after its number and before `.weight`.
pub(crate) const BIASED: [&str; 7] = ["attn.q", "attn.k", "attn.v", "attn.o", "ffn.gate", "ffn.up", "ffn.down"];

/// How a layer mixes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MixerKind {
    /// Causal attention with grouped queries and rotary positions.
    Attention,
    /// A Gated DeltaNet.
    DeltaNet,
    /// The mixer of the tests.
    #[cfg(test)]
    RunningMean,
}

impl MixerKind {
    /// What the names of its weights have after `layers.N.`.
    pub fn part(self) -> &'static str {
        match self {
            MixerKind::Attention => "attn",
            MixerKind::DeltaNet => "delta",
            #[cfg(test)]
            MixerKind::RunningMean => "mean",
        }
    }

    /// Whether decoding can go back: a token that is fed again at its position takes the place of the one before.
    pub fn goes_back(self) -> bool {
        match self {
            MixerKind::Attention => true,
            MixerKind::DeltaNet => false,
            #[cfg(test)]
            MixerKind::RunningMean => false,
        }
    }
}

/// What a layer applies to each token by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FfnKind {
    /// SwiGLU.
    Gated,
    /// A mixture of experts, with the options of `[model.moe]`.
    Moe,
}

/// The `[model]` section of a configuration: what a model is, except for its vocabulary, which comes with the data.
///
/// Options of a mixer or feed-forward are sections of their own. A section that is absent is off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Width of the residual stream.
    pub dim: usize,
    /// Number of layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key-value heads; query head h reads h / (heads / kv_heads).
    pub kv_heads: usize,
    /// Width of the gated feed-forward layer.
    pub ffn: usize,
    /// What the gated feed-forward layer applies to its gate: `silu` or `relu2`.
    #[serde(skip_serializing_if = "is_default")]
    pub activation: Activation,
    /// Values of a head; without it, dim / heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head_dim: Option<usize>,
    /// Tokens of context.
    pub seq_len: usize,
    /// Consecutive inputs that share a scale; at most the inputs of a layer.
    pub group_size: usize,
    /// What shares a scale: `group` or `tensor`.
    #[serde(skip_serializing_if = "is_default")]
    pub scales: Scales,
    /// Residual streams: 1 (plain), 2 or 4 (mHC-lite).
    pub mhc_streams: usize,
    /// RMSNorm before the output and down projections, as in BitNet b1.58.
    pub sub_norm: bool,
    /// RMSNorm of each query and key of attention, over the values of its head, before rotary positions, as in Qwen 3.
    #[serde(skip_serializing_if = "is_default")]
    pub qk_norm: bool,
    /// The matrices of layers whose products have a bias added: some of `attn.q`, `attn.k`, `attn.v`, `attn.o`, `ffn.gate`, `ffn.up`
    /// and `ffn.down`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub biases: Vec<String>,
    /// The head is the embedding.
    pub tie_embeddings: bool,
    /// Form of the linear layers.
    pub quantize: Quantize,
    /// The matrices of layers that are not ternary all the same, by name, such as `layers.0.ffn.down.weight`. They are f16, and so
    /// not trained.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dense: Vec<String>,
    /// Form of the embedding and of a head that is not ternary.
    pub embeddings: Embeddings,
    /// An untied head is ternary too.
    pub ternary_head: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// How the rotary frequencies are scaled: `type = "linear"`, `"llama3"`, `"yarn"` or `"factors"`, with their numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Added to the mean square under the root of a normalisation.
    pub norm_eps: f32,
    /// Mixers of the layers: `attention` or `delta_net`, such as three of this to one of that. The list is repeated until every
    /// layer has one; an empty list means attention everywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mixers: Vec<MixerKind>,
    /// Feed-forwards of the layers, repeated in the same way; an empty list means gated everywhere, or experts from the layer
    /// `moe.from` on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ffns: Vec<FfnKind>,
    /// The options of `delta_net` layers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta_net: Option<DeltaNetOptions>,
    /// The experts of layers that have some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moe: Option<MoeOptions>,
    /// Further heads for multi-token prediction: head k, from 1, predicts the token k places behind the next. They are part of
    /// the model, so they are exported, and the first drafts tokens for decoding. How much they count in training is
    /// `train.mtp_weight`.
    #[serde(skip_serializing_if = "is_default")]
    pub mtp: usize,
    /// Layers that a token passes several times.
    #[serde(rename = "loop", skip_serializing_if = "Option::is_none")]
    pub looped: Option<LoopOptions>,
    /// Where a token ends its passes through these layers early: when the entropy of what the model predicts after a pass is
    /// below it, in nats. 0 for nowhere. It is part of how a model is used, not of its files. See
    /// [`ModelConfig::set_exit_entropy`].
    #[serde(skip)]
    pub exit_entropy: f32,
    /// The options of the mixer of the tests.
    #[cfg(test)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running_mean: Option<super::running_mean::RunningMeanOptions>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for ModelConfig {
    /// The tiny preset.
    fn default() -> Self {
        ModelConfig {
            dim: 256,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            ffn: 512,
            activation: Activation::Silu,
            head_dim: None,
            seq_len: 256,
            group_size: 128,
            scales: Scales::Group,
            mhc_streams: 1,
            sub_norm: true,
            qk_norm: false,
            biases: Vec::new(),
            tie_embeddings: true,
            quantize: Quantize::Ternary,
            dense: Vec::new(),
            embeddings: Embeddings::F16,
            ternary_head: false,
            rope_theta: 10_000.0,
            rope_scaling: None,
            norm_eps: 1e-6,
            mixers: Vec::new(),
            ffns: Vec::new(),
            delta_net: None,
            moe: None,
            mtp: 0,
            looped: None,
            exit_entropy: 0.0,
            #[cfg(test)]
            running_mean: None,
        }
    }
}

/// A named model.
pub struct Preset {
    /// What `--config` calls it.
    pub name: &'static str,
    /// Tokens of the vocabulary where there are no data, as in benchmarks. A run takes the vocabulary of its data.
    pub vocab: usize,
    /// The model.
    pub model: ModelConfig,
}

/// Every preset, smallest first.
pub static PRESETS: LazyLock<[Preset; 8]> = LazyLock::new(|| {
    let tiny = ModelConfig::default;
    [
        Preset { name: "tiny", vocab: 4096, model: tiny() },
        Preset { name: "d20", vocab: 50257, model: ModelConfig { layers: 6, ffn: 768, ..tiny() } },
        Preset {
            name: "d20-loop",
            vocab: 50257,
            model: ModelConfig {
                layers: 6,
                ffn: 768,
                looped: Some(LoopOptions { before: 1, shared: 4, times: 2, after: 1 }),
                ..tiny()
            },
        },
        Preset {
            name: "nano-125m",
            vocab: 50257,
            model: ModelConfig { dim: 768, layers: 12, heads: 12, kv_heads: 12, ffn: 2048, seq_len: 1024, ..tiny() },
        },
        Preset {
            name: "small-560m",
            vocab: 50257,
            model: ModelConfig { dim: 1280, layers: 24, heads: 20, kv_heads: 10, ffn: 4096, seq_len: 1024, ..tiny() },
        },
        Preset {
            name: "medium-3b-moe",
            vocab: 50257,
            model: ModelConfig {
                dim: 2048,
                layers: 26,
                heads: 16,
                kv_heads: 4,
                ffn: 2048,
                seq_len: 2048,
                moe: Some(MoeOptions::default()),
                ..tiny()
            },
        },
        Preset {
            name: "7b",
            vocab: 50257,
            model: ModelConfig {
                dim: 4096,
                layers: 32,
                heads: 32,
                kv_heads: 32,
                ffn: 11_008,
                seq_len: 2048,
                tie_embeddings: false,
                ..tiny()
            },
        },
        Preset {
            name: "25b-moe",
            vocab: 50257,
            model: ModelConfig {
                dim: 4096,
                layers: 32,
                heads: 32,
                kv_heads: 8,
                ffn: 7424,
                seq_len: 2048,
                moe: Some(MoeOptions::default()),
                ..tiny()
            },
        },
    ]
});

impl Preset {
    /// The preset of that name.
    pub fn find(name: &str) -> Option<&'static Preset> {
        PRESETS.iter().find(|p| p.name == name)
    }
}

/// The largest group of which a row of `inputs` has a whole number, of whole runs of 128 inputs where there are such; the inputs
/// themselves where there is none. On a device the scale of a matrix is that of each group.
fn largest_group(inputs: usize) -> usize {
    let most = |run: usize| (run..=MAX_GROUP).step_by(run).filter(|group| inputs.is_multiple_of(*group)).last();
    most(128).or_else(|| most(32)).unwrap_or(inputs)
}

impl ModelConfig {
    /// Models of a few kilobytes that together run every op of training, for self-tests.
    pub fn self_tests() -> [Self; 3] {
        let moe = MoeOptions { experts: 5, width: 64, shared: 32, balance_loss: 0.1, ..MoeOptions::default() };
        let biases = vec!["attn.k".to_string(), "ffn.down".to_string()];
        let ahead = ModelConfig { mhc_streams: 1, mtp: 2, qk_norm: true, biases, ..Self::self_test() };
        [Self::self_test(), ModelConfig { moe: Some(moe), ..Self::self_test() }, ahead]
    }

    /// One of them, without experts.
    pub fn self_test() -> Self {
        ModelConfig {
            dim: 64,
            layers: 2,
            heads: 2,
            kv_heads: 1,
            ffn: 96,
            seq_len: 16,
            group_size: 32,
            mhc_streams: 2,
            mixers: vec![MixerKind::DeltaNet, MixerKind::Attention],
            ..ModelConfig::default()
        }
    }

    /// Values of a head.
    pub fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.dim / self.heads)
    }

    /// What a position turns each pair of a head by, in radians.
    pub fn rope_frequencies(&self) -> Vec<f64> {
        let of = (self.head_dim(), self.rope_theta);
        let scaled = |(i, frequency)| self.rope_scaling.as_ref().map_or(frequency, |s| s.scaled(i, frequency, of));
        rope_frequencies(self.head_dim(), self.rope_theta).into_iter().enumerate().map(scaled).collect()
    }

    /// Values of all query heads of a token.
    pub fn attention_dim(&self) -> usize {
        self.heads * self.head_dim()
    }

    /// Inputs that share a scale in a layer of `inputs` inputs.
    pub fn group(&self, inputs: usize) -> usize {
        match self.scales {
            Scales::Group => self.group_size.min(inputs),
            Scales::Tensor => largest_group(inputs),
        }
    }

    /// Whether linear layers are ternary.
    pub fn is_ternary(&self) -> bool {
        self.quantize == Quantize::Ternary
    }

    /// The layers in the order in which a token passes them.
    pub fn schedule(&self) -> Vec<usize> {
        self.looped.map_or_else(|| (0..self.layers).collect(), |looped| looped.schedule().collect())
    }

    /// The mixer of layer `i`.
    pub fn mixer(&self, i: usize) -> MixerKind {
        self.mixers.get(i % self.mixers.len().max(1)).copied().unwrap_or(MixerKind::Attention)
    }

    /// The feed-forward of layer `i`.
    pub fn ffn_kind(&self, i: usize) -> FfnKind {
        let otherwise = || match &self.moe {
            Some(moe) if i >= moe.from => FfnKind::Moe,
            _ => FfnKind::Gated,
        };
        self.ffns.get(i % self.ffns.len().max(1)).copied().unwrap_or_else(otherwise)
    }

    /// Form of a linear layer of `inputs` inputs.
    pub fn linear_form(&self, inputs: usize) -> Form {
        match self.quantize {
            Quantize::Ternary => Form::Ternary { group: self.group(inputs), scales: self.scales },
            Quantize::None => Form::F32,
            Quantize::F16 => Form::F16,
        }
    }

    /// Form of the matrix `name` of a layer, of `inputs` inputs.
    pub fn matrix_form(&self, name: &str, inputs: usize) -> Form {
        if self.dense.iter().any(|dense| dense == name) { Form::F16 } else { self.linear_form(inputs) }
    }

    /// Whether the matrix `name` has a bias.
    pub fn has_bias(&self, name: &str) -> bool {
        self.biases.iter().any(|part| kind(name).strip_suffix(".weight") == Some(part))
    }

    /// Form of the embedding.
    pub fn table_form(&self) -> Form {
        match self.embeddings {
            Embeddings::F16 => Form::F16,
            Embeddings::F32 => Form::F32,
            Embeddings::Q8_0 => Form::Int8,
        }
    }

    /// Form of the head, where it is not the embedding.
    pub fn head_form(&self) -> Option<Form> {
        let ternary = self.is_ternary() && self.ternary_head;
        (!self.tie_embeddings).then(|| if ternary { self.linear_form(self.dim) } else { self.table_form() })
    }

    /// Whether decoding can draft tokens with the first further head, and take back those that were wrong.
    pub fn drafts(&self) -> bool {
        self.mtp > 0 && (0..self.layers).all(|i| self.mixer(i).goes_back())
    }

    /// What of this model is not written for other programs, if anything. What is written has attention and a gated feed-forward in
    /// each layer, one after another on one stream, and of the options those that change sizes, forms, the activation, sub-norms
    /// and rotary positions.
    pub fn unknown_to_others(&self) -> Option<&'static str> {
        let layers = || 0..self.layers;
        let own = [
            (self.mhc_streams > 1, "several residual streams"),
            (self.looped.is_some(), "a loop"),
            (self.mtp > 0, "further heads"),
            (self.ternary_head, "a ternary head"),
            (self.qk_norm, "norms of queries and keys"),
            (!self.biases.is_empty(), "biases"),
            (layers().any(|i| self.ffn_kind(i) != FfnKind::Gated), "experts"),
            (layers().any(|i| self.mixer(i) != MixerKind::Attention), "mixers other than attention"),
        ];
        let d = ModelConfig::default();
        // An option that is not named here is one of those that nothing else has.
        let rest = ModelConfig {
            dim: d.dim,
            layers: d.layers,
            heads: d.heads,
            kv_heads: d.kv_heads,
            ffn: d.ffn,
            activation: d.activation,
            head_dim: d.head_dim,
            seq_len: d.seq_len,
            group_size: d.group_size,
            scales: d.scales,
            sub_norm: d.sub_norm,
            tie_embeddings: d.tie_embeddings,
            quantize: d.quantize,
            dense: Vec::new(),
            embeddings: d.embeddings,
            rope_theta: d.rope_theta,
            rope_scaling: None,
            norm_eps: d.norm_eps,
            mixers: Vec::new(),
            ffns: Vec::new(),
            exit_entropy: d.exit_entropy,
            ..self.clone()
        };
        let own = own.into_iter().find(|(has, _)| *has).map(|(_, what)| what);
        own.or_else(|| (rest != d).then_some("an option that no other program has"))
    }

    /// Values of a token in the widest tensor of a layer.
    pub fn widest(&self) -> usize {
        let experts = self.moe.as_ref().map_or(0, |moe| moe.active * moe.width(self.ffn).max(self.dim));
        let delta_net = self.has(MixerKind::DeltaNet).then(|| self.delta_net_sizes().widest(self.seq_len));
        (self.dim * self.mhc_streams).max(self.attention_dim()).max(self.ffn).max(experts).max(delta_net.unwrap_or(0))
    }

    /// Whether a layer has this mixer.
    fn has(&self, kind: MixerKind) -> bool {
        (0..self.layers).any(|i| self.mixer(i) == kind)
    }

    /// The sizes of `delta_net` layers.
    fn delta_net_sizes(&self) -> DeltaSizes {
        self.delta_net.clone().unwrap_or_default().sizes(self)
    }

    /// Lets a token pass the shared layers so many times.
    ///
    /// # Errors
    /// [`Error::Usage`] when there are none, or for more passes than the model was trained with.
    pub fn set_passes(&mut self, passes: usize) -> Result<()> {
        match &mut self.looped {
            Some(looped) if (1..=looped.times).contains(&passes) => looped.times = passes,
            Some(looped) => {
                let trained = looped.times;
                return Err(Error::usage(format!("{passes} passes: between 1 and the trained {trained} are possible")));
            }
            None => return Err(Error::usage(format!("{passes} passes: the model has no loop"))),
        }
        Ok(())
    }

    /// Ends the passes of a decoded token when the entropy of what the model predicts after one is below `nats`; 0 ends none. See
    /// [`Model::pass_with_exits`](super::Model::pass_with_exits).
    ///
    /// # Errors
    /// As [`ModelConfig::check_exits`].
    pub fn set_exit_entropy(&mut self, nats: f32) -> Result<()> {
        self.exit_entropy = nats;
        self.check_exits()
    }

    /// Refuses an exit entropy that means nothing for the model.
    ///
    /// # Errors
    /// [`Error::Usage`] for one below 0, and for one above it in a model without a loop, with a mixer that cannot go back in or
    /// behind the loop, or with further heads, whose drafts are several rows of a sequence.
    pub fn check_exits(&self) -> Result<()> {
        let nats = self.exit_entropy;
        let fail = |why: &str| Err(Error::usage(format!("an exit entropy of {nats}: {why}")));
        if nats.is_nan() || nats < 0.0 {
            return fail("at least 0 nats is possible");
        }
        if nats == 0.0 {
            return Ok(());
        }
        let Some(LoopOptions { before, .. }) = self.looped else { return fail("the model has no loop") };
        if let Some(i) = (before..self.layers).find(|i| !self.mixer(*i).goes_back()) {
            return fail(&format!("layer {i}, in the loop or behind it, cannot go back to a place as attention does"));
        }
        if self.mtp > 0 {
            return fail("it does not go together with drafts by further heads (--speculate)");
        }
        Ok(())
    }

    /// Refuses what cannot be built.
    ///
    /// # Errors
    /// [`Error::Usage`] names the key and the limit.
    pub fn check(&self) -> Result<()> {
        let fail = |what: String| Err(Error::Usage(format!("[model] {what}")));
        let sizes = [
            ("dim", self.dim, 16_384),
            ("layers", self.layers, 256),
            ("heads", self.heads, 256),
            ("kv_heads", self.kv_heads, 256),
            ("ffn", self.ffn, 65_536),
            ("seq_len", self.seq_len, 65_536),
            ("group_size", self.group_size, 1024),
        ];
        for (key, value, limit) in sizes {
            if !(1..=limit).contains(&value) {
                return fail(format!("{key} = {value}: between 1 and {limit} is possible"));
            }
        }
        if !self.dim.is_multiple_of(4) {
            return fail(format!("dim = {} must be a multiple of 4", self.dim));
        }
        let fits = |head: usize| head > 0 && head.is_multiple_of(4) && head <= MAX_HEAD_DIM;
        match self.head_dim {
            Some(head) if !fits(head) => {
                return fail(format!("head_dim = {head}: must be a multiple of 4 up to {MAX_HEAD_DIM}"));
            }
            None if !(self.dim.is_multiple_of(self.heads) && fits(self.head_dim())) => {
                let (dim, heads) = (self.dim, self.heads);
                return fail(format!("dim / heads = {dim} / {heads}: must be a multiple of 4 up to {MAX_HEAD_DIM}"));
            }
            _ => {}
        }
        if !self.heads.is_multiple_of(self.kv_heads) {
            return fail(format!("heads = {} must be a multiple of kv_heads = {}", self.heads, self.kv_heads));
        }
        if ![1, 2, 4].contains(&self.mhc_streams) {
            return fail(format!("mhc_streams = {}: 1, 2 or 4 is possible", self.mhc_streams));
        }
        if !self.group_size.is_multiple_of(32) {
            return fail(format!("group_size = {} must be a multiple of 32", self.group_size));
        }
        if self.ternary_head && self.tie_embeddings {
            return fail("ternary_head needs tie_embeddings = false: an embedding is not ternary".into());
        }
        if self.embeddings == Embeddings::Q8_0 && !self.dim.is_multiple_of(32) {
            return fail(format!("dim = {} must be a multiple of 32 where embeddings are q8_0", self.dim));
        }
        let of = (self.head_dim(), self.rope_theta);
        if let Some(scaling) = self.rope_scaling.as_ref().filter(|scaling| !scaling.is_possible(of)) {
            return fail(format!("rope_scaling = {scaling:?}: a number is out of range"));
        }
        let moe = self.moe.as_ref();
        moe.map_or(Ok(()), |moe| moe.check()).or_else(fail)?;
        let experts = moe.map(|moe| [("moe.width", moe.width(self.ffn)), ("moe.shared", moe.shared)]);
        let own = [("dim", self.dim), ("heads * head_dim", self.attention_dim()), ("ffn", self.ffn)];
        for (key, inputs) in own.into_iter().chain(experts.into_iter().flatten()) {
            let group = self.group(inputs);
            if self.is_ternary() && !(inputs.is_multiple_of(32) && inputs.is_multiple_of(group)) {
                return fail(format!("{key} = {inputs} must be a multiple of 32 and of group_size = {group}"));
            }
        }
        let attends = self.has(MixerKind::Attention) || self.mtp > 0;
        let gated = (0..self.layers).any(|i| self.ffn_kind(i) == FfnKind::Gated) || self.mtp > 0;
        let has = |part: &String| BIASED.contains(&&part[..]) && if part.starts_with("attn") { attends } else { gated };
        if let Some(part) = self.biases.iter().find(|part| !has(part)) {
            let parts = BIASED.join(", ");
            return fail(format!(
                "biases names {part:?}: matrices of attention and of gated layers are possible, {parts}"
            ));
        }
        if self.qk_norm && !attends {
            return fail("qk_norm = true: no layer has attention".into());
        }
        for (key, len) in [("mixers", self.mixers.len()), ("ffns", self.ffns.len())] {
            if len > self.layers {
                return fail(format!("{key} has {len} entries: at most one for each of the {} layers", self.layers));
            }
        }
        if self.mtp > MOST_HEADS {
            return fail(format!("mtp = {}: at most {MOST_HEADS} further heads are possible", self.mtp));
        }
        let have = (0..self.layers).any(|i| self.ffn_kind(i) == FfnKind::Moe);
        match &self.moe {
            None if have => return fail("ffns names moe: its options are the section [model.moe]".into()),
            Some(moe) if !have => {
                return fail(format!("moe.from = {} and ffns leave no layer with experts", moe.from));
            }
            Some(moe) if moe.from > 0 && !self.ffns.is_empty() => {
                return fail(format!("moe.from = {}: ffns already says which layers have experts", moe.from));
            }
            _ => {}
        }
        if let Some(looped) = self.looped {
            looped.check(self.layers)?;
        }
        let has_delta_net = self.has(MixerKind::DeltaNet);
        match &self.delta_net {
            Some(_) if !has_delta_net => return fail("delta_net has options, but mixers has no \"delta_net\"".into()),
            options if has_delta_net => options.clone().unwrap_or_default().check(self)?,
            _ => {}
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0 && self.rope_theta >= 1.0 && self.rope_theta.is_finite()) {
            return fail(format!("norm_eps = {} or rope_theta = {} is out of range", self.norm_eps, self.rope_theta));
        }
        Ok(())
    }
}
