//! Optimizers. The clip factor and the decision to skip a step stay on the device: nothing is read back within a step.

use super::{ADAMW, BLOCK, CLIP, LION, MUON_MOMENTUM, MUON_NORMALIZE, MUON_UPDATE, SUM_SQUARES};
use crate::graph::{DType, Graph, TensorId};
use cpu_kernels::ops::adamw::AdamwArgs;
use cpu_kernels::ops::clip::ClipArgs;
use cpu_kernels::ops::lion::LionArgs;
use cpu_kernels::ops::muon_momentum::MuonMomentumArgs;
use cpu_kernels::ops::muon_normalize::MuonNormalizeArgs;
use cpu_kernels::ops::muon_update::MuonUpdateArgs;
use cpu_kernels::ops::sum_squares::SumSquaresArgs;

/// Number of steps whose statistics the device keeps until they are read. The `clip` op has the same constant.
pub(crate) const STATS_RING: usize = 64;

/// The control tensors of an optimizer step, all f32.
#[derive(Clone, Copy, Debug)]
pub struct StepControl {
    /// (4): learning-rate factor, 1 - beta1^t, 1 - beta2^t, slot in `stats`. The host writes it before each step.
    pub step: TensorId,
    /// (4): clip factor, 1 to skip the step, running mean of the norm, number of counted steps. State of the `clip` op.
    pub ctl: TensorId,
    /// (64, 4): loss, gradient norm, 1 if skipped, 0 for each of the last steps.
    pub stats: TensorId,
}

/// AdamW (Loshchilov & Hutter 2019).
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, relative to the learning rate.
    pub weight_decay: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        AdamW { lr: 3e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.0 }
    }
}

impl AdamW {
    /// beta1 and beta2, from which the host computes the bias corrections.
    pub(crate) fn betas(&self) -> [f32; 2] {
        [self.beta1, self.beta2]
    }
}

/// Lion (Chen et al. 2023).
#[derive(Clone, Copy, Debug)]
pub struct Lion {
    /// Learning rate.
    pub lr: f32,
    /// Weight of the momentum in the update's direction.
    pub beta1: f32,
    /// Decay of the momentum.
    pub beta2: f32,
    /// Decoupled weight decay, relative to the learning rate.
    pub weight_decay: f32,
}

impl Default for Lion {
    fn default() -> Self {
        Lion { lr: 1e-3, beta1: 0.9, beta2: 0.99, weight_decay: 0.0 }
    }
}

/// Muon (Jordan et al. 2024): Nesterov momentum, orthogonalised by a Newton-Schulz iteration.
#[derive(Clone, Copy, Debug)]
pub struct Muon {
    /// Learning rate.
    pub lr: f32,
    /// Decay of the momentum.
    pub momentum: f32,
    /// Newton-Schulz iterations.
    pub steps: usize,
    /// Decoupled weight decay, relative to the learning rate.
    pub weight_decay: f32,
}

/// A matrix that Muon updates: a parameter, or one matrix of a stack.
#[derive(Clone, Copy, Debug)]
pub struct MuonMatrix {
    /// The weight's gradient.
    pub grad: TensorId,
    /// The weight (..., rows, cols).
    pub weight: TensorId,
    /// The weight's momentum.
    pub momentum: TensorId,
    /// The element of the three tensors at which the matrix starts.
    pub start: u32,
}

/// Most bytes of the matrices that Muon orthogonalises as one batch, unless a single one has more: what every GPU and browser
/// lets an op bind.
const MUON_BATCH: usize = 128 << 20;

/// Coefficients of the quintic Newton-Schulz iteration.
const NEWTON_SCHULZ: [f32; 3] = [3.4445, -4.7750, 2.0315];

impl Graph {
    /// Makes the control tensors.
    pub fn step_control(&mut self) -> StepControl {
        StepControl {
            step: self.persistent("step", &[4], DType::F32),
            ctl: self.persistent("ctl", &[4], DType::F32),
            stats: self.persistent("stats", &[STATS_RING, 4], DType::F32),
        }
    }

    /// Computes the global norm of `grads`, the factor that clips it to `clip` (0: no clipping), and the decision to skip the
    /// step: when loss, norm, the state of this decision or an element of `checked` is not finite, or, after 20 steps, the norm
    /// exceeds outlier * max(running mean, clip) (0: no limit). `loss` is (1), in nats per token.
    pub fn clip(
        &mut self,
        grads: &[TensorId],
        checked: &[TensorId],
        loss: TensorId,
        control: StepControl,
        [clip, outlier]: [f32; 2],
    ) {
        let [grads, checked] =
            [grads, checked].map(|list| list.iter().flat_map(|t| self.parts(*t)).collect::<Vec<_>>());
        let blocks = |list: &[TensorId]| -> u32 {
            list.iter().map(|t| (self.tensor(*t).elements() as u32).div_ceil(BLOCK)).sum()
        };
        let (partials, checks) = (blocks(&grads), blocks(&checked));
        let partial = self.temp("norm.partial", &[(partials + checks) as usize], DType::F32);
        let mut offset = 0;
        for (list, scale) in [(&grads, 1.0), (&checked, 0.0)] {
            for tensor in list {
                let n = self.tensor(*tensor).elements() as u32;
                self.push(&SUM_SQUARES, SumSquaresArgs { n, rows: 1, offset, scale }, &[*tensor, partial]);
                offset += n.div_ceil(BLOCK);
            }
        }
        let args = ClipArgs { partials, checks, warmup: 20, clip, outlier };
        self.push(&CLIP, args, &[partial, loss, control.step, control.ctl, control.stats]);
    }

