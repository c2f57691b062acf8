//! A (vocabulary, dim) table: the embedding, or an f32 head.

use super::init::EMBEDDING_STD;
use super::{Embeddings, Init, Maker, Role};
use crate::graph::{Graph, TensorId};
use crate::ops::DType;

pub(super) struct Table {
    /// The parameter.
    pub(super) latent: TensorId,
    /// What the forward pass reads: the parameter itself, or its nearest f16 values.
    pub(super) rounded: TensorId,
}

impl Table {
    pub(super) fn new(make: &mut Maker<'_>, name: &str, vocab: usize) -> Self {
        let shape = [vocab, make.config.dim];
        let latent = make.param(name, &shape, Role::Other, Init::Normal(EMBEDDING_STD));
        let rounded = match make.config.embeddings {
            Embeddings::F16 => make.g.persistent(&format!("{name}.f16"), &shape, DType::F32),
            Embeddings::F32 => latent,
        };
        Table { latent, rounded }
    }

    pub(super) fn round(&self, g: &mut Graph) {
        if self.rounded != self.latent {
            g.round_f16(self.latent, self.rounded);
        }
    }
}
