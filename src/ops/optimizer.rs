//! Optimizers. The clip factor and the decision to skip a step stay on the device: nothing is read back within a step.

use super::{
    ADAMW, ADAMW_BF16, ADAMW_INT8, BLOCK, CLIP, FINITE_BF16, LION, LION_BF16, LION_INT8, MUON_MOMENTUM,
    MUON_MOMENTUM_BF16, MUON_MOMENTUM_INT8, MUON_NORMALIZE, MUON_UPDATE, SUM_SQUARES,
};
use crate::graph::{DType, Graph, TensorId};
use crate::rng::mix;
use cpu_kernels::ops::STATE_BLOCK;
use cpu_kernels::ops::adamw::AdamwArgs;
use cpu_kernels::ops::adamw_int8::AdamwStateArgs;
use cpu_kernels::ops::clip::ClipArgs;
use cpu_kernels::ops::finite_bf16::FiniteBf16Args;
use cpu_kernels::ops::lion::LionArgs;
use cpu_kernels::ops::lion_int8::LionStateArgs;
use cpu_kernels::ops::muon_momentum::MuonMomentumArgs;
use cpu_kernels::ops::muon_momentum_int8::MuonStateArgs;
use cpu_kernels::ops::muon_normalize::MuonNormalizeArgs;
use cpu_kernels::ops::muon_update::MuonUpdateArgs;
use cpu_kernels::ops::sum_squares::SumSquaresArgs;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Number of steps whose statistics the device keeps until they are read. The `clip` op has the same constant.
pub(crate) const STATS_RING: usize = 64;

/// The control tensors of an optimizer step, all f32.
#[derive(Clone, Copy, Debug)]
pub struct StepControl {
    /// (6): learning-rate factor, 1 - beta1^t, 1 - beta2^t, slot in `stats`, and the lower and the upper 16 bits of the key of the
    /// step's random bits. The host writes it before each step.
    pub step: TensorId,
    /// (4): clip factor, 1 to skip the step, running mean of the norm, number of counted steps. State of the `clip` op.
    pub ctl: TensorId,
    /// (64, 4): loss, gradient norm, 1 if skipped, 0 for each of the last steps.
    pub stats: TensorId,
}

/// How optimizers hold their state for matrices and tables. Vectors (norms, residual mixing) are few and keep f32, and so does
/// what has rows that are no multiple of 4 values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StateForm {
    /// 32-bit floats.
    #[default]
    F32,
    /// The upper halves of these, rounded at random so that the mean is the value.
    Bf16,
    /// 8 bits with an f32 scale for each 64 values of a row (Dettmers et al. 2022): a momentum linearly, the root of a second
    /// moment linearly. Rounded so too, but to the nearest where a value changes by more than the distance of two codes.
    Int8,
}

impl StateForm {
    /// Bytes of one moving average of so many values.
    pub fn bytes(self, values: u64) -> u64 {
        match self {
            StateForm::F32 => 4 * values,
            StateForm::Bf16 => 2 * values,
            StateForm::Int8 => values + 4 * values.div_ceil(STATE_BLOCK as u64),
        }
    }
}

/// A moving average that an optimizer keeps of a parameter.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Like the parameter: f32, bf16, or codes.
    pub values: TensorId,
    /// (rows, blocks of 64 values), f32: the scales of codes.
    pub scales: Option<TensorId>,
}

impl From<TensorId> for Moment {
    /// One in f32 or bf16.
    fn from(values: TensorId) -> Self {
        Moment { values, scales: None }
    }
}

impl Moment {
    /// Its tensors.
    pub fn tensors(self) -> impl Iterator<Item = TensorId> {
        [self.values].into_iter().chain(self.scales)
    }
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
    /// The persistent tensors that hold its gradient and its weight, of one shape.
    tensors: [TensorId; 2],
    /// Those that hold its momentum, with values of that shape.
    momentum: Moment,
    /// The element of these at which the matrix starts.
    start: usize,
    /// (rows, columns)
    shape: [usize; 2],
}

impl MuonMatrix {
    /// The short and the long side.
    pub fn sides(&self) -> [usize; 2] {
        let [rows, cols] = self.shape;
        [rows.min(cols), rows.max(cols)]
    }
}

