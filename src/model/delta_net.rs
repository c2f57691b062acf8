//! The mixer `delta_net`: a Gated DeltaNet (Yang, Kautz and Hatamizadeh 2024). Its memory of a sequence has a fixed size, whatever
//! the sequence's length.
//!
//! Ternary layers make values, keys, queries and an output gate; a small f32 one makes how much each head writes and forgets.
//! Values, keys and queries pass a short convolution. What the delta rule reads is normalised in each head and multiplied by
//! silu(gate), before the ternary output projection. This norm takes the place of the one that `sub_norm` adds in other layers.

use super::layer::Pass;
use super::linear::{Linear, LinearInput, Linears};
use super::state::{Context, LayerState};
use super::weight::{Builder, Form, Role};
use super::{Init, ModelConfig};
use crate::graph::{Graph, TensorId};
use crate::ops::{Activation, DeltaRows, DeltaSizes, MAX_DELTA_SIZE, Places};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The section `[model.delta_net]`: the options of `delta_net` layers. A key that is absent has the value that attention has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DeltaNetOptions {
    /// Heads, each with a state of key_size x value_size values; those of `model.heads` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heads: Option<usize>,
    /// Values of a key and of a query, a multiple of 4 up to 128; those of an attention head if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_size: Option<usize>,
    /// Values of a value, a multiple of 4 up to 128; those of an attention head if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_size: Option<usize>,
    /// Rows that the short convolution sees, from 2 to 8.
    pub conv_width: usize,
}

impl Default for DeltaNetOptions {
    fn default() -> Self {
        DeltaNetOptions { heads: None, key_size: None, value_size: None, conv_width: 4 }
    }
}

impl DeltaNetOptions {
    /// The sizes in a model of this configuration.
    pub(super) fn sizes(&self, config: &ModelConfig) -> DeltaSizes {
        let size = |given: Option<usize>| given.unwrap_or_else(|| config.head_dim());
        let heads = self.heads.unwrap_or(config.heads);
        DeltaSizes { heads, key: size(self.key_size), value: size(self.value_size) }
    }

    /// Refuses what cannot be built.
    ///
    /// # Errors
    /// [`Error::Usage`] names the key and the limit.
    pub(super) fn check(&self, config: &ModelConfig) -> Result<()> {
        let fail = |what: String| Err(Error::Usage(format!("[model.delta_net] {what}")));
        let DeltaSizes { heads, key, value } = self.sizes(config);
        if !(1..=256).contains(&heads) {
            return fail(format!("heads = {heads}: between 1 and 256 is possible"));
        }
        for (name, size) in [("key_size", key), ("value_size", value)] {
            if !(4..=MAX_DELTA_SIZE).contains(&size) || !size.is_multiple_of(4) {
                return fail(format!("{name} = {size}: must be a multiple of 4 up to {MAX_DELTA_SIZE}"));
            }
        }
        if !(2..=8).contains(&self.conv_width) {
            return fail(format!("conv_width = {}: between 2 and 8 is possible", self.conv_width));
        }
        let (inputs, group) = (heads * value, config.group(heads * value));
        if config.is_ternary() && !(inputs.is_multiple_of(32) && inputs.is_multiple_of(group)) {
            return fail(format!("heads * value_size = {inputs} must be a multiple of 32 and of group_size = {group}"));
        }
        Ok(())
    }
}

pub(super) struct DeltaNet {
    qkv: Linears<3>,
    gate: Linear,
    /// How much each head writes, and what decides what it forgets.
    write_forget: Linear,
    /// The width times the columns, tap after tap.
    conv: TensorId,
    /// Rates and steps of the heads, see [`Init::Decay`].
    decay: TensorId,
    norm: TensorId,
    o: Linear,
    sizes: DeltaSizes,
    width: usize,
    eps: f32,
}

