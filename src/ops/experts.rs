//! A mixture of experts: the router, rows sorted by expert and back, and the products of each expert's rows with its matrix.

use super::bitlinear::{QuantRows, TernaryWeight};
use super::{
    GROUPED_MATMUL, GROUPED_TERNARY, GROUPED_TERNARY_BACKWARD_INPUT, GROUPED_TERNARY_BACKWARD_WEIGHT, MATMUL,
    MOE_BALANCE, MOE_BALANCE_BACKWARD, MOE_BIAS, MOE_COMBINE, MOE_COMBINE_BACKWARD, MOE_DISPATCH,
    MOE_DISPATCH_BACKWARD, MOE_ROUTE, MOE_ROUTE_BACKWARD, MOE_SORT, MOE_TALLY, StepControl,
};
use crate::graph::{Backward, DType, Graph, Node, TensorId};
use cpu_kernels::Args;
use cpu_kernels::ops::grouped_matmul::GroupedMatmulArgs;
use cpu_kernels::ops::grouped_ternary::GroupedTernaryArgs;
use cpu_kernels::ops::grouped_ternary_backward_input::GroupedTernaryBackwardInputArgs;
use cpu_kernels::ops::grouped_ternary_backward_weight::GroupedTernaryBackwardWeightArgs;
use cpu_kernels::ops::matmul::MatmulArgs;
use cpu_kernels::ops::moe_balance::MoeBalanceArgs;
use cpu_kernels::ops::moe_balance_backward::MoeBalanceBackwardArgs;
use cpu_kernels::ops::moe_bias::MoeBiasArgs;
use cpu_kernels::ops::moe_combine::MoeCombineArgs;
use cpu_kernels::ops::moe_combine_backward::MoeCombineBackwardArgs;
use cpu_kernels::ops::moe_dispatch::MoeDispatchArgs;
use cpu_kernels::ops::moe_dispatch_backward::MoeDispatchBackwardArgs;
use cpu_kernels::ops::moe_route::MoeRouteArgs;
use cpu_kernels::ops::moe_route_backward::MoeRouteBackwardArgs;
use cpu_kernels::ops::moe_sort::MoeSortArgs;
use cpu_kernels::ops::moe_tally::MoeTallyArgs;

/// Which experts the rows of a tensor go to, and where they lie when they are sorted by expert. An assignment is a row and one of
/// its experts; there are k for each row.
#[derive(Clone, Copy, Debug)]
pub struct Routing {
    /// (rows, experts) f32: what the router says.
    pub logits: TensorId,
    /// (rows, k) f32: how much each expert counts, the first the most.
    pub weights: TensorId,
    /// (rows, k) u32: the place of each assignment.
    pub place: TensorId,
    /// (experts + 1) u32: the assignments of expert e lie from `starts[e]` up to `starts[e + 1]`.
    pub starts: TensorId,
}

impl Graph {
    /// Routes x (rows, dim) to k experts each, by a router w (experts, dim) and the bias (experts) of their choice, and sorts the
    /// assignments by expert, those of an expert by row.
    ///
    /// # Panics
    /// When the shapes do not match, or there are fewer experts than k.
    pub fn route(&mut self, x: TensorId, w: TensorId, bias: TensorId, k: usize) -> Routing {
        let ((rows, dim), (experts, w_dim)) = (self.matrix(x), self.matrix(w));
        let fits = dim == w_dim && self.shape(bias) == [experts] && (1..=experts).contains(&k);
        assert!(fits, "route: {} by {}", self.tensor(x).name, self.tensor(w).name);
        let logits = self.temp("router.logits", &[rows, experts], DType::F32);
        let chosen = self.temp("router.chosen", &[rows, k], DType::U32);
        let weights = self.temp("router.weights", &[rows, k], DType::F32);
        let args = MoeRouteArgs { rows: rows as u32, dim: dim as u32, experts: experts as u32, k: k as u32 };
        self.push(&MOE_ROUTE, args, &[x, w, bias, logits, chosen, weights]);
        let place = self.temp("router.place", &[rows, k], DType::U32);
        let starts = self.temp("router.starts", &[experts + 1], DType::U32);
        let args = MoeSortArgs { n: (rows * k) as u32, experts: experts as u32 };
        self.push(&MOE_SORT, args, &[chosen, place, starts]);
        Routing { logits, weights, place, starts }
    }

    /// x (rows, dim) at the places of its assignments -> (rows * k, dim).
    pub fn dispatch(&mut self, x: TensorId, to: &Routing) -> TensorId {
        let ((rows, dim), (assigned, k)) = (self.matrix(x), self.matrix(to.place));
        assert_eq!(rows, assigned, "dispatch: rows of {}", self.tensor(x).name);
        let y = self.temp("dispatched", &[rows * k, dim], DType::F32);
        let args = MoeDispatchArgs { n: (rows * k) as u32, dim: dim as u32, k: k as u32 };
        self.push(&MOE_DISPATCH, args, &[x, to.place, y]);
        y
    }

