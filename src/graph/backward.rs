//! Reverse-mode differentiation as a pass: each op's `grad` appends ops to the graph.
//!
//! Gradients of parameters are persistent and always added to, so that several micro-batches and several uses of one
//! parameter (a tied head, a chunked loss) need nothing special. Gradients of activations are temporaries, made when the
//! first contribution arrives.

use super::{DType, Grad, Graph, Kind, Node, Op, TensorId};
use cpu_kernels::{Args, ops::add::AddArgs, ops::copy::CopyArgs};
use std::collections::{HashMap, HashSet};
use std::ops::Range;

#[derive(Clone, Copy)]
struct Entry {
    grad: TensorId,
    /// Nobody else reads it: contributions may be added in place.
    owned: bool,
}

/// The ops that add up several contributions to one gradient: (x, y) with [`CopyArgs`], and (a, b, sum) with [`AddArgs`].
#[derive(Clone, Copy)]
pub struct Accumulate {
    pub copy: &'static Op,
    pub add: &'static Op,
}

/// The pass in progress.
pub struct Backward<'g> {
    pub graph: &'g mut Graph,
    grads: HashMap<TensorId, Entry>,
    /// Tensors on the way from a parameter; only these get gradients.
    active: HashSet<TensorId>,
    /// First input of the straight-through ops, by their first output.
    through: HashMap<TensorId, TensorId>,
    /// What stands for a temporary that is computed again.
    again: HashMap<TensorId, TensorId>,
    accumulate: Accumulate,
}

impl<'g> Backward<'g> {
    /// Appends the gradient of `nodes` of the graph, given the gradients of some of their outputs.
    pub fn append(
        graph: &'g mut Graph,
        nodes: Range<usize>,
        seeds: &[(TensorId, TensorId)],
        accumulate: Accumulate,
    ) -> Backward<'g> {
        let mut active: HashSet<TensorId> = graph.gradients.iter().map(|(p, _)| *p).collect();
        let mut through = HashMap::new();
        for node in &graph.nodes {
            if node.tensors.iter().any(|t| active.contains(t)) {
                active.extend(graph.outputs(node));
            }
            if let Grad::StraightThrough = node.op.grad {
                let output = graph.outputs(node).next().expect("a quantiser writes its codes");
                through.insert(output, node.tensors[0]);
            }
        }
        let grads = seeds.iter().map(|&(t, grad)| (t, Entry { grad, owned: false })).collect();
        let mut pass = Backward { graph, grads, active, through, again: HashMap::new(), accumulate };
        pass.walk(nodes);
        pass
    }

    fn walk(&mut self, nodes: Range<usize>) {
        let recomputed = self.graph.recomputed.clone();
        for i in nodes.rev() {
            if let Some(stretch) = recomputed.iter().find(|s| s.end == i + 1) {
                self.compute_again(stretch.clone());
            }
            let node = self.graph.nodes[i].clone();
            if let Grad::Append(grad) = node.op.grad
                && self.graph.outputs(&node).any(|t| self.grads.contains_key(&self.resolve(t)))
            {
                grad(self, &node);
            }
        }
    }

    /// Appends copies of a stretch's nodes, writing new temporaries that stand for the old ones from here on.
    fn compute_again(&mut self, stretch: Range<usize>) {
        for i in stretch {
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

    fn now(&self, t: TensorId) -> TensorId {
        self.again.get(&t).copied().unwrap_or(t)
    }

    /// Whose gradient the gradient of `t` is.
    fn resolve(&self, mut t: TensorId) -> TensorId {
        while let Some(input) = self.through.get(&t) {
            t = *input;
        }
        t
    }

    /// Appends an op; forward tensors among `tensors` may have been computed again.
    pub fn push<A: Args>(&mut self, op: &'static Op, args: A, tensors: &[TensorId]) {
        let tensors: Vec<TensorId> = tensors.iter().map(|t| self.now(*t)).collect();
        self.graph.push(op, args, &tensors);
    }

    /// The gradient of an op's output, if anything depends on it.
    pub fn grad(&self, t: TensorId) -> Option<TensorId> {
        self.grads.get(&self.resolve(t)).map(|e| e.grad)
    }

    /// Whether the gradient of `t` is wanted.
    pub fn wants(&self, t: TensorId) -> bool {
        self.active.contains(&self.resolve(t))
    }

    /// The tensor to put a gradient of `t` into, and the beta to do it with: 0 for the first contribution, 1 to add.
    pub fn slot(&mut self, t: TensorId) -> (TensorId, f32) {
        let t = self.resolve(t);
        if let Some(param) = self.graph.gradient(t) {
            return (param, 1.0);
        }
        match self.grads.get(&t).copied() {
            Some(Entry { grad, owned: true }) => (grad, 1.0),
            Some(Entry { grad, owned: false }) => {
                let own = self.fresh(t);
                let n = self.graph.tensor(own).elements() as u32;
                self.graph.push(self.accumulate.copy, CopyArgs { n }, &[grad, own]);
                self.grads.insert(t, Entry { grad: own, owned: true });
                (own, 1.0)
            }
            None => {
                let own = self.fresh(t);
                self.grads.insert(t, Entry { grad: own, owned: true });
                (own, 0.0)
            }
        }
    }

    /// A new temporary of the shape of `t`, to be given to [`Backward::pass`].
    pub fn fresh(&mut self, t: TensorId) -> TensorId {
        let tensor = self.graph.tensor(t).clone();
        self.graph.add(format!("d.{}", tensor.name), &tensor.shape, DType::F32, Kind::Temp)
    }

    /// Hands `dt` over as a contribution to the gradient of `t`. `owned`: nothing else reads `dt`.
    pub fn pass(&mut self, t: TensorId, dt: TensorId, owned: bool) {
        let t = self.resolve(t);
        assert!(self.graph.gradient(t).is_none(), "gradients of parameters are added to, through `slot`");
        let entry = match self.grads.get(&t).copied() {
            None => Entry { grad: dt, owned },
            Some(Entry { grad, .. }) => {
                let sum = self.fresh(t);
                let n = self.graph.tensor(sum).elements() as u32;
                self.graph.push(self.accumulate.add, AddArgs { n }, &[grad, dt, sum]);
                Entry { grad: sum, owned: true }
            }
        };
        self.grads.insert(t, entry);
    }
}
