//! A layer: a mixer, then a feed-forward, each in a residual of its own. The configuration chooses both by name.

use super::attention::Attention;
use super::config::{FfnKind, MixerKind};
use super::delta_net::DeltaNet;
use super::ffn::Gated;
use super::linear::LinearInput;
use super::moe::Moe;
use super::residual::Residual;
#[cfg(test)]
use super::running_mean::RunningMean;
use super::state::{Context, LayerState};
use super::weight::Builder;
use super::{ExpertLoad, ExtraLoss};
use crate::graph::{Graph, TensorId};

/// What a sub-layer gets of a forward pass besides its input.
pub(super) struct Pass<'a> {
    /// (rows): the position of each token in its sequence.
    pub positions: TensorId,
    pub context: Context<'a>,
    /// Number of its state. A layer that a token passes several times has as many.
    pub state: usize,
    /// Further losses of the pass. Only training reads them.
    pub losses: &'a mut Vec<ExtraLoss>,
    /// How the rows of a batch are divided among experts. Only training reads them.
    pub loads: &'a mut Vec<ExpertLoad>,
}

/// The part of a layer in which tokens see each other.
pub(super) enum Mixer {
    Attention(Attention),
    DeltaNet(DeltaNet),
    #[cfg(test)]
    RunningMean(RunningMean),
}

impl Mixer {
    fn new(make: &mut Builder<'_>, kind: MixerKind, prefix: &str) -> Self {
        match kind {
            MixerKind::Attention => Mixer::Attention(Attention::new(make, prefix)),
            MixerKind::DeltaNet => Mixer::DeltaNet(DeltaNet::new(make, prefix)),
            #[cfg(test)]
            MixerKind::RunningMean => Mixer::RunningMean(RunningMean::new(make, prefix)),
        }
    }

    fn state(&self, g: &mut Graph, name: &str, pages: TensorId) -> LayerState {
        match self {
            Mixer::Attention(attention) => attention.state(g, name, pages),
            Mixer::DeltaNet(delta) => delta.state(g, name, g.matrix(pages).0),
            #[cfg(test)]
            Mixer::RunningMean(mean) => mean.state(g, name, g.matrix(pages).0),
        }
    }

    fn forward(&self, g: &mut Graph, x: LinearInput, pass: &mut Pass<'_>) -> TensorId {
        match self {
            Mixer::Attention(attention) => attention.forward(g, x, pass),
            Mixer::DeltaNet(delta) => delta.forward(g, x, pass),
            #[cfg(test)]
            Mixer::RunningMean(mean) => mean.forward(g, x, pass),
        }
    }
}

/// The part of a layer that works on each token by itself.
pub(super) enum Ffn {
    Gated(Gated),
    Moe(Moe),
}

impl Ffn {
    fn new(make: &mut Builder<'_>, kind: FfnKind, prefix: &str) -> Self {
        match kind {
            FfnKind::Gated => Ffn::Gated(Gated::new(make, prefix, make.config.ffn)),
            FfnKind::Moe => Ffn::Moe(Moe::new(make, prefix)),
        }
    }

    fn forward(&self, g: &mut Graph, x: LinearInput, pass: &mut Pass<'_>) -> TensorId {
        match self {
            Ffn::Gated(gated) => gated.forward(g, x),
            Ffn::Moe(moe) => moe.forward(g, x, pass),
        }
    }
}

pub(super) struct Layer {
    mixer_residual: Residual,
    mixer: Mixer,
    ffn_residual: Residual,
    ffn: Ffn,
}

impl Layer {
    /// Declares layer `i` of the model.
    pub(super) fn new(make: &mut Builder<'_>, i: usize) -> Self {
        let (mixer, ffn) = (make.config.mixer(i), make.config.ffn_kind(i));
        let [mixer_prefix, ffn_prefix] = [mixer.part(), "ffn"].map(|part| format!("layers.{i}.{part}"));
        Layer {
            mixer_residual: Residual::new(make, &mixer_prefix, 2 * i),
            mixer: Mixer::new(make, mixer, &mixer_prefix),
            ffn_residual: Residual::new(make, &ffn_prefix, 2 * i + 1),
            ffn: Ffn::new(make, ffn, &ffn_prefix),
        }
    }

    pub(super) fn state(&self, g: &mut Graph, name: &str, pages: TensorId) -> LayerState {
        self.mixer.state(g, name, pages)
    }

    /// x (rows, dim) or (streams, rows, dim) -> the same.
    pub(super) fn forward(&self, g: &mut Graph, x: TensorId, pass: &mut Pass<'_>) -> TensorId {
        let x = self.mixer_residual.forward(g, x, |g, x| self.mixer.forward(g, x, pass));
        self.ffn_residual.forward(g, x, |g, x| self.ffn.forward(g, x, pass))
    }
}