    /// The weighted sum of what the experts of each row gave: x (rows * k, dim) -> (rows, dim).
    pub fn combine(&mut self, x: TensorId, from: &Routing) -> TensorId {
        let ((n, dim), (rows, k)) = (self.matrix(x), self.matrix(from.place));
        assert_eq!(n, rows * k, "combine: rows of {}", self.tensor(x).name);
        let y = self.temp("combined", &[rows, dim], DType::F32);
        let args = MoeCombineArgs { rows: rows as u32, dim: dim as u32, k: k as u32 };
        self.push(&MOE_COMBINE, args, &[x, from.place, from.weights, y]);
        y
    }

    /// x `w[e]`^T for the rows of x (rows, dim) that are those of expert e, with f32 matrices w (experts * outs, dim) -> (rows, outs).
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn grouped_linear(&mut self, x: TensorId, w: TensorId, starts: TensorId) -> TensorId {
        let ((rows, dim), (all, w_dim), experts) = (self.matrix(x), self.matrix(w), self.shape(starts)[0] - 1);
        assert!(dim == w_dim && all.is_multiple_of(experts), "grouped_linear: {}", self.tensor(w).name);
        let y = self.temp("grouped", &[rows, all / experts], DType::F32);
        let [rows, experts, outs, dim] = [rows, experts, all / experts, dim].map(|n| n as u32);
        let args = GroupedMatmulArgs { rows, experts, outs, dim, kind: 0, beta: 0.0, fast: 0 };
        self.push(&GROUPED_MATMUL, args, &[x, w, starts, y]);
        y
    }

    /// [`Graph::grouped_linear`] with int8 rows and ternary matrices, in w one under the other.
    ///
    /// # Panics
    /// When the shapes do not match.
    pub fn grouped_ternary(&mut self, x: QuantRows, w: &TernaryWeight, starts: TensorId) -> TensorId {
        let ((rows, dim), experts) = (self.matrix(x.codes), self.shape(starts)[0] - 1);
        let fits = dim == w.dim as usize && (w.outs as usize).is_multiple_of(experts);
        assert!(fits, "grouped_ternary: {}", self.tensor(w.codes).name);
        let outs = w.outs as usize / experts;
        let y = self.temp("grouped", &[rows, outs], DType::F32);
        let [rows, experts, outs] = [rows, experts, outs].map(|n| n as u32);
        let args = GroupedTernaryArgs { rows, experts, outs, dim: w.dim, group: w.group };
        self.push(&GROUPED_TERNARY, args, &[x.codes, x.step, starts, w.codes, w.scales, y]);
        y
    }

    /// The loss that balances experts (Fedus et al. 2021), of all rows of a pass -> (1).
    pub fn balance_loss(&mut self, routing: &Routing) -> TensorId {
        let (rows, experts) = self.matrix(routing.logits);
        let value = self.temp("balance", &[1], DType::F32);
        let args = MoeBalanceArgs { rows: rows as u32, experts: experts as u32 };
        self.push(&MOE_BALANCE, args, &[routing.logits, routing.starts, value]);
        value
    }

    /// Adds the number of assignments of each expert to load (experts), f32.
    pub fn tally(&mut self, starts: TensorId, load: TensorId) {
        let experts = self.shape(starts)[0] - 1;
        assert_eq!(self.shape(load), [experts], "tally: {}", self.tensor(load).name);
        self.push(&MOE_TALLY, MoeTallyArgs { experts: experts as u32 }, &[starts, load]);
    }

    /// Moves the bias of each expert by `rate` towards an equal load, unless the step is skipped (Wang et al. 2024), and copies
    /// the load to `seen`. All three have `experts` elements for each of so many layers, `stride` apart.
    pub fn balance(
        &mut self,
        [load, bias, seen]: [TensorId; 3],
        control: StepControl,
        [layers, experts, stride]: [usize; 3],
        rate: f32,
    ) {
        let [layers, experts, stride] = [layers, experts, stride].map(|n| n as u32);
        let args = MoeBiasArgs { layers, experts, stride, rate };
        self.push(&MOE_BIAS, args, &[load, control.ctl, bias, seen]);
    }
}

