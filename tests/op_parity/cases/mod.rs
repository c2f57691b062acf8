//! The cases of each op: odd sizes, a single row, masked targets, small real sizes, offsets, beta 0 (over poison) and 1.

mod inference;
mod layers;
mod products;
mod training;

use cpu_kernels::Args;
use cpu_kernels::matrix::quantize;
use cpu_kernels::ops::*;
use nanotern::graph::Op;
use nanotern::graph::{Graph, TensorId};
use nanotern::ops::{self, rope_table};
use nanotern::rng::Rng;

/// The contents of a tensor before the op.
#[derive(Clone)]
pub enum Data {
    F32(Vec<f32>),
    U32(Vec<u32>),
    /// int8, packed codes, or f16.
    Bytes(Vec<u8>),
    /// Poison, with a size in bytes.
    Out(usize),
    /// The same tensor as that of an earlier binding.
    Same(usize),
}

/// Appends the op to a graph, with tensors in the order of its bindings.
pub type Push = Box<dyn Fn(&mut Graph, &[TensorId])>;

pub struct Case {
    pub op: &'static Op,
    pub args: String,
    pub push: Push,
    pub data: Vec<Data>,
    /// The largest allowed normalised mean squared error of floats.
    pub limit: f64,
    /// Whether a byte, given as (index, reference, result), may differ on a GPU.
    pub near_tie: Box<dyn Fn(usize, i8, i8) -> bool>,
}

/// A case whose random data depends on its op and `args` only, not on other cases.
fn case<A: Args + std::fmt::Debug>(op: &'static Op, args: A, data: impl FnOnce(&mut Rng) -> Vec<Data>) -> Case {
    let text = format!("{args:?}");
    let seed = crc32c::crc32c(format!("{} {text}", op.name).as_bytes());
    let data = data(&mut Rng::new(u64::from(seed)));
    assert_eq!(data.len(), op.bindings.len(), "{}", op.name);
    let push = Box::new(move |g: &mut Graph, tensors: &[TensorId]| g.push(op, args, tensors));
    Case { op, args: text, push, data, limit: 1e-7, near_tie: Box::new(|_, _, _| false) }
}

/// A case whose result is defined bit for bit.
fn exact(case: Case) -> Case {
    Case { limit: 0.0, ..case }
}

/// A case of a product of f32: the limit tells apart factors that were rounded to f16, which differ by 1e-8, and sums in another
/// order.
fn close(case: Case) -> Case {
    Case { limit: 1e-12, ..case }
}

fn out(elements: u32) -> Data {
    Data::Out(4 * elements as usize)
}

/// The target of an op with a `beta`: random values if `beta` is not 0, otherwise poison.
fn target(r: &mut Rng, beta: f32, elements: u32) -> Data {
    if beta == 0.0 { out(elements) } else { normal(r, elements, 1.0) }
}

fn values(r: &mut Rng, n: u32, scale: f32) -> Vec<f32> {
    (0..n).map(|_| scale * r.normal()).collect()
}

fn normal(r: &mut Rng, n: u32, scale: f32) -> Data {
    Data::F32(values(r, n, scale))
}

/// f16 values.
fn halves(r: &mut Rng, n: u32, scale: f32) -> Data {
    Data::Bytes(values(r, n, scale).into_iter().flat_map(|v| half::f16::from_f32(v).to_le_bytes()).collect())
}

fn uniform(r: &mut Rng, n: u32, low: f32, high: f32) -> Data {
    Data::F32((0..n).map(|_| low + (high - low) * r.f32()).collect())
}

fn below(r: &mut Rng, n: u32, limit: u32) -> Vec<u32> {
    (0..n).map(|_| r.below(u64::from(limit)) as u32).collect()
}

/// int8 activations in -127..=127.
fn activations(r: &mut Rng, n: u32) -> Data {
    Data::Bytes((0..n).map(|_| (r.below(255) as i16 - 127) as i8 as u8).collect())
}

/// Packed codes of (outs, dim) ternary weights.
fn codes(r: &mut Rng, outs: u32, dim: u32) -> Data {
    let byte = |r: &mut Rng| (0..4).fold(0, |byte, i| byte | (r.below(3) as u8) << (2 * i));
    Data::Bytes((0..outs as usize * ops::packed_row_bytes(dim as usize)).map(|_| byte(r)).collect())
}

/// The index of no row.
const NOWHERE: u32 = u32::MAX;

pub fn all() -> Vec<Case> {
    let families = [
        layers::embedding,
        layers::norms,
        products::quantizers,
        products::ternary,
        products::grouped,
        layers::experts,
        products::matmuls,
        layers::attention,
        layers::delta,
        layers::elementwise,
        layers::streams,
        training::losses,
        training::optimizers,
        inference::inference,
    ];
    families.iter().flat_map(|family| family()).collect()
}

/// Where the rows of each expert begin, if these have so many.
fn starts(counts: &[u32]) -> Data {
    let sums = counts.iter().scan(0, |sum, n| {
        *sum += n;
        Some(*sum)
    });
    Data::U32(std::iter::once(0).chain(sums).collect())
}

/// Positions of `batch` sequences of `seq` rows, of which the second begins with a document that started earlier, and in which
/// documents of some lengths follow each other.
fn documents(batch: u32, seq: u32) -> Vec<u32> {
    let lengths = [5, 40, 1, 2, 70, 3];
    let document = |b: u32| lengths.into_iter().cycle().skip(b as usize).flat_map(|n| 0..n);
    (0..batch).flat_map(|b| document(b).skip(if b == 1 { 3 } else { 0 }).take(seq as usize)).collect()
}
