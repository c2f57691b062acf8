//! The weights of a model. Each is declared once, by the layer that uses it; whatever else there is to do with weights
//! (initial values, rounding, optimizers, checkpoints, files, counts) walks over the list of the declarations.

use super::{Init, ModelConfig};
use crate::graph::{DType, Graph, TensorId};
use crate::ops::{Int8Weight, TernaryWeight};

/// How the forward pass uses a weight. Files hold it in the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// f32 values.
    F32,
    /// f16 values. In training, a device holds them as f32.
    F16,
    /// int8 values with one f16 scale for every 32 of a row.
    Int8,
    /// Ternary values with one f16 scale for every `group` consecutive inputs.
    Ternary {
        /// Inputs that share a scale.
        group: usize,
    },
}

/// What a weight is for. This decides which optimizer updates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A matrix within a layer, or a stack of them: Muon.
    Matrix,
    /// The embedding or the head, (vocabulary, width): AdamW or Lion.
    Table,
    /// The gain of a normalisation: AdamW or Lion.
    Norm,
    /// The residual mixing of a sub-layer: AdamW or Lion.
    Mixing,
}

/// The tensors of a graph that the forward pass reads for a weight.
#[derive(Clone, Copy, Debug)]
pub enum Value {
    /// Forms `F32` and `F16`.
    Dense(TensorId),
    /// Form `Int8`.
    Int8(Int8Weight),
    /// Form `Ternary`.
    Ternary(TernaryWeight),
}

/// A weight of a model.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Unique in the model, such as `layers.0.attn.q.weight`.
    pub name: String,
    /// Row-major. A matrix is (outs, inputs), a stack of matrices (count, outs, inputs).
    pub shape: Vec<usize>,
    /// How the forward pass uses it.
    pub form: Form,
    /// What it is for.
    pub role: Role,
    /// What it is before training.
    pub init: Init,
    /// What the forward pass reads.
    pub value: Value,
    /// The f32 parameter that is trained, from which the value is rounded; in form `F32` it is the value itself. None in a
    /// model that was declared for inference.
    pub latent: Option<TensorId>,
}

impl Weight {
    /// Number of its values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// (outs, inputs) of the matrix in which the leading dimensions of a stack are rows.
    pub fn matrix(&self) -> (usize, usize) {
        let inputs = *self.shape.last().expect("a weight has dimensions");
        (self.elements() / inputs, inputs)
    }

    /// Appends the rounding of the parameter to the value.
    pub(super) fn round(&self, g: &mut Graph) {
        match (self.latent, self.form, self.value) {
            (Some(latent), Form::F16, Value::Dense(rounded)) => g.round_f16(latent, rounded),
            (Some(latent), _, Value::Ternary(weight)) => g.ternary_quantize(latent, &weight),
            _ => {}
        }
    }
}

/// Declares the weights of a model.
pub(super) struct Builder<'a> {
    pub g: &'a mut Graph,
    pub config: &'a ModelConfig,
    /// Whether weights get parameters.
    pub training: bool,
    /// (seq_len, head_dim): the table of the rotary embedding.
    pub rope: TensorId,
    pub weights: Vec<Weight>,
}

impl Builder<'_> {
    /// Declares a weight.
    ///
    /// # Panics
    /// When a weight in form `Int8` is to be trained, and when the form cannot hold the shape.
    pub fn weight(&mut self, name: &str, shape: &[usize], form: Form, role: Role, init: Init) -> Weight {
        assert!(!(self.training && form == Form::Int8), "{name}: int8 weights are not trained");
        let latent = self.training.then(|| self.g.persistent(name, shape, DType::F32));
        let inputs = *shape.last().expect("a weight has dimensions");
        let outs = shape.iter().product::<usize>() / inputs;
        let value = match form {
            Form::F32 => Value::Dense(latent.unwrap_or_else(|| self.g.persistent(name, shape, DType::F32))),
            Form::F16 => {
                let dtype = if self.training { DType::F32 } else { DType::F16 };
                Value::Dense(self.g.persistent(&format!("{name}.f16"), shape, dtype))
            }
            Form::Int8 => Value::Int8(self.g.int8_weight(name, outs, inputs)),
            Form::Ternary { group } => Value::Ternary(self.g.ternary_weight(name, outs, inputs, group)),
        };
        let weight = Weight { name: name.to_string(), shape: shape.to_vec(), form, role, init, value, latent };
        self.weights.push(weight.clone());
        weight
    }

    /// Declares a vector of f32 parameters.
    pub fn vector(&mut self, name: &str, len: usize, role: Role, init: Init) -> TensorId {
        let weight = self.weight(name, &[len], Form::F32, role, init);
        let Value::Dense(id) = weight.value else { unreachable!("f32 is dense") };
        id
    }

    /// Declares the gain of a normalisation over `dim` values.
    pub fn norm(&mut self, name: &str, dim: usize) -> TensorId {
        self.vector(name, dim, Role::Norm, Init::Ones)
    }

    /// Declares the gain of the normalisation before a sub-layer's last product, where the model has them.
    pub fn inner_norm(&mut self, prefix: &str, dim: usize) -> Option<TensorId> {
        self.config.sub_norm.then(|| self.norm(&format!("{prefix}.sub_norm.weight"), dim))
    }
}
