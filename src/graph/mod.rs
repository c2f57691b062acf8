//! A static graph of ops over named tensors, in execution order, and the pure passes over it: gradients, recomputation,
//! memory plan. No device is known here.

mod backward;
mod op;
mod plan;

pub use backward::{Accumulate, Backward};
pub use op::{Access, Binding, DType, Grad, Op};
pub use plan::{Plan, Slot};

use cpu_kernels::{ArgWords, Args};
use std::ops::Range;

/// A tensor of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId(pub(crate) u32);

impl TensorId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How long a tensor lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// From its first use to its last, within one section; shares memory with others.
    Temp,
    /// As long as the program: inputs, constants, parameters, gradients, optimizer state.
    Persistent,
}

#[derive(Clone, Debug)]
pub struct Tensor {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: DType,
    pub kind: Kind,
}

impl Tensor {
    /// Number of values; like the sizes in bytes it saturates, so that what is too large for a browser's 32 bits stays so.
    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1, |n, size| n.saturating_mul(*size))
    }

    /// Size in bytes, whole words.
    pub fn bytes(&self) -> usize {
        self.elements().saturating_mul(self.dtype.bytes()).checked_next_multiple_of(4).unwrap_or(usize::MAX)
    }
}

/// One op applied to tensors, in the order of its bindings.
#[derive(Clone, Debug)]
pub struct Node {
    pub op: &'static Op,
    pub args: ArgWords,
    pub tensors: Vec<TensorId>,
}

/// A range of nodes that is submitted as one: a part of a training step, an evaluation, a decode step.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// For error messages and traces.
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

#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub tensors: Vec<Tensor>,
    pub nodes: Vec<Node>,
    pub sections: Vec<Section>,
    /// Gradient tensors of the parameters.
    gradients: Vec<(TensorId, TensorId)>,
    /// Stretches of nodes whose temporaries are computed again for the backward pass instead of being kept.
    recomputed: Vec<Range<usize>>,
    prefix: String,
}

impl Graph {
    pub fn new() -> Self {
        Self::default()
    }

    fn add(&mut self, name: String, shape: &[usize], dtype: DType, kind: Kind) -> TensorId {
        let id = TensorId(self.tensors.len() as u32);
        self.tensors.push(Tensor { name, shape: shape.to_vec(), dtype, kind });
        id
    }

    /// A tensor that keeps its contents between submissions.
    pub fn persistent(&mut self, name: &str, shape: &[usize], dtype: DType) -> TensorId {
        self.add(format!("{}{name}", self.prefix), shape, dtype, Kind::Persistent)
    }

    /// A tensor that lives within a section.
    pub fn temp(&mut self, name: &str, shape: &[usize], dtype: DType) -> TensorId {
        self.add(format!("{}{name}", self.prefix), shape, dtype, Kind::Temp)
    }

    /// Gives a tensor a better name, for traces and error messages.
    pub fn name(&mut self, t: TensorId, name: &str) -> TensorId {
        self.tensors[t.index()].name = format!("{}{name}", self.prefix);
        t
    }

    /// Sets what comes before the name of every tensor made from now on; returns what was set before.
    pub fn set_prefix(&mut self, prefix: &str) -> String {
        std::mem::replace(&mut self.prefix, prefix.to_string())
    }

    /// Appends an op. `tensors` are in the order of its bindings.
    ///
    /// # Panics
    /// When a tensor has not the type the op's table entry names, or is written and bound twice: WebGPU forbids that.
    pub fn push<A: Args>(&mut self, op: &'static Op, args: A, tensors: &[TensorId]) {
        assert_eq!(tensors.len(), op.bindings.len(), "{}: number of buffers", op.name);
        for (i, (t, b)) in tensors.iter().zip(op.bindings).enumerate() {
            let tensor = &self.tensors[t.index()];
            assert_eq!(tensor.dtype, b.dtype, "{}: type of {} ({})", op.name, b.name, tensor.name);
            let writes = |j: usize| op.bindings[j].access != Access::Read;
            let twice = (0..i).any(|j| tensors[j] == *t && (writes(i) || writes(j)));
            assert!(!twice, "{}: {} is written and bound twice", op.name, tensor.name);
        }
        self.nodes.push(Node { op, args: args.to_words(), tensors: tensors.to_vec() });
    }

    pub fn tensor(&self, t: TensorId) -> &Tensor {
        &self.tensors[t.index()]
    }

    pub fn shape(&self, t: TensorId) -> &[usize] {
        &self.tensors[t.index()].shape
    }

    /// (rows, columns): the last dimension is the columns.
    pub fn matrix(&self, t: TensorId) -> (usize, usize) {
        let shape = self.shape(t);
        let cols = *shape.last().expect("a tensor has dimensions");
        (self.tensor(t).elements() / cols, cols)
    }

    /// The first tensor of that name.
    pub fn find(&self, name: &str) -> Option<TensorId> {
        self.tensors.iter().position(|t| t.name == name).map(|i| TensorId(i as u32))
    }

    /// Makes a section of the nodes that `build` appends; also returns what `build` does.
    pub fn section<T>(&mut self, name: &'static str, build: impl FnOnce(&mut Self) -> T) -> (Section, T) {
        let start = self.nodes.len();
        let result = build(self);
        let section = Section { name, start, end: self.nodes.len() };
        self.sections.push(section);
        (section, result)
    }

    /// Builds nodes whose temporaries the backward pass computes again (gradient checkpointing, Chen et al. 2016).
    pub fn recompute<T>(&mut self, build: impl FnOnce(&mut Self) -> T) -> T {
        let start = self.nodes.len();
        let result = build(self);
        self.recomputed.push(start..self.nodes.len());
        result
    }

    /// Makes a persistent gradient for a parameter. Backward passes add to it; the owner sets it to zero.
    pub fn add_gradient(&mut self, param: TensorId) -> TensorId {
        let Tensor { name, shape, .. } = self.tensor(param).clone();
        let grad = self.add(format!("grad.{name}"), &shape, DType::F32, Kind::Persistent);
        self.gradients.push((param, grad));
        grad
    }

    /// The gradient tensor of a parameter, if it was given one.
    pub fn gradient(&self, param: TensorId) -> Option<TensorId> {
        self.gradients.iter().find(|(p, _)| *p == param).map(|(_, g)| *g)
    }

    /// Tensors that a node writes, whole or in part.
    pub fn outputs<'a>(&'a self, node: &'a Node) -> impl Iterator<Item = TensorId> + 'a {
        node.tensors.iter().zip(node.op.bindings).filter(|(_, b)| b.access != Access::Read).map(|(t, _)| *t)
    }

    /// Floating-point operations of the matrix products of a stretch of nodes.
    pub fn flops(&self, nodes: Range<usize>) -> u64 {
        self.nodes[nodes].iter().map(|n| (n.op.flops)(&n.args)).sum()
    }
}
