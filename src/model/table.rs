//! A (vocabulary, dim) table: the embedding, or a head that is not ternary.

use super::init::EMBEDDING_STD;
use super::{Embeddings, Init, Inputs, Maker, Role, Weight, WeightForm};
use crate::graph::{DType, Graph, TensorId};
use crate::ops::{Head, Int8Weight};

pub(super) enum Table {
    /// The parameter, where it is trained, and what the forward pass reads: the parameter itself, or its nearest f16 values.
    Dense { latent: Option<TensorId>, rounded: TensorId },
    /// As a file holds it.
    Int8(Int8Weight),
}

impl Table {
    pub(super) fn new(make: &mut Maker<'_>, name: &str, vocab: usize) -> Self {
        let shape = [vocab, make.config.dim];
        let init = Init::Normal(EMBEDDING_STD);
        let form = |id| Weight { name: name.to_string(), form: id };
        match make.config.embeddings {
            Embeddings::F32 => {
                let table = make.dense(name, &shape, Role::Other, init);
                Table::Dense { latent: make.training.then_some(table), rounded: table }
            }
            Embeddings::F16 => {
                let latent = make.latent(name, &shape, Role::Other, init);
                let rounded = make.g.persistent(&format!("{name}.f16"), &shape, DType::F32);
                make.weights.push(form(WeightForm::Dense(rounded)));
                Table::Dense { latent, rounded }
            }
            Embeddings::Q8_0 => {
                assert!(!make.training, "{name}: int8 tables are not trained");
                let weight = make.g.int8_weight(name, vocab, make.config.dim);
                make.weights.push(form(WeightForm::Int8(weight)));
                Table::Int8(weight)
            }
        }
    }

    pub(super) fn round(&self, g: &mut Graph) {
        if let Table::Dense { latent: Some(latent), rounded } = *self
            && latent != rounded
        {
            g.round_f16(latent, rounded);
        }
    }

    /// (rows) -> (rows, dim)
    pub(super) fn embed(&self, g: &mut Graph, inputs: &Inputs<'_>) -> TensorId {
        match self {
            Table::Dense { rounded, .. } => g.embedding(inputs.ids, *rounded),
            Table::Int8(weight) => g.embedding_int8(inputs.ids, weight),
        }
    }

    /// This table as the head over hidden (rows, dim).
    pub(super) fn as_head(&self, g: &mut Graph, hidden: TensorId) -> Head {
        match *self {
            Table::Dense { latent, rounded } => Head::Dense { x: hidden, weight: rounded, latent },
            Table::Int8(weight) => Head::Int8 { x: g.quantize_rows(hidden), input: hidden, weight },
        }
    }

    /// The parameter, where it is trained.
    pub(super) fn latent(&self) -> Option<TensorId> {
        match *self {
            Table::Dense { latent, .. } => latent,
            Table::Int8(_) => None,
        }
    }
}
