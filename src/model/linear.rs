//! Linear layers without bias, and the embedding and head, which are tables of the same forms.

use super::init::EMBEDDING_STD;
use super::weight::{Builder, Form, Role, Value, Weight};
use super::{Init, Inputs};
use crate::graph::{Graph, TensorId};
use crate::ops::{Head, QuantRows};

/// A linear layer. Its form does not depend on the forms of other layers.
pub(super) struct Linear(Value);

/// The input of linear layers, (rows, inputs). It is quantised once for all layers that share it and want int8.
pub(super) struct LinearInput {
    dense: TensorId,
    quantized: Option<QuantRows>,
}

impl LinearInput {
    pub(super) fn new(x: TensorId) -> Self {
        LinearInput { dense: x, quantized: None }
    }

    fn quantized(&mut self, g: &mut Graph) -> QuantRows {
        *self.quantized.get_or_insert_with(|| g.quantize_rows(self.dense))
    }
}

impl Linear {
    /// Declares a layer in the form that the configuration gives linear layers.
    pub(super) fn new(make: &mut Builder<'_>, name: &str, outs: usize, inputs: usize) -> Self {
        let form = make.config.linear_form(inputs);
        let init = Init::Normal(1.0 / (inputs as f32).sqrt());
        Linear(make.weight(name, &[outs, inputs], form, Role::Matrix, init).value)
    }

    /// (rows, inputs) -> (rows, outs).
    pub(super) fn forward(&self, g: &mut Graph, x: &mut LinearInput) -> TensorId {
        let rows = 0..g.matrix(x.dense).0;
        match &self.0 {
            Value::Dense(w) => g.linear(x.dense, *w, rows),
            Value::Int8(w) => {
                let x = x.quantized(g);
                g.int8_matmul(x, w, rows)
            }
            Value::Ternary(w) => {
                let x = x.quantized(g);
                g.ternary_matmul(x, w, rows)
            }
        }
    }
}

/// A (vocabulary, width) table: the embedding or the head.
pub(super) struct Table(Weight);

impl Table {
    pub(super) fn new(make: &mut Builder<'_>, name: &str, vocab: usize, form: Form) -> Self {
        Table(make.weight(name, &[vocab, make.config.dim], form, Role::Table, Init::Normal(EMBEDDING_STD)))
    }

    /// ids (rows) -> (rows, width).
    pub(super) fn embed(&self, g: &mut Graph, inputs: &Inputs<'_>) -> TensorId {
        match &self.0.value {
            Value::Dense(table) => g.embedding(inputs.ids, *table),
            Value::Int8(table) => g.embedding_int8(inputs.ids, table),
            Value::Ternary(_) => unreachable!("no configuration has a ternary embedding"),
        }
    }

    /// This table as the head over hidden (rows, width).
    pub(super) fn head(&self, g: &mut Graph, hidden: TensorId) -> Head {
        let latent = self.0.latent;
        match self.0.value {
            Value::Dense(weight) => Head::Dense { x: hidden, weight, latent },
            Value::Int8(weight) => Head::Int8 { x: g.quantize_rows(hidden), input: hidden, weight },
            Value::Ternary(weight) => Head::Ternary { x: g.quantize_rows(hidden), input: hidden, weight, latent },
        }
    }

    /// The parameter, where the table is trained.
    pub(super) fn latent(&self) -> Option<TensorId> {
        self.0.latent
    }
}