/// So many consecutive elements of a persistent tensor, and the place of their results in another.
#[derive(Clone, Copy, PartialEq)]
struct Piece {
    of: TensorId,
    start: usize,
    n: usize,
    to: usize,
}

/// Pieces of a tensor at equal distances, and with results at equal distances.
#[derive(Clone, Copy)]
struct Run {
    first: Piece,
    count: usize,
    stride: usize,
    step: usize,
}

impl Run {
    /// The elements from the first to the last of its pieces.
    fn elements(&self) -> Range<usize> {
        self.first.start..self.first.start + (self.count - 1) * self.stride + self.first.n
    }
}

/// Most bytes of the matrices that Muon orthogonalises as one batch, unless a single one has more: what every GPU and browser
/// lets an op bind.
const MUON_BATCH: usize = 128 << 20;

/// Muon's coefficients of the quintic Newton-Schulz iteration: singular values come near 1 soon, and no nearer.
const NEWTON_SCHULZ: [f32; 3] = [3.4445, -4.7750, 2.0315];

impl Graph {
    /// Makes the control tensors.
    pub fn step_control(&mut self) -> StepControl {
        StepControl {
            step: self.persistent("step", &[6], DType::F32),
            ctl: self.persistent("ctl", &[4], DType::F32),
            stats: self.persistent("stats", &[STATS_RING, 4], DType::F32),
        }
    }

    /// Computes the global norm of `grads`, the factor that clips it to `clip` (0: no clipping), and the decision to skip the
    /// step: when loss, norm, the state of this decision or an element of `checked` is not finite, or, after 20 steps, the norm
    /// exceeds outlier * max(running mean, clip) (0: no limit). What is checked is f32 or bf16. `loss` is (1), in nats per token. Each gradient has the name of its
    /// kind: the sums of one kind take few ops if its gradients lie at equal distances in one tensor.
    pub fn clip(
        &mut self,
        grads: &[(&str, TensorId)],
        checked: &[TensorId],
        loss: TensorId,
        control: StepControl,
        [clip, outlier]: [f32; 2],
    ) {
        let (mut kinds, mut partials) = (BTreeMap::<&str, Vec<Piece>>::new(), 0);
        for (kind, grad) in grads {
            for part in self.parts(*grad) {
                let n = self.tensor(part).elements();
                let piece = Piece { of: self.base(part), start: self.first(part), n, to: partials };
                kinds.entry(kind).or_default().push(piece);
                partials += n.div_ceil(BLOCK as usize);
            }
        }
        let checked: Vec<TensorId> = checked.iter().flat_map(|t| self.parts(*t)).collect();
        let checks: usize = checked.iter().map(|t| self.tensor(*t).elements().div_ceil(BLOCK as usize)).sum();
        let partial = self.temp("norm.partial", &[partials + checks], DType::F32);
        for run in kinds.values().flat_map(|pieces| self.runs(pieces)).collect::<Vec<_>>() {
            let (x, start) = self.window(&[run.first.of], run.elements());
            let Run { first: Piece { n, to, .. }, count, stride, step } = run;
            let [n, rows, start, stride, offset, step] = [n, count, start, stride, to, step].map(|n| n as u32);
            let args = SumSquaresArgs { n, rows, start, stride, offset, step, scale: 1.0 };
            self.push(&SUM_SQUARES, args, &[x[0], partial]);
        }
        let mut offset = partials as u32;
        for x in checked {
            let n = self.tensor(x).elements() as u32;
            if self.tensor(x).dtype == DType::Bf16 {
                self.push(&FINITE_BF16, FiniteBf16Args { n, offset }, &[x, partial]);
            } else {
                let args = SumSquaresArgs { n, rows: 1, start: 0, stride: n, offset, step: 0, scale: 0.0 };
                self.push(&SUM_SQUARES, args, &[x, partial]);
            }
            offset += n.div_ceil(BLOCK);
        }
        let [partials, checks] = [partials, checks].map(|n| n as u32);
        let args = ClipArgs { partials, checks, warmup: 20, clip, outlier };
        self.push(&CLIP, args, &[partial, loss, control.step, control.ctl, control.stats]);
    }

