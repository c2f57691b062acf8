//! Reverse-mode differentiation as a pass over the graph: each op's `grad` appends the ops of its gradient.
//!
//! Gradients of parameters are persistent and always accumulated, which handles several micro-batches and several uses of one
//! parameter (a tied head, a chunked loss). Gradients of activations are temporaries, created with the first contribution.

use super::{Access, DType, Grad, Graph, Kind, Node, Op, TensorId};
use cpu_kernels::{Args, ops::add::AddArgs, ops::copy::CopyArgs};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// The ops that accumulate contributions to one gradient.
#[derive(Clone, Copy)]
pub(crate) struct Accumulate {
    /// y = x, with buffers (x, y) and [`CopyArgs`].
    pub copy: &'static Op,
    /// y = a + b, with buffers (a, b, y) and [`AddArgs`].
    pub add: &'static Op,
}

/// A backward pass in progress.
pub struct Backward<'g> {
    /// The graph to which gradients are appended.
    pub graph: &'g mut Graph,
    /// The gradient of each tensor that a node before those that were walked wrote. The two terms of a sum share one.
    grads: HashMap<TensorId, TensorId>,
    /// The gradients that the caller gave, which are not written.
    seeds: HashSet<TensorId>,
    /// Tensors that depend on a parameter; only these get gradients.
    active: HashSet<TensorId>,
    /// First input of each straight-through op, by its first output. Of views, the tensors of which they are rows: such an op
    /// makes a row of its output from the same row of its input.
    through: HashMap<TensorId, TensorId>,
    /// The recomputed copy of each temporary that is recomputed.
    again: HashMap<TensorId, TensorId>,
    accumulate: Accumulate,
}

