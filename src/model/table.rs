//! A (vocabulary, dim) table: the embedding, or an f32 head.

use super::init::EMBEDDING_STD;
use super::{Embeddings, Init, Maker, Role, Weight, WeightForm};
use crate::graph::{Graph, TensorId};
use crate::ops::DType;

pub(super) struct Table {
    /// The parameter, where it is trained.
    pub(super) latent: Option<TensorId>,
    /// What the forward pass reads: the parameter itself, or its nearest f16 values.
    pub(super) rounded: TensorId,
}

impl Table {
    pub(super) fn new(make: &mut Maker<'_>, name: &str, vocab: usize) -> Self {
        let shape = [vocab, make.config.dim];
        let init = Init::Normal(EMBEDDING_STD);
        if make.config.embeddings == Embeddings::F32 {
            let table = make.dense(name, &shape, Role::Other, init);
            return Table { latent: make.training.then_some(table), rounded: table };
        }
        let latent = make.latent(name, &shape, Role::Other, init);
        let rounded = make.g.persistent(&format!("{name}.f16"), &shape, DType::F32);
        make.weights.push(Weight { name: name.to_string(), form: WeightForm::Dense(rounded) });
        Table { latent, rounded }
    }

    pub(super) fn round(&self, g: &mut Graph) {
        if let Some(latent) = self.latent
            && latent != self.rounded
        {
            g.round_f16(latent, self.rounded);
        }
    }
}
