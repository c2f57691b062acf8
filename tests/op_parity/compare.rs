//! The contents of tensors before an op, the graph of all cases, and the check of results.

use crate::cases::{Case, Data};
use nanotern::backend::{Backend, Program, float_error};
use nanotern::graph::{Access, DType};
use nanotern::graph::{Graph, Plan, TensorId};
use std::sync::Arc;

/// Words after each tensor that no op may write.
pub const SENTINELS: usize = 8;
const SENTINEL: u32 = 0x5e47_1e15;
/// A NaN, so that a result that was never written, or was read before it was written, is noticed.
const POISON: u32 = 0x7fcd_cdcd;

/// The words of a tensor before the op: data or poison, then sentinels.
pub fn words(data: &Data) -> Vec<u32> {
    let mut words = match data {
        Data::F32(v) => bytemuck::cast_slice(v).to_vec(),
        Data::U32(v) => v.clone(),
        Data::Bytes(v) => {
            let mut bytes = v.clone();
            bytes.resize(v.len().next_multiple_of(4), 0);
            bytemuck::pod_collect_to_vec(&bytes)
        }
        Data::Out(bytes) => vec![POISON; bytes.div_ceil(4)],
        Data::Same(_) => Vec::new(),
    };
    words.resize(words.len() + SENTINELS, SENTINEL);
    words
}

/// One graph of all cases, each a node with its own tensors, and the tensors of each case.
pub fn graph(cases: &[Case]) -> (Graph, Vec<Vec<TensorId>>) {
    let (mut g, mut tensors) = (Graph::new(), Vec::new());
    for case in cases {
        let mut ids: Vec<TensorId> = Vec::new();
        for (data, binding) in case.data.iter().zip(case.op.bindings) {
            ids.push(match data {
                Data::Same(i) => ids[*i],
                data => {
                    let n = words(data).len() * 4 / binding.dtype.bytes();
                    g.persistent(&format!("{}.{}", case.op.name, binding.name), &[n], binding.dtype)
                }
            });
        }
        (case.push)(&mut g, &ids);
        tensors.push(ids);
    }
    (g, tensors)
}

/// All cases as one program.
pub struct Bench {
    program: Program,
    tensors: Vec<Vec<TensorId>>,
}

impl Bench {
    pub fn new(backend: &Backend, cases: &[Case]) -> Bench {
        let (g, tensors) = graph(cases);
        let program = backend.prepare(Arc::new(Plan::new(g))).unwrap();
        Bench { program, tensors }
    }

    /// Runs a case; returns the words of each of its tensors.
    pub fn run(&mut self, i: usize, case: &Case) -> Vec<Vec<u32>> {
        for (t, data) in self.tensors[i].iter().zip(&case.data) {
            if !matches!(data, Data::Same(_)) {
                self.program.write(*t, &words(data));
            }
        }
        self.program.run(i..i + 1).unwrap();
        self.tensors[i].iter().map(|t| self.program.read(*t).unwrap()).collect()
    }
}

/// The error in the result of a case on a backend, if there is one.
pub fn verdict(case: &Case, gpu: bool, reference: &[Vec<u32>], got: &[Vec<u32>]) -> Option<String> {
    for (i, binding) in case.op.bindings.iter().enumerate() {
        let (r, o) = (&reference[i], &got[i]);
        let (r, behind_r) = r.split_at(r.len() - SENTINELS);
        let (o, behind_o) = o.split_at(o.len() - SENTINELS);
        if [behind_r, behind_o].iter().any(|words| words.iter().any(|w| *w != SENTINEL)) {
            return Some(format!("{} is written beyond its end", binding.name));
        }
        if binding.access == Access::Read {
            if r != o {
                return Some(format!("{} is an input and was changed", binding.name));
            }
            continue;
        }
        match binding.dtype {
            DType::F32 => {
                let error = float_error(bytemuck::cast_slice(r), bytemuck::cast_slice(o));
                if error.is_nan() || error > case.limit {
                    return Some(format!("{} differs by {error:.1e}", binding.name));
                }
            }
            _ => {
                let wrong = |(at, (r, o)): (usize, (&u32, &u32))| {
                    let bytes = r.to_le_bytes().into_iter().zip(o.to_le_bytes()).enumerate();
                    bytes
                        .filter(|(b, (r, o))| r != o && !(gpu && (case.near_tie)(at * 4 + b, *r as i8, *o as i8)))
                        .count()
                };
                let wrong: usize = if r == o { 0 } else { r.iter().zip(o).enumerate().map(wrong).sum() };
                if wrong > 0 {
                    return Some(format!("{wrong} bytes of {} differ", binding.name));
                }
            }
        }
    }
    None
}
