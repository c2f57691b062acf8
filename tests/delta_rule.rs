//! The gated delta rule against its formula in f64, row by row: the results of the recurrence, and the gradients, which are made
//! in chunks.
#![cfg(feature = "native")]

mod common;

use common::{backends, on_gpu, relative};
use cpu_kernels::ops::delta_rule::DeltaRuleArgs;
use cpu_kernels::ops::delta_rule_backward::DeltaRuleBackwardArgs;
use nanotern::backend::Backend;
use nanotern::graph::{DType, Graph, Plan};
use nanotern::ops::{DELTA_RULE, DELTA_RULE_BACKWARD};
use nanotern::rng::Rng;
use std::sync::Arc;

const HEADS: usize = 2;
const KEYS: usize = 12;
const VALUES: usize = 20;
/// Columns of a row.
const COLS: usize = HEADS * (VALUES + 2 * KEYS);
const SEQ: usize = 75;
const ROWS: usize = 2 * SEQ;

struct Inputs {
    x: Vec<f32>,
    gates: Vec<f32>,
    positions: Vec<u32>,
    dy: Vec<f32>,
}

/// Two sequences; the second has documents that start within chunks, at the start of one, and before the sequence.
fn inputs() -> Inputs {
    let mut rng = Rng::new(7);
    let mut normal = |n: usize| (0..n).map(|_| rng.normal()).collect::<Vec<f32>>();
    let (x, dy, noise) = (normal(ROWS * COLS), normal(ROWS * HEADS * VALUES), normal(ROWS * 2 * HEADS));
    let gate = |(i, noise): (usize, &f32)| {
        if i % (2 * HEADS) < HEADS { 1.0 / (1.0 + (-noise).exp()) } else { -0.2 * noise.abs() }
    };
    let gates = noise.iter().enumerate().map(gate).collect();
    let documents = (5..9).chain(0..28).chain(0..1).chain(0..20).chain(0..22);
    Inputs { x, gates, positions: (0..SEQ as u32).chain(documents).collect(), dy }
}

fn as_f64(x: &[f32]) -> Vec<f64> {
    x.iter().map(|v| f64::from(*v)).collect()
}

/// What each row has of a head, in f64.
struct Row {
    /// First column of value, key and query, and their contents; the last two of their lengths.
    columns: [usize; 3],
    v: Vec<f64>,
    k: Vec<f64>,
    q: Vec<f64>,
    /// Lengths before.
    lengths: [f64; 2],
    beta: f64,
    decay: f64,
    starts: bool,
}

