//! Multi-token prediction: further heads that predict the tokens behind the next (DeepSeek-AI 2024, "DeepSeek-V3 Technical
//! Report", section 2.2; Gloeckle et al. 2024).
//!
//! Head k reads h_{k-1}, where h_0 is the state behind the last layer, and the embedding e of the token k places further on:
//! h_k = layer(P_h norm(h_{k-1}) + P_e norm(e)). Two products that are added have one rounding of activations each, while the
//! paper's single product takes both side by side. The layer has attention and a gated feed-forward, whatever the others have,
//! so that decoding can take back a token. The logits are those of the model's head over norm(h_k).

use super::config::{FfnKind, MixerKind};
use super::layer::{Layer, Pass};
use super::linear::{Linear, LinearInput};
use super::residual;
use super::state::LayerState;
use super::weight::Builder;
use crate::graph::{Graph, TensorId};

/// Most further heads.
pub(super) const MOST_HEADS: usize = 8;

/// A further head.
pub(super) struct Ahead {
    state_norm: TensorId,
    token_norm: TensorId,
    from_state: Linear,
    from_token: Linear,
    layer: Layer,
    norm: TensorId,
}

impl Ahead {
    /// Declares head `k`, from 0.
    pub(super) fn new(make: &mut Builder<'_>, k: usize) -> Self {
        let (dim, prefix) = (make.config.dim, format!("mtp.{k}"));
        let number = make.config.layers + k;
        Ahead {
            state_norm: make.norm(&format!("{prefix}.state_norm.weight"), dim),
            token_norm: make.norm(&format!("{prefix}.token_norm.weight"), dim),
            from_state: Linear::new(make, &format!("{prefix}.from_state.weight"), dim, dim),
            from_token: Linear::new(make, &format!("{prefix}.from_token.weight"), dim, dim),
            layer: Layer::of(make, &prefix, number, (MixerKind::Attention, FfnKind::Gated)),
            norm: make.norm(&format!("{prefix}.norm.weight"), dim),
        }
    }

    /// Keys and values of its layer.
    pub(super) fn state(&self, g: &mut Graph, name: &str, pages: TensorId) -> LayerState {
        self.layer.state(g, name, pages)
    }

    /// The state before it and the embedding of the token further on, each (rows, dim) -> its own state (rows, dim).
    pub(super) fn forward(
        &self,
        g: &mut Graph,
        [state, token]: [TensorId; 2],
        config: &super::ModelConfig,
        pass: &mut Pass<'_>,
    ) -> TensorId {
        let state = self.from_state.forward(g, &mut LinearInput::new(state, Some(self.state_norm), config.norm_eps));
        let token = self.from_token.forward(g, &mut LinearInput::new(token, Some(self.token_norm), config.norm_eps));
        let x = g.add_tensors(state, token);
        let x = residual::open(g, x, config);
        let x = self.layer.forward(g, x, pass);
        residual::close(g, x, config)
    }

    /// Its state (rows, dim), normalised for the head.
    pub(super) fn hidden(&self, g: &mut Graph, state: TensorId, eps: f32) -> TensorId {
        g.rms_norm(state, self.norm, eps)
    }
}
