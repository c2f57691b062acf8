//! The weights of a model. Each is declared once, by the layer that uses it; whatever else there is to do with weights
//! (initial values, rounding, optimizers, checkpoints, files, counts) walks over the list of the declarations.

use super::{Init, ModelConfig, Scales};
use crate::graph::{DType, Graph, TensorId};
use crate::ops::{Int8Weight, TernaryWeight};
use std::collections::HashMap;
use std::ops::Range;

/// How the forward pass uses a weight. Files hold it in the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// f32 values.
    F32,
    /// f16 values. In training, a device holds them as f32.
    F16,
    /// int8 values with one f16 scale for every 32 of a row.
    Int8,
    /// Ternary values with one scale for every `group` consecutive inputs.
    Ternary {
        /// Inputs that share a scale on a device.
        group: usize,
        /// Whether the groups of the whole matrix share it.
        scales: Scales,
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
    /// The router of a mixture of experts, (experts, width): AdamW or Lion.
    Router,
    /// The bias of the choice of experts. It has no gradient: a step moves it by the experts' load.
    Balance,
    /// Another small part of a layer, in f32: AdamW or Lion.
    Small,
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

impl Value {
    /// Its tensors.
    pub fn tensors(self) -> impl Iterator<Item = TensorId> {
        let (values, scales) = match self {
            Value::Dense(t) => (t, None),
            Value::Int8(Int8Weight { codes, scales, .. }) => (codes, Some(scales)),
            Value::Ternary(TernaryWeight { codes, scales, .. }) => (codes, Some(scales)),
        };
        [values].into_iter().chain(scales)
    }

    /// Some of its rows, named `name`.
    fn slice(self, g: &mut Graph, rows: Range<usize>, name: &str) -> Value {
        match self {
            Value::Dense(t) => Value::Dense(slice(g, t, rows, name)),
            Value::Ternary(weight) => {
                let part = weight.slice(g, rows);
                g.name(part.codes, &format!("{name}.codes"));
                g.name(part.scales, &format!("{name}.scales"));
                Value::Ternary(part)
            }
            Value::Int8(_) => unreachable!("an int8 weight is a tensor of its own"),
        }
    }
}

/// Some rows of a tensor, named `name`.
fn slice(g: &mut Graph, t: TensorId, rows: Range<usize>, name: &str) -> TensorId {
    let part = g.slice(t, rows);
    g.name(part, name)
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

/// Parameters that training holds in one tensor, so that an op takes those of many layers at once. A table is one by itself.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// (rows, inputs) or (elements), f32.
    pub latent: TensorId,
    /// What they are for.
    pub role: Role,
    form: Form,
    value: Value,
    /// Rows that weights have so far.
    used: usize,
}

impl Stack {
    /// Appends the rounding of the parameters to their values, but where each matrix has one scale.
    pub(super) fn round(&self, g: &mut Graph) {
        match (self.form, self.value) {
            (Form::F16, Value::Dense(rounded)) => g.round_f16(self.latent, rounded),
            (Form::Ternary { scales: Scales::Group, .. }, Value::Ternary(weight)) => {
                g.ternary_quantize(self.latent, &weight);
            }
            _ => {}
        }
    }
}

impl Weight {
    /// Appends the rounding of the parameters of a matrix that has one scale.
    pub(super) fn round_whole(&self, g: &mut Graph) {
        if let (Form::Ternary { scales: Scales::Tensor, .. }, Value::Ternary(to), Some(latent)) =
            (self.form, self.value, self.latent)
        {
            g.ternary_quantize_whole(latent, &to);
        }
    }

    /// Number of its values.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// How many of its values a token uses in a model of this configuration.
    pub fn active(&self, config: &ModelConfig) -> usize {
        match (&config.moe, self.role, &self.shape[..]) {
            (Some(moe), Role::Matrix, [experts, outs, inputs]) => moe.active.min(*experts) * outs * inputs,
            _ => self.elements(),
        }
    }

    /// (outs, inputs) of the matrix in which the leading dimensions of a stack are rows.
    pub fn matrix(&self) -> (usize, usize) {
        let inputs = *self.shape.last().expect("a weight has dimensions");
        (self.elements() / inputs, inputs)
    }

    /// Its name without the number of its layer or further head: that of the weights which are its like in other layers.
    pub fn kind(&self) -> &str {
        kind(&self.name)
    }
}

pub(super) fn kind(name: &str) -> &str {
    let rest = ["layers.", "mtp."].iter().find_map(|start| name.strip_prefix(start)?.split_once('.'));
    rest.map_or(name, |(_, kind)| kind)
}

/// What a model is declared for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Training: parameters lie in stacks.
    Training,
    /// Forward passes over whole sequences: the matrices of one input lie in one tensor.
    Scoring,
    /// Decoding, step by step: every weight is a tensor of its own.
    Decoding,
}

