//! A static graph of ops over named tensors, in execution order, and the passes over it: gradients, recomputation and memory
//! plan. This module does not depend on any device.

mod backward;
mod op;
mod plan;

pub(crate) use backward::Accumulate;
pub use backward::Backward;
pub use op::{Access, Binding, DType, Grad, Op, Pass};
pub use plan::{Plan, Slot};

use cpu_kernels::{ArgWords, Args};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ops::Range;

/// Most bytes that an op binds of a tensor that can be bound in parts: what every WebGPU device allows for a binding.
pub const MAX_BINDING: usize = 128 << 20;
/// Bytes of which the start of a view is a multiple: what every WebGPU device can start a binding at.
const VIEW_ALIGN: usize = 256;
/// Rows of whole words of which a part is a multiple, so that it starts at a multiple of [`VIEW_ALIGN`] bytes.
const PART_ROWS: usize = VIEW_ALIGN / 4;

/// A tensor of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId(pub(crate) u32);

impl TensorId {
    /// Index of the tensor in [`Graph::tensors`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// The lifetime of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From its first use to its last, within one section. It may share a buffer with other temporaries.
    Temp,
    /// As long as the program, in a buffer of its own: inputs, constants, parameters, gradients, optimizer state.
    Persistent,
    /// That of a persistent tensor of which it is a range of rows.
    View {
        /// The persistent tensor.
        of: TensorId,
        /// The byte of that tensor at which it starts.
        at: usize,
    },
}

/// The description of a tensor, row-major.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// Its name, for traces and error messages.
    pub name: String,
    /// Its dimensions, outermost first.
    pub shape: Vec<usize>,
    /// The type of its elements.
    pub dtype: DType,
    /// Its lifetime.
    pub kind: Kind,
}

impl Tensor {
    /// Number of elements. It saturates, as sizes in bytes do, so that a size beyond a browser's 32 bits stays too large.
    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1, |n, size| n.saturating_mul(*size))
    }

    /// Size in bytes, rounded up to a multiple of 4.
    pub fn bytes(&self) -> usize {
        self.elements().saturating_mul(self.dtype.bytes()).checked_next_multiple_of(4).unwrap_or(usize::MAX)
    }
}

/// One op applied to tensors.
#[derive(Clone, Debug)]
pub struct Node {
    /// The op.
    pub op: &'static Op,
    /// The words of the op's `Args`.
    pub args: ArgWords,
    /// A tensor for each binding of the op, in that order.
    pub tensors: Vec<TensorId>,
}

/// A range of nodes that is submitted as a whole, such as a part of a training step, an evaluation or a decode step.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name, for error messages and traces.
    pub name: &'static str,
    start: usize,
    end: usize,
}

impl Section {
    /// Its nodes.
    pub fn nodes(&self) -> Range<usize> {
        self.start..self.end
    }
}

/// How exactly the products of a backward pass are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// In f32, or by matrices of f16 with two terms for each factor, which is as exact.
    #[default]
    Exact,
    /// With factors rounded to the 11 significant bits of f16, at any exponent, so that one term suffices. Devices with matrices
    /// of f16 multiply faster; others round too, so that a run is the same everywhere up to the order of sums.
    Fast,
}