fn row(inputs: &Inputs, row: usize, h: usize) -> Row {
    let columns = [h * VALUES, HEADS * VALUES + h * KEYS, HEADS * (VALUES + KEYS) + h * KEYS];
    let part = |i: usize, n: usize| as_f64(&inputs.x[row * COLS + columns[i]..][..n]);
    let length = |x: &[f64]| (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
    let (v, k, q) = (part(0, VALUES), part(1, KEYS), part(2, KEYS));
    let lengths = [length(&k), length(&q)];
    let scale = (KEYS as f64).sqrt();
    let [beta, log] = [h, HEADS + h].map(|c| f64::from(inputs.gates[row * 2 * HEADS + c]));
    Row {
        columns,
        v,
        k: k.iter().map(|k| k / lengths[0]).collect(),
        q: q.iter().map(|q| q / lengths[1] / scale).collect(),
        lengths,
        beta,
        decay: log.exp(),
        starts: row.is_multiple_of(SEQ) || inputs.positions[row] == 0,
    }
}

/// (KEYS, VALUES)
type State = Vec<Vec<f64>>;

/// x^T S, for a vector of as many numbers as the state has rows.
fn read(x: &[f64], s: &State) -> Vec<f64> {
    (0..VALUES).map(|j| (0..KEYS).map(|i| x[i] * s[i][j]).sum()).collect()
}

/// S x
fn across(s: &State, x: &[f64]) -> Vec<f64> {
    s.iter().map(|row| row.iter().zip(x).map(|(s, x)| s * x).sum()).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The results, and the gradients with respect to x and to the gates.
fn reference(inputs: &Inputs) -> [Vec<f64>; 3] {
    let [mut y, mut dx, mut dgates] = [ROWS * HEADS * VALUES, ROWS * COLS, ROWS * 2 * HEADS].map(|n| vec![0.0; n]);
    for (b, h) in (0..ROWS / SEQ).flat_map(|b| (0..HEADS).map(move |h| (b, h))) {
        // Each row's state before it, what it corrects, and the state behind it.
        let mut steps: Vec<(Row, State, Vec<f64>, State)> = Vec::new();
        for t in 0..SEQ {
            let row = row(inputs, b * SEQ + t, h);
            let before = match steps.last() {
                Some((.., state)) if !row.starts => state.clone(),
                _ => vec![vec![0.0; VALUES]; KEYS],
            };
            let z: Vec<f64> = row.v.iter().zip(read(&row.k, &before)).map(|(v, p)| v - row.decay * p).collect();
            let element = |i: usize, j: usize| row.decay * before[i][j] + row.beta * row.k[i] * z[j];
            let state: State = (0..KEYS).map(|i| (0..VALUES).map(|j| element(i, j)).collect()).collect();
            y[((b * SEQ + t) * HEADS + h) * VALUES..][..VALUES].copy_from_slice(&read(&row.q, &state));
            steps.push((row, before, z, state));
        }
        let mut d: State = vec![vec![0.0; VALUES]; KEYS];
        for (t, (row, before, z, state)) in steps.iter().enumerate().rev() {
            let at = b * SEQ + t;
            let dy = as_f64(&inputs.dy[(at * HEADS + h) * VALUES..][..VALUES]);
            let dq = across(state, &dy);
            d.iter_mut().zip(&row.q).for_each(|(d, q)| d.iter_mut().zip(&dy).for_each(|(d, dy)| *d += q * dy));
            // The gradient of beta * z, then of z.
            let du = read(&row.k, &d);
            let dz: Vec<f64> = du.iter().map(|du| row.beta * du).collect();
            let p = read(&row.k, before);
            let to_decay = d.iter().zip(before).map(|(d, s)| dot(d, s)).sum::<f64>() - dot(&dz, &p);
            let (by_state, by_read) = (across(&d, z), across(before, &dz));
            let dk: Vec<f64> = by_state.iter().zip(&by_read).map(|(s, r)| row.beta * s - row.decay * r).collect();
            dgates[at * 2 * HEADS + h] = dot(&du, z);
            dgates[at * 2 * HEADS + HEADS + h] = row.decay * to_decay;
            dx[at * COLS + row.columns[0]..][..VALUES].copy_from_slice(&dz);
            let scale = 1.0 / (KEYS as f64).sqrt();
            for (i, (x, dx_, length, scale)) in
                [(&row.k, &dk, row.lengths[0], 1.0), (&row.q, &dq, row.lengths[1], scale)].into_iter().enumerate()
            {
                let along = dot(x, dx_) / (scale * scale);
                let to = &mut dx[at * COLS + row.columns[i + 1]..][..KEYS];
                to.iter_mut().zip(x).zip(dx_).for_each(|((to, x), dx)| *to = scale / length * (dx - x * along));
            }
            for (d, k) in d.iter_mut().zip(&row.k) {
                d.iter_mut().zip(&dz).for_each(|(d, dz)| *d = if row.starts { 0.0 } else { row.decay * (*d - k * dz) });
            }
        }
    }
    [y, dx, dgates]
}

/// The same on a backend.
fn computed(inputs: &Inputs, backend: &Backend) -> [Vec<f32>; 3] {
    let mut g = Graph::new();
    let [x, gates, dy, y, dx, dgates] = [
        ("x", ROWS * COLS),
        ("gates", ROWS * 2 * HEADS),
        ("dy", ROWS * HEADS * VALUES),
        ("y", ROWS * HEADS * VALUES),
        ("dx", ROWS * COLS),
        ("dgates", ROWS * 2 * HEADS),
    ]
    .map(|(name, n)| g.persistent(name, &[n], DType::F32));
    let positions = g.persistent("positions", &[ROWS], DType::U32);
    let states = g.persistent("states", &[ROWS / SEQ * SEQ.div_ceil(32) * HEADS * KEYS * VALUES], DType::F32);
    let [rows, heads, key_size, value_size, seq] = [ROWS, HEADS, KEYS, VALUES, SEQ].map(|n| n as u32);
    let forward = DeltaRuleArgs { rows, heads, key_size, value_size, seq };
    g.push(&DELTA_RULE, forward, &[x, gates, positions, positions, states, y]);
    let count = rows / seq * heads;
    let backward = DeltaRuleBackwardArgs { rows, heads, key_size, value_size, seq, first: 0, count };
    g.push(&DELTA_RULE_BACKWARD, backward, &[x, gates, positions, states, dy, dx, dgates]);
    let mut program = backend.prepare(Arc::new(Plan::new(g))).unwrap();
    program.write(x, &inputs.x);
    program.write(gates, &inputs.gates);
    program.write(dy, &inputs.dy);
    program.write(positions, &inputs.positions);
    program.run(0..2).unwrap();
    [y, dx, dgates].map(|t| program.read(t).unwrap())
}

#[test]
fn the_recurrence_and_its_gradients_in_chunks_are_the_formula() {
    let inputs = inputs();
    let want = reference(&inputs);
    for (name, backend) in backends() {
        let have = computed(&inputs, &backend);
        for ((what, have), want) in ["y", "dx", "dgates"].into_iter().zip(&have).zip(&want) {
            let off = relative(have, want);
            println!("{what} on {name}: {off:.1e}");
            assert!(off < if on_gpu(&name) { 1e-5 } else { 2e-6 }, "{what} on {name} is {off:.1e} away");
        }
    }
}