/// Rows of which the place of a set in its stack is a multiple, so that ops can bind its values, codes and scales.
pub const ALIGN: usize = 64;
/// The stack of the vectors.
const VECTORS: &str = "vectors";
/// The stack of the biases of experts.
const BALANCE: &str = "balance";

/// Declares the weights of a model.
pub(super) struct Builder<'a> {
    pub g: &'a mut Graph,
    pub config: &'a ModelConfig,
    pub purpose: Purpose,
    /// (seq_len, head_dim): the table of the rotary embedding.
    pub rope: TensorId,
    pub weights: Vec<Weight>,
    pub stacks: Vec<Stack>,
    /// The number of each stack but those of tables, by what it holds.
    stack_of: HashMap<String, usize>,
    /// The rows of each of these. For training they are known from the start.
    pub rows: HashMap<String, usize>,
}

/// Matrices of one input.
pub(super) struct Set<const N: usize> {
    /// Each by itself.
    pub each: [Value; N],
    /// Whether ops can bind each by itself.
    pub bound_apart: bool,
    /// All as one matrix, the last first: its gradient with respect to the input adds up as backward passes do. None where each is
    /// a tensor of its own.
    pub all: Option<Value>,
}

impl<'a> Builder<'a> {
    /// For training, `rows` are those that declaring the same model for decoding has counted.
    pub fn new(
        g: &'a mut Graph,
        config: &'a ModelConfig,
        purpose: Purpose,
        rope: TensorId,
        rows: HashMap<String, usize>,
    ) -> Self {
        let (weights, stacks, stack_of) = Default::default();
        Builder { g, config, purpose, rope, weights, stacks, stack_of, rows }
    }

    /// Form and initial values of the matrices of a linear layer.
    fn linear(&self, inputs: usize) -> (Form, Init) {
        (self.config.linear_form(inputs), Init::Normal(1.0 / (inputs as f32).sqrt()))
    }

    /// Declares a table, or another weight by itself.
    ///
    /// # Panics
    /// When a weight in form `Int8` is to be trained, and when the form cannot hold the shape.
    pub fn weight(&mut self, name: &str, shape: &[usize], form: Form, role: Role, init: Init) -> Weight {
        let (value, latent) = self.tensors(name, shape, form);
        let used = shape[0];
        self.stacks.extend(latent.map(|latent| Stack { latent, role, form, value, used }));
        self.declare(Weight { name: name.to_string(), shape: shape.to_vec(), form, role, init, value, latent })
    }

    /// Declares the matrices (outs, inputs) of these names, which have one input. `name` is that of the set.
    pub fn set<const N: usize>(
        &mut self,
        name: &str,
        matrices: [(String, usize); N],
        inputs: usize,
        (form, role): (Form, Role),
    ) -> Set<N> {
        let (_, init) = self.linear(inputs);
        let outs: usize = matrices.iter().map(|(_, outs)| outs).sum();
        if self.purpose == Purpose::Decoding {
            self.count(kind(name), outs);
            let each = matrices.map(|(name, outs)| self.weight(&name, &[outs, inputs], form, role, init).value);
            return Set { each, all: None, bound_apart: true };
        }
        let (first, value, latent) = match self.purpose {
            Purpose::Training => {
                let stack = self.place(kind(name), outs, &[inputs], form, role);
                (stack.used - outs.next_multiple_of(ALIGN), stack.value, Some(stack.latent))
            }
            _ => (0, self.tensors(name, &[outs, inputs], form).0, None),
        };
        let mut end = first + outs;
        latent.map(|t| slice(self.g, t, first..end, name));
        let all = value.slice(self.g, first..end, name);
        if let Value::Ternary(all) = all {
            // Before the last matrix is the last but one, and so on. A set has three at most.
            let from = |i: usize| matrices.iter().rev().take(N.saturating_sub(i)).map(|(_, outs)| outs).sum();
            self.g.cut(all.codes, [from(2), from(1)]);
        }
        let bound_apart = matrices.iter().all(|(_, outs)| outs.is_multiple_of(ALIGN));
        let each = matrices.map(|(name, outs)| {
            let rows = end - outs..end;
            end = rows.start;
            let latent = latent.map(|t| slice(self.g, t, rows.clone(), &name));
            let value = value.slice(self.g, rows, &name);
            let shape = vec![outs, inputs];
            self.declare(Weight { name, shape, form, role, init, value, latent }).value
        });
        Set { each, all: Some(all), bound_apart }
    }