/// A graph under construction or complete. Its nodes are in execution order.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// All tensors, by [`TensorId::index`].
    pub tensors: Vec<Tensor>,
    /// All nodes, in execution order.
    pub nodes: Vec<Node>,
    /// All sections, in the order of their nodes.
    pub sections: Vec<Section>,
    /// The gradient of each parameter that has one.
    gradients: HashMap<TensorId, TensorId>,
    /// The views of each persistent tensor, by their rows.
    views: HashMap<(TensorId, Range<usize>), TensorId>,
    /// The rows at which the second and the third of several matrices begin, of tensors that hold such.
    cuts: HashMap<TensorId, [usize; 2]>,
    /// Ranges of nodes whose temporaries are recomputed for the backward pass instead of being kept.
    recomputed: Vec<Range<usize>>,
    /// How exactly gradients are computed that are appended from now on.
    pub precision: Precision,
    prefix: String,
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, name: String, shape: &[usize], dtype: DType, kind: Kind) -> TensorId {
        let id = TensorId(self.tensors.len() as u32);
        self.tensors.push(Tensor { name, shape: shape.to_vec(), dtype, kind });
        id
    }

    /// A new tensor that keeps its contents between submissions.
    pub fn persistent(&mut self, name: &str, shape: &[usize], dtype: DType) -> TensorId {
        self.add(format!("{}{name}", self.prefix), shape, dtype, Kind::Persistent)
    }

    /// A new tensor that lives within one section.
    pub fn temp(&mut self, name: &str, shape: &[usize], dtype: DType) -> TensorId {
        self.add(format!("{}{name}", self.prefix), shape, dtype, Kind::Temp)
    }

    /// The rows `rows` of a persistent tensor or of a view, counted by its first dimension, as a tensor that shares its memory: a
    /// view, or the tensor itself where these are all its rows.
    ///
    /// # Panics
    /// When there are no such rows, the tensor is a temporary, or the rows do not start at a multiple of 256 bytes.
    pub fn rows(&mut self, t: TensorId, rows: Range<usize>) -> TensorId {
        let view = self.slice(t, rows.clone());
        assert!(self.can_start(view), "{} {:?}: rows {rows:?}", self.tensor(t).name, self.shape(t));
        view
    }

    /// [`Graph::rows`] that may start anywhere: if not at a multiple of 256 bytes, only the host can use them.
    ///
    /// # Panics
    /// When there are no such rows, or the tensor is a temporary.
    pub fn slice(&mut self, t: TensorId, rows: Range<usize>) -> TensorId {
        let Tensor { name, shape, dtype, kind } = self.tensor(t).clone();
        assert!(rows.start < rows.end && rows.end <= shape[0], "{name} {shape:?}: rows {rows:?}");
        if rows == (0..shape[0]) {
            return t;
        }
        assert!(kind != Kind::Temp, "{name} {shape:?}: rows {rows:?}");
        let (base, first) = (self.base(t), self.place(t).start);
        let rows = first + rows.start..first + rows.end;
        if let Some(view) = self.views.get(&(base, rows.clone())) {
            return *view;
        }
        let at = rows.start * self.row_bytes(t);
        let shape = [&[rows.len()], &shape[1..]].concat();
        let name = format!("{}[{}..{}]", self.tensor(base).name, rows.start, rows.end);
        let view = self.add(name, &shape, dtype, Kind::View { of: base, at });
        self.views.insert((base, rows), view);
        view
    }

    /// Whether a binding can start where this tensor does.
    fn can_start(&self, t: TensorId) -> bool {
        match self.tensor(t).kind {
            Kind::View { at, .. } => at.is_multiple_of(VIEW_ALIGN),
            Kind::Temp | Kind::Persistent => true,
        }
    }

    /// The rows of its base that a tensor is.
    fn place(&self, t: TensorId) -> Range<usize> {
        let first = match self.tensor(t).kind {
            Kind::View { at, .. } => at / self.row_bytes(t),
            Kind::Temp | Kind::Persistent => 0,
        };
        first..first + self.shape(t)[0]
    }

    /// The same rows of another persistent tensor, where there is this view of it.
    pub(crate) fn alike(&self, t: TensorId, other: TensorId) -> Option<TensorId> {
        let rows = self.place(t);
        if rows == self.place(other) { Some(other) } else { self.views.get(&(other, rows)).copied() }
    }

    /// Whether an op can bind these elements of a tensor at once, wherever they start.
    pub(crate) fn fits(&self, t: TensorId, elements: Range<usize>) -> bool {
        let rows = elements.len().div_ceil(self.row_elements(t)) + PART_ROWS;
        self.tensor(t).bytes() <= MAX_BINDING || rows * self.row_bytes(t) <= MAX_BINDING
    }

    /// What an op can bind of tensors with the same number of rows to reach the elements `elements` of the first, which is the
    /// largest, and the first of these there: views of few rows, or the tensors themselves where they are small.
    pub(crate) fn window(&mut self, tensors: &[TensorId], elements: Range<usize>) -> (Vec<TensorId>, usize) {
        if self.tensor(tensors[0]).bytes() <= MAX_BINDING {
            return (tensors.to_vec(), elements.start);
        }
        let row = self.row_elements(tensors[0]);
        let mut first = elements.start / row;
        while tensors.iter().any(|t| !(first * self.row_bytes(*t)).is_multiple_of(VIEW_ALIGN)) {
            first -= 1;
        }
        let rows = first..elements.end.div_ceil(row);
        (tensors.iter().map(|t| self.rows(*t, rows.clone())).collect(), elements.start - first * row)
    }

    /// A tensor in parts of at most [`MAX_BINDING`] bytes where that is possible, views of its rows; a tensor that is no larger,
    /// or that is a temporary, is a single part.
    pub fn parts(&mut self, t: TensorId) -> Vec<TensorId> {
        self.parts_of([t]).into_iter().flatten().collect()
    }

    /// The parts of several tensors with the same number of rows, side by side: those of each have the same rows, so few that
    /// all can be bound.
    pub(crate) fn parts_of<const N: usize>(&mut self, tensors: [TensorId; N]) -> Vec<[TensorId; N]> {
        let whole = |t: &TensorId| self.tensor(*t).kind == Kind::Temp || self.tensor(*t).bytes() <= MAX_BINDING;
        if tensors.iter().all(whole) {
            return vec![tensors];
        }
        let bytes = tensors.iter().map(|t| self.row_bytes(*t)).max().unwrap_or(0);
        parts(self.shape(tensors[0])[0], bytes).map(|rows| tensors.map(|t| self.rows(t, rows.clone()))).collect()
    }

    /// Elements of a row, counted by the first dimension.
    fn row_elements(&self, t: TensorId) -> usize {
        self.shape(t)[1..].iter().product()
    }

    /// Bytes of a row, counted by the first dimension.
    pub(crate) fn row_bytes(&self, t: TensorId) -> usize {
        self.row_elements(t) * self.tensor(t).dtype.bytes()
    }

    /// The element of its base at which a tensor starts.
    pub(crate) fn first(&self, t: TensorId) -> usize {
        self.place(t).start * self.row_elements(t)
    }

    /// The tensor whose memory this one is or is a part of.
    pub(crate) fn base(&self, t: TensorId) -> TensorId {
        match self.tensor(t).kind {
            Kind::View { of, .. } => of,
            Kind::Temp | Kind::Persistent => t,
        }
    }

    /// Notes that a tensor holds two or three matrices, of which the second and the third begin at these rows; 0 where there is none
    /// before.
    pub fn cut(&mut self, t: TensorId, rows: [usize; 2]) {
        self.cuts.insert(t, rows);
    }

    /// What [`Graph::cut`] noted, or zeros.
    pub fn cuts(&self, t: TensorId) -> [usize; 2] {
        self.cuts.get(&t).copied().unwrap_or_default()
    }

    /// The argument `fast` of the products of a backward pass.
    pub(crate) fn fast(&self) -> u32 {
        u32::from(self.precision == Precision::Fast)
    }

    /// Renames a tensor, for traces and error messages.
    pub fn name(&mut self, t: TensorId, name: &str) -> TensorId {
        self.tensors[t.index()].name = format!("{}{name}", self.prefix);
        t
    }

    /// Sets the prefix of the names of new tensors; returns the previous one.
    pub(crate) fn set_prefix(&mut self, prefix: &str) -> String {
        std::mem::replace(&mut self.prefix, prefix.to_string())
    }

    /// Appends a node. `tensors` are in the order of the op's bindings.
    ///
    /// # Panics
    /// When the number or the type of the tensors differs from the op's bindings, a view starts where no binding can, or a tensor
    /// is written and bound twice, be it in different parts, which WebGPU forbids.
    pub fn push<A: Args>(&mut self, op: &'static Op, args: A, tensors: &[TensorId]) {
        assert_eq!(tensors.len(), op.bindings.len(), "{}: number of buffers", op.name);
        for (i, (t, b)) in tensors.iter().zip(op.bindings).enumerate() {
            let tensor = &self.tensors[t.index()];
            assert_eq!(tensor.dtype, b.dtype, "{}: type of {} ({})", op.name, b.name, tensor.name);
            let writes = |j: usize| op.bindings[j].access != Access::Read;
            assert!(self.can_start(*t), "{}: no binding can start where {} does", op.name, tensor.name);
            let twice = (0..i).any(|j| self.base(tensors[j]) == self.base(*t) && (writes(i) || writes(j)));
            assert!(!twice, "{}: {} is written and bound twice", op.name, tensor.name);
        }
        self.nodes.push(Node { op, args: args.to_words(), tensors: tensors.to_vec() });
    }

    /// The description of a tensor.
    pub fn tensor(&self, t: TensorId) -> &Tensor {
        &self.tensors[t.index()]
    }

    /// The dimensions of a tensor, outermost first.
    pub fn shape(&self, t: TensorId) -> &[usize] {
        &self.tensors[t.index()].shape
    }

    /// A tensor's shape as (rows, columns): the columns are the last dimension, the rows the product of all others.
    pub fn matrix(&self, t: TensorId) -> (usize, usize) {
        let shape = self.shape(t);
        let cols = *shape.last().expect("a tensor has dimensions");
        (self.tensor(t).elements() / cols, cols)
    }

    /// Makes a section of the nodes that `build` appends; also returns what `build` does.
    pub fn section<T>(&mut self, name: &'static str, build: impl FnOnce(&mut Self) -> T) -> (Section, T) {
        let start = self.nodes.len();
        let result = build(self);
        let section = Section { name, start, end: self.nodes.len() };
        self.sections.push(section);
        (section, result)
    }

    /// Builds nodes whose temporaries the backward pass recomputes (gradient checkpointing, Chen et al. 2016).
    pub fn recompute<T>(&mut self, build: impl FnOnce(&mut Self) -> T) -> T {
        let start = self.nodes.len();
        let result = build(self);
        self.recomputed.push(start..self.nodes.len());
        result
    }

    /// Makes a persistent f32 gradient for a parameter and the views that there are of it. Backward passes add to it; the caller
    /// must set it to zero.
    pub fn add_gradient(&mut self, param: TensorId) -> TensorId {
        let row = self.shape(param)[1..].to_vec();
        let grad = self.like(param, &row, DType::F32, |name| format!("grad.{name}"));
        self.gradients.insert(param, grad);
        grad
    }

    /// The gradient of a parameter or of a view of one, if [`Graph::add_gradient`] made one.
    pub fn gradient(&self, param: TensorId) -> Option<TensorId> {
        self.gradients.get(&self.base(param)).and_then(|grad| self.alike(param, *grad))
    }

    /// A new persistent tensor with as many rows as another, each of shape `row`, and with views of it where there are views of
    /// that one.
    pub(crate) fn like(&mut self, t: TensorId, row: &[usize], dtype: DType, name: impl Fn(&str) -> String) -> TensorId {
        let Tensor { name: old, shape, .. } = self.tensor(t).clone();
        let new = self.add(name(&old), &[&shape[..1], row].concat(), dtype, Kind::Persistent);
        let mut views: Vec<(Range<usize>, TensorId)> =
            self.views.iter().filter(|((of, _), _)| *of == t).map(|((_, rows), view)| (rows.clone(), *view)).collect();
        views.sort_by_key(|(_, view)| *view);
        for (rows, view) in views {
            let (name, view) = (name(&self.tensor(view).name), self.slice(new, rows));
            self.tensors[view.index()].name = name;
        }
        new
    }

    /// The tensors that a node writes, wholly or in part.
    pub fn outputs<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = TensorId> + 'a {
        node.tensors.iter().zip(node.op.bindings).filter(|(_, b)| b.access != Access::Read).map(|(t, _)| *t)
    }

    /// Operations of the matrix products in a range of nodes; a multiply-add counts as two.
    pub fn flops(&self, nodes: Range<usize>) -> u64 {
        self.nodes[nodes].iter().map(|n| (n.op.flops)(&n.args)).sum()
    }
}

/// Cuts `rows` rows of `bytes` bytes each into ranges of about the same size, each at most [`MAX_BINDING`] bytes where rows are
/// small enough for it.
pub(crate) fn parts(rows: usize, bytes: usize) -> impl Iterator<Item = Range<usize>> {
    let most = (MAX_BINDING / bytes.max(1) / PART_ROWS).max(1) * PART_ROWS;
    let size = rows.div_ceil(rows.div_ceil(most).max(1)).next_multiple_of(PART_ROWS);
    (0..rows).step_by(size.max(1)).map(move |start| start..rows.min(start + size))
}