pub(super) fn moe_route_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, w, _, logits, chosen, weights] = node.tensors[..] else { unreachable!("six buffers") };
    let MoeRouteArgs { rows, dim, experts, k } = Args::from_words(&node.args);
    if let Some(dweights) = b.grad(weights) {
        let (dlogits, beta) = b.slot(logits);
        b.push(
            &MOE_ROUTE_BACKWARD,
            MoeRouteBackwardArgs { rows, experts, k, beta },
            &[chosen, weights, dweights, dlogits],
        );
    }
    let dlogits = b.grad(logits).expect("an output has a gradient");
    let plain = MatmulArgs { fast: b.graph.fast(), ..MatmulArgs::default() };
    if b.wants(w) {
        let (dw, beta) = b.slot(w);
        let args = MatmulArgs { m: experts, n: dim, k: rows, a_transposed: 1, beta, ..plain };
        b.push(&MATMUL, args, &[dlogits, x, dw]);
    }
    if b.wants(x) {
        let (dx, beta) = b.slot(x);
        b.push(&MATMUL, MatmulArgs { m: rows, n: dim, k: experts, beta, ..plain }, &[dlogits, w, dx]);
    }
}

pub(super) fn moe_balance_grad(b: &mut Backward<'_>, node: &Node) {
    let [logits, starts, value] = node.tensors[..] else { unreachable!("three buffers") };
    let MoeBalanceArgs { rows, experts } = Args::from_words(&node.args);
    let (dvalue, dlogits) = (b.grad(value).expect("an output has a gradient"), b.fresh(logits));
    b.push(&MOE_BALANCE_BACKWARD, MoeBalanceBackwardArgs { rows, experts }, &[logits, starts, dvalue, dlogits]);
    b.pass(logits, dlogits);
}

pub(super) fn moe_dispatch_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, place, y] = node.tensors[..] else { unreachable!("three buffers") };
    let MoeDispatchArgs { n, dim, k } = Args::from_words(&node.args);
    let dy = b.grad(y).expect("an output has a gradient");
    if b.wants(x) {
        let (dx, beta) = b.slot(x);
        let args = MoeDispatchBackwardArgs { rows: n / k, dim, k, beta };
        b.push(&MOE_DISPATCH_BACKWARD, args, &[dy, place, dx]);
    }
}

pub(super) fn moe_combine_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, place, weights, y] = node.tensors[..] else { unreachable!("four buffers") };
    let MoeCombineArgs { rows, dim, k } = Args::from_words(&node.args);
    let dy = b.grad(y).expect("an output has a gradient");
    let (dx, dweights) = (b.fresh(x), b.fresh(weights));
    b.push(
        &MOE_COMBINE_BACKWARD,
        MoeCombineBackwardArgs { n: rows * k, dim, k },
        &[x, place, weights, dy, dx, dweights],
    );
    b.pass(x, dx);
    b.pass(weights, dweights);
}

/// Gradient of [`Graph::grouped_linear`].
pub(super) fn grouped_matmul_grad(b: &mut Backward<'_>, node: &Node) {
    let [x, w, starts, y] = node.tensors[..] else { unreachable!("four buffers") };
    let of: GroupedMatmulArgs = Args::from_words(&node.args);
    let (dy, fast) = (b.grad(y).expect("an output has a gradient"), b.graph.fast());
    if b.wants(w) {
        let (dw, beta) = b.slot(w);
        assert!(beta == 1.0, "the matrices of experts are parameters");
        b.push(&GROUPED_MATMUL, GroupedMatmulArgs { kind: 2, beta, fast, ..of }, &[dy, x, starts, dw]);
    }
    if b.wants(x) {
        let (dx, beta) = b.slot(x);
        b.push(&GROUPED_MATMUL, GroupedMatmulArgs { kind: 1, beta, fast, ..of }, &[dy, w, starts, dx]);
    }
}

pub(super) fn grouped_ternary_grad(b: &mut Backward<'_>, node: &Node) {
    let [xq, step, starts, codes, scales, y] = node.tensors[..] else { unreachable!("six buffers") };
    let GroupedTernaryArgs { rows, experts, outs, dim, group } = Args::from_words(&node.args);
    let (dy, fast) = (b.grad(y).expect("an output has a gradient"), b.graph.fast());
    if b.wants(codes) {
        let (dw, _) = b.slot(codes);
        let args = GroupedTernaryBackwardWeightArgs { rows, experts, outs, dim, fast };
        b.push(&GROUPED_TERNARY_BACKWARD_WEIGHT, args, &[dy, xq, step, starts, dw]);
    }
    if b.wants(xq) {
        let (dx, beta) = b.slot(xq);
        let args = GroupedTernaryBackwardInputArgs { rows, experts, outs, dim, group, beta, fast };
        b.push(&GROUPED_TERNARY_BACKWARD_INPUT, args, &[dy, starts, codes, scales, dx]);
    }
}