    /// Declares a dense matrix by itself.
    pub fn dense(&mut self, name: &str, shape: &[usize], form: Form, role: Role, init: Init) -> TensorId {
        match self.weight(name, shape, form, role, init).value {
            Value::Dense(id) => id,
            _ => unreachable!("{name} is to be dense"),
        }
    }

    /// Declares a matrix (outs, inputs) for each of so many experts, in the form that the configuration gives linear layers.
    pub fn experts(&mut self, name: &str, [count, outs, inputs]: [usize; 3]) -> Value {
        let (form, init) = self.linear(inputs);
        let (rows, shape, role) = (count * outs, vec![count, outs, inputs], Role::Matrix);
        if self.purpose != Purpose::Training {
            self.count(kind(name), rows);
            return self.weight(name, &shape, form, role, init).value;
        }
        let stack = self.place(kind(name), rows, &[inputs], form, role);
        let first = stack.used - rows.next_multiple_of(ALIGN);
        let latent = Some(slice(self.g, stack.latent, first..first + rows, name));
        let value = stack.value.slice(self.g, first..first + rows, name);
        self.declare(Weight { name: name.to_string(), shape, form, role, init, value, latent }).value
    }

    /// Declares a vector of f32 parameters.
    pub fn vector(&mut self, name: &str, len: usize, role: Role, init: Init) -> TensorId {
        let training = self.purpose == Purpose::Training;
        let stack = if role == Role::Balance { BALANCE } else { VECTORS };
        let id = if training {
            let stack = self.place(stack, len, &[], Form::F32, role);
            let first = stack.used - len.next_multiple_of(ALIGN);
            slice(self.g, stack.latent, first..first + len, name)
        } else {
            self.count(stack, len);
            self.g.persistent(name, &[len], DType::F32)
        };
        let (value, latent) = (Value::Dense(id), training.then_some(id));
        self.declare(Weight { name: name.to_string(), shape: vec![len], form: Form::F32, role, init, value, latent });
        id
    }

    /// Declares the bias of the matrix `name` with `outs` outputs, where the model has it.
    pub fn bias(&mut self, name: &str, outs: usize) -> Option<TensorId> {
        let own = name.replace(".weight", ".bias");
        self.config.has_bias(name).then(|| self.vector(&own, outs, Role::Small, Init::Zeros))
    }

    /// Counts rows of a stack.
    fn count(&mut self, stack: &str, rows: usize) {
        *self.rows.entry(stack.to_string()).or_default() += rows.next_multiple_of(ALIGN);
    }

    /// The stack of this name, with so many further rows of this shape in use.
    fn place(&mut self, name: &str, rows: usize, row: &[usize], form: Form, role: Role) -> Stack {
        let number = self.stack_of.get(name).copied().unwrap_or_else(|| {
            let shape = [&[self.rows[name]], row].concat();
            let (value, latent) = self.tensors(name, &shape, form);
            let latent = latent.expect("training has parameters");
            self.stacks.push(Stack { latent, role, form, value, used: 0 });
            self.stack_of.insert(name.to_string(), self.stacks.len() - 1);
            self.stacks.len() - 1
        });
        let stack = &mut self.stacks[number];
        stack.used += rows.next_multiple_of(ALIGN);
        *stack
    }

    /// The tensors of a weight or of a stack: its value, and for training its parameters.
    fn tensors(&mut self, name: &str, shape: &[usize], form: Form) -> (Value, Option<TensorId>) {
        let training = self.purpose == Purpose::Training;
        assert!(!(training && form == Form::Int8), "{name}: int8 weights are not trained");
        let latent = training.then(|| self.g.persistent(name, shape, DType::F32));
        let inputs = *shape.last().expect("a weight has dimensions");
        let outs = shape.iter().product::<usize>() / inputs;
        let value = match form {
            Form::F32 => Value::Dense(latent.unwrap_or_else(|| self.g.persistent(name, shape, DType::F32))),
            Form::F16 => {
                let dtype = if training { DType::F32 } else { DType::F16 };
                Value::Dense(self.g.persistent(&format!("{name}.f16"), shape, dtype))
            }
            Form::Int8 => Value::Int8(self.g.int8_weight(name, outs, inputs)),
            Form::Ternary { group, .. } => Value::Ternary(self.g.ternary_weight(name, outs, inputs, group)),
        };
        (value, latent)
    }

    fn declare(&mut self, weight: Weight) -> Weight {
        self.weights.push(weight.clone());
        weight
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
