//! Token embedding, the first op of every model. Its gradient needs the rows sorted by id, so the model appends it
//! explicitly.

use super::{EMBEDDING, EMBEDDING_BACKWARD, EMBEDDING_F16, EMBEDDING_INT8, Int8Weight};
use crate::graph::{DType, Graph, TensorId};
use cpu_kernels::ops::embedding_int8::EmbeddingInt8Args;
use cpu_kernels::{ops::embedding::EmbeddingArgs, ops::embedding_backward::EmbeddingBackwardArgs};

impl Graph {
    /// Rows `ids` (rows) of the f32 or f16 table (vocab, dim) -> (rows, dim).
    pub fn embedding(&mut self, ids: TensorId, table: TensorId) -> TensorId {
        let rows = self.tensor(ids).elements();
        let (_, dim) = self.matrix(table);
        let y = self.temp("embed", &[rows, dim], DType::F32);
        let op = if self.tensor(table).dtype == DType::F16 { &EMBEDDING_F16 } else { &EMBEDDING };
        let mut first = 0;
        for table in self.parts(table) {
            self.push(op, EmbeddingArgs { rows: rows as u32, dim: dim as u32, first }, &[ids, table, y]);
            first += self.shape(table)[0] as u32;
        }
        y
    }

    /// Rows `ids` (rows) of the int8 table (vocab, dim), as f32 -> (rows, dim).
    pub fn embedding_int8(&mut self, ids: TensorId, table: &Int8Weight) -> TensorId {
        let rows = self.tensor(ids).elements();
        let (_, dim) = self.matrix(table.codes);
        let y = self.temp("embed", &[rows, dim], DType::F32);
        let mut first = 0;
        for [codes, scales] in self.parts_of([table.codes, table.scales]) {
            let args = EmbeddingInt8Args { rows: rows as u32, dim: dim as u32, first };
            self.push(&EMBEDDING_INT8, args, &[ids, codes, scales, y]);
            first += self.shape(codes)[0] as u32;
        }
        y
    }

    /// Adds dy (rows, dim) to the rows `ids` of dtable (vocab, dim). `order` (rows) lists the rows sorted by id, stably.
    pub fn embedding_backward(&mut self, ids: TensorId, order: TensorId, dy: TensorId, dtable: TensorId) {
        let (rows, dim) = self.matrix(dy);
        let mut first = 0;
        for dtable in self.parts(dtable) {
            let args = EmbeddingBackwardArgs { rows: rows as u32, dim: dim as u32, first };
            self.push(&EMBEDDING_BACKWARD, args, &[ids, order, dy, dtable]);
            first += self.shape(dtable)[0] as u32;
        }
    }
}