    /// Joins neighbours in a list of pieces that follow each other at equal distances, as far as an op can bind them together.
    fn runs(&self, pieces: &[Piece]) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for piece in pieces {
            let joined = runs.last().and_then(|run| self.join(run, piece));
            match joined {
                Some(run) => *runs.last_mut().expect("the run that was joined") = run,
                None => runs.push(Run { first: *piece, count: 1, stride: piece.n, step: 0 }),
            }
        }
        runs
    }

    /// The run with one more piece, if it fits.
    fn join(&self, run: &Run, piece: &Piece) -> Option<Run> {
        let Run { first, count, stride, step } = *run;
        let (next, place) = (piece.start.checked_sub(first.start)?, piece.to.checked_sub(first.to)?);
        let (stride, step) = if count == 1 { (next, place) } else { (stride, step) };
        let longer = Run { first, count: count + 1, stride, step };
        let alike = piece.of == first.of && piece.n == first.n && stride >= first.n;
        let fits = self.fits(first.of, longer.elements());
        (alike && (next, place) == (count * stride, count * step) && fits).then_some(longer)
    }

    /// A momentum, or a first moment, for a parameter and the views that there are of it.
    pub fn first_moment(&mut self, param: TensorId, form: StateForm) -> Moment {
        self.moment(param, form, "m", DType::I8)
    }

    /// A second moment for a parameter and the views that there are of it.
    pub fn second_moment(&mut self, param: TensorId, form: StateForm) -> Moment {
        self.moment(param, form, "v", DType::U8)
    }

    fn moment(&mut self, param: TensorId, form: StateForm, name: &str, codes: DType) -> Moment {
        let shape = self.shape(param).to_vec();
        let cols = *shape.last().expect("a tensor has dimensions");
        let words = shape.len() > 1 && cols.is_multiple_of(4);
        let dtype = match form {
            StateForm::Bf16 if words => DType::Bf16,
            StateForm::Int8 if words => codes,
            _ => DType::F32,
        };
        let values = self.like(param, &shape[1..], dtype, |param| format!("{param}.{name}"));
        let scales = (dtype == codes).then(|| {
            let blocks = [&shape[1..shape.len() - 1], &[cols.div_ceil(STATE_BLOCK)]].concat();
            self.like(param, &blocks, DType::F32, |param| format!("{param}.{name}.scales"))
        });
        Moment { values, scales }
    }

    /// Where the random bits for a tensor begin. Those of a part of it are the same.
    fn stream(&self, t: TensorId) -> u32 {
        let name = self.tensor(self.base(t)).name.bytes();
        (name.fold(0, |hash, byte| mix(hash ^ u64::from(byte))) as u32).wrapping_add(self.first(t) as u32)
    }

    /// One AdamW update of w by its gradient g, both f32 of one shape, with their moments m and v.
    pub fn adamw(&mut self, o: &AdamW, c: StepControl, [g, w]: [TensorId; 2], [m, v]: [Moment; 2]) {
        let AdamW { lr, beta1, beta2, eps, weight_decay } = *o;
        if let (Some(m_scales), Some(v_scales)) = (m.scales, v.scales) {
            for [g, w, m, m_scales, v, v_scales] in self.parts_of([g, w, m.values, m_scales, v.values, v_scales]) {
                let ([rows, cols], stream) = (self.rows_and_columns(w), self.stream(w));
                let args = AdamwStateArgs { rows, cols, stream, lr, beta1, beta2, eps, weight_decay };
                self.push(&ADAMW_INT8, args, &[g, c.ctl, c.step, w, m, m_scales, v, v_scales]);
            }
            return;
        }
        for [g, w, m, v] in self.parts_of([g, w, m.values, v.values]) {
            let tensors = [g, c.ctl, c.step, w, m, v];
            if self.tensor(m).dtype == DType::Bf16 {
                let ([rows, cols], stream) = (self.rows_and_columns(w), self.stream(w));
                let args = AdamwStateArgs { rows, cols, stream, lr, beta1, beta2, eps, weight_decay };
                self.push(&ADAMW_BF16, args, &tensors);
            } else {
                let n = self.tensor(w).elements() as u32;
                self.push(&ADAMW, AdamwArgs { n, lr, beta1, beta2, eps, weight_decay }, &tensors);
            }
        }
    }

    /// One Lion update of w by its gradient g, both f32 of one shape, with their momentum m.
    pub fn lion(&mut self, o: &Lion, c: StepControl, [g, w]: [TensorId; 2], m: Moment) {
        let Lion { lr, beta1, beta2, weight_decay } = *o;
        if let Some(scales) = m.scales {
            for [g, w, m, scales] in self.parts_of([g, w, m.values, scales]) {
                let ([rows, cols], stream) = (self.rows_and_columns(w), self.stream(w));
                let args = LionStateArgs { rows, cols, stream, lr, beta1, beta2, weight_decay };
                self.push(&LION_INT8, args, &[g, c.ctl, c.step, w, m, scales]);
            }
            return;
        }
        for [g, w, m] in self.parts_of([g, w, m.values]) {
            let tensors = [g, c.ctl, c.step, w, m];
            if self.tensor(m).dtype == DType::Bf16 {
                let ([rows, cols], stream) = (self.rows_and_columns(w), self.stream(w));
                let args = LionStateArgs { rows, cols, stream, lr, beta1, beta2, weight_decay };
                self.push(&LION_BF16, args, &tensors);
            } else {
                let n = self.tensor(w).elements() as u32;
                self.push(&LION, LionArgs { n, lr, beta1, beta2, weight_decay }, &tensors);
            }
        }
    }

    fn rows_and_columns(&self, t: TensorId) -> [u32; 2] {
        let (rows, cols) = self.matrix(t);
        [rows as u32, cols as u32]
    }

    /// The matrices of a parameter `weight` (..., rows, cols) for [`Graph::muon`], one for each index of the leading dimensions.
    ///
    /// # Panics
    /// When gradient, weight and momentum differ in shape, or in where they lie in those of which they are views.
    pub fn muon_matrices(&self, grad: TensorId, weight: TensorId, momentum: Moment) -> Vec<MuonMatrix> {
        let [.., rows, _] = self.shape(weight)[..] else { panic!("{} is not a matrix", self.tensor(weight).name) };
        self.muon_matrices_of([grad, weight], momentum, rows)
    }

    /// [`Graph::muon_matrices`] of a gradient, a weight and its momentum that are matrices of `rows` rows, one under the other.
    pub(crate) fn muon_matrices_of(
        &self,
        [grad, weight]: [TensorId; 2],
        momentum: Moment,
        rows: usize,
    ) -> Vec<MuonMatrix> {
        let cols = self.matrix(weight).1;
        let place = |t: TensorId| (self.shape(t), self.shape(self.base(t)), self.first(t));
        let alike = [grad, momentum.values].iter().all(|t| place(*t) == place(weight));
        let scaled = momentum.scales.is_none_or(|scales| self.alike(weight, self.base(scales)) == Some(scales));
        assert!(alike && scaled, "muon: {}", self.tensor(weight).name);
        let tensors = [grad, weight].map(|t| self.base(t));
        let momentum =
            Moment { values: self.base(momentum.values), scales: momentum.scales.map(|scales| self.base(scales)) };
        let first = self.first(weight);
        let starts = (first..first + self.tensor(weight).elements()).step_by(rows * cols);
        starts.map(|start| MuonMatrix { tensors, momentum, start, shape: [rows, cols] }).collect()
    }

    /// One Muon update of several matrices. They are orthogonalised in a few batches, each matrix along its short side. Matrices
    /// that follow each other at equal distances in one tensor take one op of a batch.
    ///
    /// # Panics
    /// When there is no matrix, or the matrices differ in their short or long sides.
    pub fn muon(&mut self, o: &Muon, c: StepControl, matrices: &[MuonMatrix]) {
        let [short, long] = matrices[0].sides();
        let most = (MUON_BATCH / (short * long * DType::F32.bytes())).max(1);
        // Batches of nearly the same size, as few as possible.
        let batches = matrices.len().div_ceil(most);
        for batch in matrices.chunks(matrices.len().div_ceil(batches)) {
            self.muon_batch(o, c, batch);
        }
    }

    /// [`Graph::muon`] as one batch.
    fn muon_batch(&mut self, o: &Muon, c: StepControl, matrices: &[MuonMatrix]) {
        let [short, long] = matrices[0].sides();
        let n = short * long;
        let x = self.temp("muon.x", &[matrices.len(), short, long], DType::F32);
        assert!(matrices.iter().all(|matrix| matrix.sides() == [short, long]), "muon: matrices of different sides");
        let piece = |(i, m): (usize, &MuonMatrix)| Piece { of: m.tensors[1], start: m.start, n, to: i * n };
        let runs = self.runs(&matrices.iter().enumerate().map(piece).collect::<Vec<_>>());
        // The tensors of each run, as they are bound, and what `muon_momentum` and `muon_update` have in common.
        let runs: Vec<(Vec<TensorId>, MuonMomentumArgs)> = runs
            .into_iter()
            .map(|run| {
                let MuonMatrix { tensors, momentum, shape: [rows, cols], .. } = matrices[run.first.to / n];
                let tensors: Vec<_> = tensors.into_iter().chain(momentum.tensors()).collect();
                let (bound, start) = self.window(&tensors, run.elements());
                let transposed = u32::from(rows > cols);
                let [rows, cols, batch, start, stride, offset] =
                    [rows, cols, run.count, start, run.stride, run.first.to].map(|n| n as u32);
                let beta = o.momentum;
                (bound, MuonMomentumArgs { rows, cols, batch, start, stride, offset, transposed, beta })
            })
            .collect();
        for (bound, args) in &runs {
            self.muon_momentum(c, bound, *args, x);
        }
        let x = self.newton_schulz(x, NEWTON_SCHULZ, o.steps);
        for (bound, args) in &runs {
            let MuonMomentumArgs { rows, cols, batch, start, stride, offset, transposed, .. } = *args;
            let shape = (rows as f32 / cols as f32).max(1.0).sqrt();
            let Muon { lr, weight_decay, .. } = *o;
            let args = MuonUpdateArgs { rows, cols, batch, start, stride, offset, transposed, lr, shape, weight_decay };
            self.push(&MUON_UPDATE, args, &[x, c.ctl, c.step, bound[1]]);
        }
    }

    /// The momenta of a run of matrices, whose gradients, weights, momenta and perhaps their scales are `bound`, into x.
    fn muon_momentum(&mut self, c: StepControl, bound: &[TensorId], args: MuonMomentumArgs, x: TensorId) {
        let MuonMomentumArgs { rows, cols, batch, start, stride, offset, transposed, beta } = args;
        let stream = self.stream(bound[1]);
        let state = MuonStateArgs { rows, cols, batch, start, stride, offset, transposed, stream, beta };
        match *bound {
            [grad, _, momentum, scales] => {
                self.push(&MUON_MOMENTUM_INT8, state, &[grad, c.ctl, c.step, momentum, scales, x]);
            }
            [grad, _, momentum] if self.tensor(momentum).dtype == DType::Bf16 => {
                self.push(&MUON_MOMENTUM_BF16, state, &[grad, c.ctl, c.step, momentum, x]);
            }
            [grad, _, momentum] => self.push(&MUON_MOMENTUM, args, &[grad, c.ctl, momentum, x]),
            _ => unreachable!("a momentum has one tensor or two"),
        }
    }

    /// Orthogonalises each matrix of x (batch, short, long) -> like x, by so many steps of the quintic Newton-Schulz iteration with
    /// these coefficients. Normalises x in place.
    ///
    /// # Panics
    /// When x does not have three dimensions.
    pub(crate) fn newton_schulz(&mut self, mut x: TensorId, [a, b, c]: [f32; 3], steps: usize) -> TensorId {
        let [batch, short, long] = self.shape(x)[..] else { panic!("newton_schulz takes a batch of matrices") };
        let (n, batch) = ((short * long) as u32, batch as u32);
        let partial = self.temp("muon.partial", &[(batch * n.div_ceil(BLOCK)) as usize], DType::F32);
        let args =
            SumSquaresArgs { n, rows: batch, start: 0, stride: n, offset: 0, step: n.div_ceil(BLOCK), scale: 1.0 };
        self.push(&SUM_SQUARES, args, &[x, partial]);
        self.push(&MUON_NORMALIZE, MuonNormalizeArgs { n, batch }, &[partial, x]);
        for _ in 0..steps {
            let gram = self.gram(x);
            let poly = self.matmul_add(c, gram, gram, b, gram);
            x = self.matmul_add(1.0, poly, x, a, x);
        }
        x
    }
}