impl<'g> Backward<'g> {
    /// Appends the gradients of `nodes` of the graph, given `seeds`: pairs of one of their outputs and its gradient.
    pub(crate) fn append(
        graph: &'g mut Graph,
        nodes: Range<usize>,
        seeds: &[(TensorId, TensorId)],
        accumulate: Accumulate,
    ) -> Backward<'g> {
        let mut active: HashSet<TensorId> = graph.gradients.keys().copied().collect();
        let mut through = HashMap::new();
        for node in &graph.nodes {
            if node.tensors.iter().any(|t| active.contains(&graph.base(*t))) {
                active.extend(graph.outputs(node).map(|t| graph.base(t)));
            }
            if let Grad::StraightThrough = node.op.grad {
                let output = graph.outputs(node).next().expect("a quantiser writes its codes");
                through.insert(graph.base(output), graph.base(node.tensors[0]));
            }
        }
        let grads = seeds.iter().copied().collect();
        let seeds = seeds.iter().map(|(_, grad)| *grad).collect();
        let mut pass = Backward { graph, grads, seeds, active, through, again: HashMap::new(), accumulate };
        pass.walk(nodes);
        pass
    }

    fn walk(&mut self, nodes: Range<usize>) {
        let mut recomputed = self.graph.recomputed.clone();
        for i in nodes.rev() {
            while recomputed.pop_if(|range| range.end > i + 1).is_some() {}
            if let Some(range) = recomputed.pop_if(|range| range.end == i + 1) {
                self.compute_again(range);
            }
            let node = self.graph.nodes[i].clone();
            if let Grad::Append(grad) = node.op.grad
                && self.graph.outputs(&node).any(|t| self.grads.contains_key(&self.resolve(t)))
            {
                grad(self, &node);
                // What the node wrote has no further gradient, so that another tensor's may be added to in its place.
                for (t, binding) in node.tensors.iter().zip(node.op.bindings) {
                    if binding.access == Access::Write {
                        self.grads.remove(t);
                    }
                }
            }
        }
    }

    /// Appends copies of `nodes` that write new temporaries. From here on, these replace the old ones.
    fn compute_again(&mut self, nodes: Range<usize>) {
        for i in nodes {
            let node = self.graph.nodes[i].clone();
            for t in self.graph.outputs(&node).collect::<Vec<_>>() {
                let tensor = self.graph.tensor(t).clone();
                assert!(tensor.kind == Kind::Temp, "{}: a recomputed op writes only temporaries", node.op.name);
                self.again.entry(t).or_insert_with(|| {
                    self.graph.add(format!("{}.again", tensor.name), &tensor.shape, tensor.dtype, Kind::Temp)
                });
            }
            let tensors = node.tensors.iter().map(|t| self.now(*t)).collect();
            self.graph.nodes.push(Node { tensors, ..node });
        }
    }

    /// The recomputed copy of `t`, if it was recomputed, or `t` itself.
    fn now(&self, t: TensorId) -> TensorId {
        self.again.get(&t).copied().unwrap_or(t)
    }

    /// The tensor whose gradient is that of `t`: passes back through straight-through ops.
    fn resolve(&self, mut t: TensorId) -> TensorId {
        while let Some(input) = self.through.get(&self.graph.base(t)) {
            t = self.graph.alike(t, *input).expect("rows that are rounded are a view of the parameter");
        }
        t
    }

    /// Appends an op. Tensors that were recomputed are replaced by their copies.
    pub fn push<A: Args>(&mut self, op: &'static Op, args: A, tensors: &[TensorId]) {
        let tensors: Vec<TensorId> = tensors.iter().map(|t| self.now(*t)).collect();
        self.graph.push(op, args, &tensors);
    }

    /// The gradient of an op's output; `None` if the seeds do not depend on it.
    pub fn grad(&self, t: TensorId) -> Option<TensorId> {
        self.grads.get(&self.resolve(t)).copied()
    }

    /// Whether the gradient of `t` is needed: whether `t` depends on a parameter.
    pub fn wants(&self, t: TensorId) -> bool {
        self.active.contains(&self.graph.base(self.resolve(t)))
    }

    /// The tensor that accumulates the gradient of `t`, for an op that computes grad = beta * grad + contribution, and the
    /// beta to use: 0 for the first contribution to a temporary, otherwise 1.
    pub fn slot(&mut self, t: TensorId) -> (TensorId, f32) {
        let t = self.resolve(t);
        if let Some(param) = self.graph.gradient(t) {
            return (param, 1.0);
        }
        match self.grads.get(&t).copied() {
            Some(grad) if self.is_alone(grad) => (grad, 1.0),
            Some(grad) => {
                let own = self.fresh(t);
                let n = self.graph.tensor(own).elements() as u32;
                self.graph.push(self.accumulate.copy, CopyArgs { n }, &[grad, own]);
                self.grads.insert(t, own);
                (own, 1.0)
            }
            None => {
                let own = self.fresh(t);
                self.grads.insert(t, own);
                (own, 0.0)
            }
        }
    }

    /// Whether a gradient is that of one tensor and no seed, so that it may be added to in place.
    fn is_alone(&self, grad: TensorId) -> bool {
        !self.seeds.contains(&grad) && self.grads.values().filter(|other| **other == grad).count() == 1
    }

    /// A new f32 temporary with the shape of `t`, for a contribution that is given to [`Backward::pass`].
    pub fn fresh(&mut self, t: TensorId) -> TensorId {
        let tensor = self.graph.tensor(t).clone();
        self.graph.add(format!("d.{}", tensor.name), &tensor.shape, DType::F32, Kind::Temp)
    }

    /// Adds the contribution `dt` to the gradient of `t`.
    ///
    /// # Panics
    /// When `t` is a parameter: its gradient is accumulated through [`Backward::slot`].
    pub fn pass(&mut self, t: TensorId, dt: TensorId) {
        let t = self.resolve(t);
        assert!(self.graph.gradient(t).is_none(), "gradients of parameters are accumulated through `slot`");
        let grad = match self.grads.get(&t).copied() {
            None => dt,
            Some(grad) => {
                let sum = self.fresh(t);
                let n = self.graph.tensor(sum).elements() as u32;
                self.graph.push(self.accumulate.add, AddArgs { n }, &[grad, dt, sum]);
                sum
            }
        };
        self.grads.insert(t, grad);
    }
}