    /// One AdamW update of w by its gradient g, with moments m and v; all f32 of one shape.
    pub fn adamw(&mut self, o: &AdamW, c: StepControl, gwmv: [TensorId; 4]) {
        let AdamW { lr, beta1, beta2, eps, weight_decay } = *o;
        for [g, w, m, v] in self.parts_of(gwmv) {
            let n = self.tensor(w).elements() as u32;
            self.push(&ADAMW, AdamwArgs { n, lr, beta1, beta2, eps, weight_decay }, &[g, c.ctl, c.step, w, m, v]);
        }
    }

    /// One Lion update of w by its gradient g, with momentum m; all f32 of one shape.
    pub fn lion(&mut self, o: &Lion, c: StepControl, gwm: [TensorId; 3]) {
        let Lion { lr, beta1, beta2, weight_decay } = *o;
        for [g, w, m] in self.parts_of(gwm) {
            let n = self.tensor(w).elements() as u32;
            self.push(&LION, LionArgs { n, lr, beta1, beta2, weight_decay }, &[g, c.ctl, c.step, w, m]);
        }
    }

    /// The matrices of a parameter `weight` (..., rows, cols) for [`Graph::muon`], one for each index of the leading dimensions.
    pub fn muon_matrices(&self, grad: TensorId, weight: TensorId, momentum: TensorId) -> Vec<MuonMatrix> {
        let n = self.sides(weight).iter().product::<usize>();
        let starts = (0..self.tensor(weight).elements()).step_by(n);
        starts.map(|start| MuonMatrix { grad, weight, momentum, start: start as u32 }).collect()
    }

    /// One Muon update of several matrices. They are orthogonalised in a few batches, each matrix along its short side.
    ///
    /// # Panics
    /// When there is no matrix, or the matrices differ in their short or long sides.
    pub fn muon(&mut self, o: &Muon, c: StepControl, matrices: &[MuonMatrix]) {
        let [short, long] = self.sides(matrices[0].weight);
        let most = (MUON_BATCH / (short * long * DType::F32.bytes())).max(1);
        // Batches of nearly the same size, as few as possible.
        let batches = matrices.len().div_ceil(most);
        for batch in matrices.chunks(matrices.len().div_ceil(batches)) {
            self.muon_batch(o, c, batch);
        }
    }

    /// [`Graph::muon`] as one batch.
    fn muon_batch(&mut self, o: &Muon, c: StepControl, matrices: &[MuonMatrix]) {
        let [short, long] = self.sides(matrices[0].weight);
        let (batch, n) = (matrices.len(), short * long);
        let x = self.temp("muon.x", &[batch, short, long], DType::F32);
        let layout = |g: &Graph, i: usize, weight: TensorId| {
            assert_eq!(g.sides(weight), [short, long], "muon: {}", g.tensor(weight).name);
            let [.., rows, cols] = g.shape(weight)[..] else {
                panic!("muon: {} is not a matrix", g.tensor(weight).name)
            };
            (rows as u32, cols as u32, (i * n) as u32, u32::from(rows > cols))
        };
        for (i, MuonMatrix { grad, weight, momentum, start }) in matrices.iter().enumerate() {
            let (rows, cols, offset, transposed) = layout(self, i, *weight);
            let args = MuonMomentumArgs { rows, cols, offset, transposed, beta: o.momentum, start: *start };
            self.push(&MUON_MOMENTUM, args, &[*grad, c.ctl, *momentum, x]);
        }
        let x = self.newton_schulz(x, o.steps);
        for (i, MuonMatrix { weight, start, .. }) in matrices.iter().enumerate() {
            let (rows, cols, offset, transposed) = layout(self, i, *weight);
            let shape = (rows as f32 / cols as f32).max(1.0).sqrt();
            let Muon { lr, weight_decay, .. } = *o;
            let args = MuonUpdateArgs { rows, cols, offset, transposed, lr, shape, weight_decay, start: *start };
            self.push(&MUON_UPDATE, args, &[x, c.ctl, c.step, *weight]);
        }
    }

    /// Orthogonalises each matrix of x (batch, short, long) approximately -> like x. Normalises x in place.
    ///
    /// # Panics
    /// When x does not have three dimensions.
    pub(crate) fn newton_schulz(&mut self, mut x: TensorId, steps: usize) -> TensorId {
        let [batch, short, long] = self.shape(x)[..] else { panic!("newton_schulz takes a batch of matrices") };
        let (n, batch) = ((short * long) as u32, batch as u32);
        let partial = self.temp("muon.partial", &[(batch * n.div_ceil(BLOCK)) as usize], DType::F32);
        self.push(&SUM_SQUARES, SumSquaresArgs { n, rows: batch, offset: 0, scale: 1.0 }, &[x, partial]);
        self.push(&MUON_NORMALIZE, MuonNormalizeArgs { n, batch }, &[partial, x]);
        let [a, b, c] = NEWTON_SCHULZ;
        for _ in 0..steps {
            let gram = self.gram(x);
            let poly = self.matmul_add(c, gram, gram, b, gram);
            x = self.matmul_add(1.0, poly, x, a, x);
        }
        x
    }

    /// The short and the long side of a matrix, or of each matrix of a stack.
    pub(crate) fn sides(&self, w: TensorId) -> [usize; 2] {
        let [.., rows, cols] = self.shape(w)[..] else { panic!("{} is not a matrix", self.tensor(w).name) };
        [rows.min(cols), rows.max(cols)]
    }
}
