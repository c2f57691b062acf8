//! Isometric re-initialisation: what a run that goes on with other data may start from, so that it learns as a new one does and
//! forgets little ("FIRE: Frobenius-Isometry Reinitialization", arXiv 2602.08040).

use super::Trainer;
use crate::Result;
use crate::backend::{Backend, Program};
use crate::graph::{DType, Graph, Plan, Section, TensorId};
use crate::model::Role;
use crate::ops::COPY;
use cpu_kernels::ops::copy::CopyArgs;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

/// The quintic Newton-Schulz iteration that converges: Muon's is faster and stops near 1.
const CONVERGENT: [f32; 3] = [1.875, -1.25, 0.375];
/// So many times a singular value of 1e-7 of the norm grows to 1, and a few more.
const STEPS: usize = 32;

/// Replaces every matrix that Muon trains by its polar factor, which is the nearest one whose singular values are equal, times a
/// number that leaves its Frobenius norm as it was: the other weights have learnt to expect it. Each expert is a matrix of its own. Tables, norms, routers and biases stay.
///
/// # Errors
/// When the device refuses or fails.
pub(super) fn reinitialise(trainer: &mut Trainer, backend: &Backend) -> Result<()> {
    let mut polar: BTreeMap<[usize; 2], Polar> = BTreeMap::new();
    let matrices = trainer.step.model.params().filter(|(weight, _)| weight.role == Role::Matrix);
    let matrices: Vec<_> = matrices.map(|(weight, id)| (weight.shape.clone(), id)).collect();
    for (shape, id) in matrices {
        let [.., rows, cols] = shape[..] else { unreachable!("a matrix has rows") };
        let mut values: Vec<f32> = trainer.program.read(id)?;
        for matrix in values.chunks_exact_mut(rows * cols) {
            let sides = [rows.min(cols), rows.max(cols)];
            let polar = match polar.entry(sides) {
                Entry::Vacant(new) => new.insert(Polar::new(sides, backend)?),
                Entry::Occupied(made) => made.into_mut(),
            };
            let factor = polar.of(matrix, [rows, cols])?;
            let scale = norm(matrix) / norm(&factor);
            // A matrix of zeros has none.
            if scale.is_finite() {
                matrix.iter_mut().zip(&factor).for_each(|(to, x)| *to = (f64::from(*x) * scale) as f32);
            }
        }
        trainer.program.write(id, &values);
    }
    Ok(())
}

fn norm(x: &[f32]) -> f64 {
    x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

/// A program for the polar factors of matrices of one short and one long side.
struct Polar {
    program: Program,
    all: Section,
    x: TensorId,
    y: TensorId,
}

impl Polar {
    fn new([short, long]: [usize; 2], backend: &Backend) -> Result<Polar> {
        let mut g = Graph::new();
        let [x, y] = ["x", "y"].map(|name| g.persistent(name, &[1, short, long], DType::F32));
        let (all, ()) = g.section("polar", |g| {
            let factor = g.newton_schulz(x, CONVERGENT, STEPS);
            g.push(&COPY, CopyArgs { n: (short * long) as u32 }, &[factor, y]);
        });
        Ok(Polar { program: backend.prepare(Arc::new(Plan::new(g)))?, all, x, y })
    }

    /// That of a matrix (rows, cols).
    fn of(&mut self, matrix: &[f32], [rows, cols]: [usize; 2]) -> Result<Vec<f32>> {
        if rows <= cols {
            self.program.write(self.x, matrix);
        } else {
            self.program.write(self.x, &transposed(matrix, cols));
        }
        self.program.run_section(self.all)?;
        let factor = self.program.read(self.y)?;
        Ok(if rows <= cols { factor } else { transposed(&factor, rows) })
    }
}

/// The transpose of a matrix of so many columns.
fn transposed(matrix: &[f32], cols: usize) -> Vec<f32> {
    (0..cols).flat_map(|c| matrix[c..].iter().step_by(cols).copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Cpu, Level};
    use crate::model::{ModelConfig, MoeOptions};
    use crate::train::{OptimConfig, StepShape, TrainStep};

    /// left * right^T, of matrices with so many columns.
    fn product(left: &[f32], right: &[f32], cols: usize) -> Vec<Vec<f64>> {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        left.chunks(cols).map(|a| right.chunks(cols).map(|b| dot(a, b)).collect()).collect()
    }

    /// Whether a symmetric matrix has a Cholesky factor: whether it is positive definite.
    fn is_positive(mut a: Vec<Vec<f64>>) -> bool {
        for k in 0..a.len() {
            if a[k][k] <= 0.0 {
                return false;
            }
            for i in k + 1..a.len() {
                let factor = a[i][k] / a[k][k];
                let (above, below) = a.split_at_mut(i);
                below[0].iter_mut().zip(&above[k]).for_each(|(x, y)| *x -= factor * y);
            }
        }
        true
    }

    #[test]
    fn each_matrix_becomes_its_polar_factor() {
        let moe = MoeOptions { experts: 3, active: 1, width: 64, from: 1, ..MoeOptions::default() };
        let plain = ModelConfig { dim: 32, layers: 2, heads: 4, kv_heads: 2, ffn: 96, ..ModelConfig::default() };
        let config = ModelConfig { seq_len: 8, group_size: 32, moe: Some(moe), ..plain };
        let backend = Backend::Cpu(Cpu::new(Level::detect(), Some(2)).unwrap());
        let step = TrainStep::build(&config, 40, StepShape::default(), &OptimConfig::default());
        let mut trainer = Trainer::new(step, &backend).unwrap();
        trainer.init(5);
        let before = trainer.model_tensors().unwrap();
        reinitialise(&mut trainer, &backend).unwrap();
        let after = trainer.model_tensors().unwrap();
        let weights: Vec<_> =
            trainer.step.model.params().map(|(weight, _)| (weight.shape.clone(), weight.role)).collect();
        let mut matrices = 0;
        for ((shape, role), (old, new)) in weights.iter().zip(before.iter().zip(&after)) {
            let [old, new] = [&old.data, &new.data];
            if *role != Role::Matrix {
                assert_eq!(old, new);
                continue;
            }
            let [.., rows, cols] = shape[..] else { panic!("{shape:?}") };
            for (old, new) in old.chunks(rows * cols).zip(new.chunks(rows * cols)) {
                matrices += 1;
                assert!((norm(new) / norm(old) - 1.0).abs() < 1e-6);
                let [old, new] =
                    if rows <= cols { [old.to_vec(), new.to_vec()] } else { [old, new].map(|m| transposed(m, cols)) };
                let (short, long) = (rows.min(cols), rows.max(cols));
                // Equal singular values.
                let unit = norm(&new).powi(2) / short as f64;
                for (r, row) in product(&new, &new, long).iter().enumerate() {
                    let off = |c: usize| (row[c] / unit - f64::from(u32::from(r == c))).abs();
                    assert!((0..short).all(|c| off(c) < 2e-5), "{rows} x {cols}, row {r}");
                }
                // The nearest such matrix: what is left of the old one is symmetric and positive.
                let left = product(&old, &new, long);
                let most = left.iter().flatten().fold(0f64, |most, x| most.max(x.abs()));
                assert!((0..short).all(|r| (0..r).all(|c| (left[r][c] - left[c][r]).abs() < 1e-5 * most)));
                assert!(is_positive(left), "{rows} x {cols}");
            }
        }
        assert!(matrices > 14, "{matrices}");
    }
}