impl DeltaNet {
    pub(super) fn new(make: &mut Builder<'_>, prefix: &str) -> Self {
        let config = make.config;
        let options = config.delta_net.clone().unwrap_or_default();
        let (dim, sizes, width) = (config.dim, options.sizes(config), options.conv_width);
        let (keys, values) = (sizes.heads * sizes.key, sizes.heads * sizes.value);
        let layers = [("q", keys), ("k", keys), ("v", values)].map(|(n, outs)| (format!("{prefix}.{n}.weight"), outs));
        let vector = |make: &mut Builder<'_>, name: &str, len: usize, init: Init| {
            make.vector(&format!("{prefix}.{name}.weight"), len, Role::Small, init)
        };
        let write_forget = format!("{prefix}.write_forget.weight");
        DeltaNet {
            qkv: Linears::new(make, &format!("{prefix}.qkv.weight"), layers, dim),
            gate: Linear::new(make, &format!("{prefix}.gate.weight"), values, dim),
            write_forget: Linear::in_form(make, &write_forget, (2 * sizes.heads, dim), (Form::F32, Role::Small)),
            conv: vector(make, "conv", width * sizes.cols(), Init::Normal(1.0 / (3.0 * width as f32).sqrt())),
            decay: vector(make, "decay", 2 * sizes.heads, Init::Decay),
            norm: make.norm(&format!("{prefix}.out_norm.weight"), sizes.value),
            o: Linear::new(make, &format!("{prefix}.o.weight"), dim, values),
            sizes,
            width,
            eps: config.norm_eps,
        }
    }

    /// What `slots` sequences remember.
    pub(super) fn state(&self, g: &mut Graph, name: &str, slots: usize) -> LayerState {
        LayerState::DeltaNet(g.delta_state(name, slots, self.sizes, self.width))
    }

    /// x (rows, dim) -> (rows, dim).
    pub(super) fn forward(&self, g: &mut Graph, mut x: LinearInput, pass: &mut Pass<'_>) -> TensorId {
        let (rows, inputs) = match pass.context {
            Context::Batch(batch) => (DeltaRows::Batch(batch, pass.positions), vec![self.qkv.together(g, &mut x)]),
            Context::Cached { slots, state } => {
                let LayerState::DeltaNet(state) = &state.layers[pass.state] else { unreachable!("its own state") };
                let [q, k, v] = self.qkv.apart(g, &mut x);
                (DeltaRows::Cached(Places { positions: pass.positions, slots }, *state), vec![v, k, q])
            }
        };
        let gate = self.gate.forward(g, &mut x);
        let logits = self.write_forget.forward(g, &mut x);
        let mixed = g.short_conv(&inputs, (self.conv, self.width), rows);
        let gates = g.delta_gates(logits, self.decay);
        let y = g.delta_rule(mixed, gates, self.sizes, rows);
        let y = g.rms_norm(y, self.norm, self.eps);
        let y = g.swiglu(gate, y, Activation::Silu);
        self.o.forward(g, &mut LinearInput::new(y, None, self.eps))
    }
}

#[cfg(test)]
mod tests {
    use super::super::MixerKind;
    use super::*;

    fn config(options: DeltaNetOptions) -> ModelConfig {
        ModelConfig { mixers: vec![MixerKind::DeltaNet], delta_net: Some(options), ..ModelConfig::default() }
    }

    #[test]
    fn every_option_makes_another_model() {
        let plain = DeltaNetOptions::default();
        let some = DeltaNetOptions { heads: Some(4), key_size: Some(64), value_size: Some(64), conv_width: 4 };
        let shapes = |options: &DeltaNetOptions| {
            let config = config(options.clone());
            config.check().unwrap();
            config.weights(300).into_iter().map(|w| (w.name, w.shape)).collect::<Vec<_>>()
        };
        assert_eq!(shapes(&plain), shapes(&some), "the sizes of attention's heads");
        for changed in [
            DeltaNetOptions { heads: Some(2), ..plain.clone() },
            DeltaNetOptions { key_size: Some(32), ..plain.clone() },
            DeltaNetOptions { value_size: Some(128), ..plain.clone() },
            DeltaNetOptions { conv_width: 3, ..plain.clone() },
        ] {
            assert_ne!(shapes(&changed), shapes(&plain), "{changed:?}");
        }
    }

    #[test]
    fn what_cannot_be_built_is_refused_by_name() {
        let plain = DeltaNetOptions::default;
        for (key, options) in [
            ("heads", DeltaNetOptions { heads: Some(0), ..plain() }),
            ("heads", DeltaNetOptions { heads: Some(257), ..plain() }),
            ("key_size", DeltaNetOptions { key_size: Some(6), ..plain() }),
            ("key_size", DeltaNetOptions { key_size: Some(0), ..plain() }),
            ("value_size", DeltaNetOptions { value_size: Some(132), ..plain() }),
            ("conv_width", DeltaNetOptions { conv_width: 1, ..plain() }),
            ("conv_width", DeltaNetOptions { conv_width: 9, ..plain() }),
            ("heads * value_size", DeltaNetOptions { heads: Some(3), ..plain() }),
        ] {
            let error = config(options).check().unwrap_err().to_string();
            assert!(error.contains(&format!("[model.delta_net] {key}")), "{error}");
        }
        let unused = ModelConfig { mixers: Vec::new(), ..config(plain()) };
        let error = unused.check().unwrap_err().to_string();
        assert!(error.contains("delta_net has options, but mixers has no"), "{error}");
        assert!(toml::from_str::<ModelConfig>("[delta_net]\nwidth = 3").is_err());
    }
}
