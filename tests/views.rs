//! Ranges of rows of a tensor as tensors of their own, and tables that are used in such parts.
#![cfg(feature = "native")]

mod common;

use common::backends;
use cpu_kernels::ops::copy::CopyArgs;
use half::f16;
use half::slice::HalfFloatSliceExt;
use nanotern::backend::{Backend, Program};
use nanotern::graph::{DType, Graph, Kind, MAX_BINDING, Plan, TensorId};
use nanotern::infer::{Engine, EngineOptions};
use nanotern::model::{PRESETS, Preset};
use nanotern::ops::{AdamW, COPY, Head, Lion, StateForm};
use nanotern::train::{OptimConfig, StepShape, TrainStep};
use std::sync::Arc;

/// The rows of each part, and the bytes at which it starts.
fn parts(shape: &[usize], dtype: DType) -> Vec<(usize, usize)> {
    let mut g = Graph::new();
    let t = g.persistent("table", shape, dtype);
    let parts = g.parts(t);
    let plan = Plan::new(g);
    assert!(parts.iter().all(|part| plan.slot(*part) == plan.slot(t)));
    parts.iter().map(|part| (plan.graph.shape(*part)[0], plan.start(*part))).collect()
}

#[test]
fn a_table_is_cut_into_equal_parts_that_can_be_bound() {
    assert_eq!(parts(&[32_768, 1024], DType::F32), [(32_768, 0)]);
    assert_eq!(parts(&[50_257, 768], DType::F32), [(25_152, 0), (25_105, 25_152 * 3072)]);
    for (shape, dtype) in [
        ([50_257, 1280], DType::F32),
        ([151_936, 1000], DType::F32),
        ([300_000, 1000], DType::I8),
        ([1 << 26, 1], DType::F32),
    ] {
        let (found, row) = (parts(&shape, dtype), shape[1] * dtype.bytes());
        let mut end = 0;
        for (rows, start) in &found {
            assert!(*start == end && start.is_multiple_of(256) && rows * row <= MAX_BINDING, "{shape:?}: {found:?}");
            end += rows * row;
        }
        assert!(end == shape[0] * row && found.len() == end.div_ceil(MAX_BINDING), "{shape:?}: {found:?}");
    }
    let mut g = Graph::new();
    let temporary = g.temp("large", &[50_257, 768], DType::F32);
    assert_eq!(g.parts(temporary), [temporary]);
}

#[test]
fn a_range_of_rows_is_one_view() {
    let mut g = Graph::new();
    let t = g.persistent("table", &[192, 5], DType::F32);
    let (view, again) = (g.rows(t, 64..100), g.rows(t, 64..100));
    assert_eq!((view, g.rows(t, 0..192)), (again, t));
    assert_eq!((g.shape(view), g.tensor(view).name.as_str()), (&[36, 5][..], "table[64..100]"));
}

#[test]
fn ops_and_the_host_see_the_rows_of_a_view() {
    for (name, backend) in backends() {
        let mut g = Graph::new();
        let t = g.persistent("table", &[192, 5], DType::F32);
        let y = g.persistent("y", &[64, 5], DType::F32);
        let [first, middle, last] = [0..64, 64..128, 128..192].map(|rows| g.rows(t, rows));
        g.fill(middle, 2.0);
        g.push(&COPY, CopyArgs { n: 320 }, &[last, y]);
        let nodes = 0..g.nodes.len();
        let mut program = backend.prepare(Arc::new(Plan::new(g))).unwrap();
        assert_eq!(program.plan().slots.len(), 2);
        let numbers: Vec<f32> = (0..960).map(|i| i as f32).collect();
        program.write(t, &numbers);
        program.write(first, &[-1f32; 320]);
        program.run(nodes).unwrap();
        let mut read = |t: TensorId| program.read::<f32>(t).unwrap();
        assert_eq!(read(t), [&[-1.0; 320], &[2.0; 320], &numbers[640..]].concat(), "{name}");
        assert_eq!((read(middle), read(y)), (vec![2.0; 320], numbers[640..].to_vec()), "{name}");
        let both = pollster::block_on(program.read_bytes(&[last, first])).unwrap();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&both[0]), numbers[640..], "{name}");
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&both[1]), [-1.0; 320], "{name}");
    }
}

#[test]
#[should_panic(expected = "written and bound twice")]
fn parts_of_one_tensor_are_not_read_and_written_at_once() {
    let mut g = Graph::new();
    let t = g.persistent("table", &[128, 1], DType::F32);
    let (from, to) = (g.rows(t, 0..64), g.rows(t, 64..128));
    g.push(&COPY, CopyArgs { n: 64 }, &[from, to]);
}

#[test]
#[should_panic(expected = "rows 32..64")]
fn a_view_starts_where_every_device_can_bind() {
    let mut g = Graph::new();
    let t = g.persistent("table", &[64, 1], DType::F32);
    g.rows(t, 32..64);
}

/// A graph on a device. Temporaries keep their contents, so that all can be read.
fn start(mut g: Graph, backend: &Backend) -> Program {
    g.tensors.iter_mut().filter(|t| t.kind == Kind::Temp).for_each(|t| t.kind = Kind::Persistent);
    backend.prepare(Arc::new(Plan::new(g))).unwrap()
}

/// Runs a graph on the CPU; `fill` writes the inputs.
fn run(g: Graph, fill: impl FnOnce(&mut Program)) -> Program {
    let nodes = 0..g.nodes.len();
    let mut program = start(g, &common::fastest());
    fill(&mut program);
    program.run(nodes).unwrap();
    program
}

const DIM: usize = 64;
const ROWS: usize = 4;

fn pattern(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 10_007) as f32 - 5000.0) / 5000.0).collect()
}

#[test]
fn a_large_table_is_the_embedding_and_the_head_that_a_whole_one_is() {
    const VOCAB: usize = 600_000;
    let mut g = Graph::new();
    let table = g.persistent("table", &[VOCAB, DIM], DType::F32);
    let [ids, order] = ["ids", "order"].map(|name| g.persistent(name, &[ROWS], DType::U32));
    let x = g.persistent("x", &[ROWS, DIM], DType::F32);
    let dtable = g.add_gradient(table);
    let parts = g.parts(table);
    let second = g.shape(parts[0])[0];
    assert_eq!(parts.len(), 2);
    let embedded = g.embedding(ids, table);
    g.embedding_backward(ids, order, x, dtable);
    let logits = g.logits(&Head::Dense { x, weight: table, latent: None }, 1..ROWS);
    let whole = g.linear(x, table, 1..ROWS);
    let (table_values, x_values) = (pattern(VOCAB * DIM), pattern(ROWS * DIM));
    let rows = [second, 0, VOCAB - 1, second - 1];
    let mut program = run(g, |program| {
        program.write(table, &table_values);
        program.write(ids, &rows.map(|row| row as u32));
        program.write(order, &[1u32, 3, 0, 2]);
        program.write(x, &x_values);
    });
    let mut read = |t: TensorId| program.read::<f32>(t).unwrap();
    assert!(read(logits) == read(whole) && read(whole).iter().any(|y| *y != 0.0));
    let (embedded, dtable) = (read(embedded), read(dtable));
    for (row, (y, dy)) in rows.iter().zip(embedded.chunks(DIM).zip(x_values.chunks(DIM))) {
        assert_eq!((y, &dtable[row * DIM..][..DIM]), (&table_values[row * DIM..][..DIM], dy), "row {row}");
    }
    assert_eq!(dtable.iter().filter(|v| **v != 0.0).count(), x_values.iter().filter(|v| **v != 0.0).count());
}

/// The embedding and the logits of an f16 table have the bits that its values give as f32.
#[test]
fn an_f16_table_gives_the_bits_of_its_values() {
    const VOCAB: usize = 1000;
    let values: Vec<f16> = pattern(VOCAB * DIM).into_iter().map(|v| f16::from_f32(v * v * v * v)).collect();
    assert!(values.iter().any(|v| !v.is_normal() && v.to_bits() != 0), "some are below the smallest normal f16");
    let widened: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
    for (name, backend) in backends() {
        for rows in [1, 4, 8, 70] {
            let mut g = Graph::new();
            let tables = [DType::F16, DType::F32].map(|dtype| g.persistent("table", &[VOCAB, DIM], dtype));
            let ids = g.persistent("ids", &[rows], DType::U32);
            let x = g.persistent("x", &[rows, DIM], DType::F32);
            let results = tables.map(|table| [g.embedding(ids, table), g.linear(x, table, 0..rows)]);
            let mut program = start(g, &backend);
            program.write::<u16>(tables[0], values.reinterpret_cast());
            program.write(tables[1], &widened);
            program.write(ids, &(0..rows as u32).map(|r| r * 377 % VOCAB as u32).collect::<Vec<_>>());
            program.write(x, &pattern(rows * DIM));
            program.run(0..4).unwrap();
            let [half, float] = results.map(|results| results.map(|t| program.read::<u32>(t).unwrap()));
            assert!(half == float && half.iter().flatten().any(|y| *y != 0), "{rows} rows on {name}");
        }
    }
}

#[test]
fn a_large_int8_table_is_the_embedding_and_the_head_that_a_whole_one_is() {
    const VOCAB: usize = 2_200_000;
    let mut g = Graph::new();
    let table = g.int8_weight("table", VOCAB, DIM);
    let ids = g.persistent("ids", &[ROWS], DType::U32);
    let input = g.persistent("x", &[ROWS, DIM], DType::F32);
    let second = g.parts(table.codes).into_iter().map(|part| g.shape(part)[0]).next().unwrap();
    let embedded = g.embedding_int8(ids, &table);
    let x = g.quantize_rows(input);
    let logits = g.logits(&Head::Int8 { x, input, weight: table }, 0..ROWS);
    let whole = g.int8_matmul(x, &table, 0..ROWS);
    let codes: Vec<i8> = (0..VOCAB * DIM).map(|i| (i * 7919 % 251) as i8).collect();
    let scales: Vec<f32> = (0..VOCAB * DIM / 32).map(|i| (i % 100) as f32 / 1024.0).collect();
    let rows = [second, 0, VOCAB - 1, second - 1];
    let mut program = run(g, |program| {
        program.write(table.codes, &codes);
        program.write(table.scales, &scales);
        program.write(ids, &rows.map(|row| row as u32));
        program.write(input, &pattern(ROWS * DIM));
    });
    let mut read = |t: TensorId| program.read::<f32>(t).unwrap();
    assert!(second < VOCAB && read(logits) == read(whole) && read(whole).iter().any(|y| *y != 0.0));
    for (row, y) in rows.iter().zip(read(embedded).chunks(DIM)) {
        let want: Vec<f32> = (row * DIM..(row + 1) * DIM).map(|i| scales[i / 32] * f32::from(codes[i])).collect();
        assert_eq!(y, want, "row {row}");
    }
}

/// AdamW's and Lion's weights, with their state in every form, what is rounded to f16, the codes of a ternary matrix, and the norm of the gradients, where all
/// tensors have so many rows of a repeated pattern.
fn update(rows: usize) -> ([Vec<f32>; 7], Vec<u8>, f32) {
    const PERIOD: usize = 1000;
    let mut g = Graph::new();
    let control = g.step_control();
    let [grad, adamw, m, v, lion, momentum, rounded] =
        ["grad", "adamw", "m", "v", "lion", "momentum", "rounded"].map(|n| g.persistent(n, &[rows, DIM], DType::F32));
    let ternary = g.ternary_weight("ternary", rows, DIM, 32);
    let loss = g.persistent("loss", &[1], DType::F32);
    g.round_f16(grad, rounded);
    g.ternary_quantize(grad, &ternary);
    g.clip(&[("grad", grad)], &[m, v], loss, control, [0.0, 0.0]);
    g.adamw(&AdamW::default(), control, [grad, adamw], [m, v].map(Into::into));
    g.lion(&Lion::default(), control, [grad, lion], momentum.into());
    let forms = [StateForm::Bf16, StateForm::Int8].map(|form| {
        ["adamw", "lion"].map(|kind| {
            let w = g.persistent(kind, &[rows, DIM], DType::F32);
            let m = g.first_moment(w, form);
            if kind == "lion" {
                g.lion(&Lion::default(), control, [grad, w], m);
            } else {
                let v = g.second_moment(w, form);
                g.adamw(&AdamW::default(), control, [grad, w], [m, v]);
            }
            w
        })
    });
    let [[adamw_bf16, lion_bf16], [adamw_int8, lion_int8]] = forms;
    let weights = [adamw, lion, adamw_bf16, lion_bf16, adamw_int8, lion_int8];
    let values: Vec<f32> = pattern(PERIOD * DIM).repeat(rows / PERIOD);
    let mut program = run(g, |program| {
        program.write(control.step, &[1f32, 0.1, 0.05, 0.0, 0.0, 0.0]);
        weights.iter().chain([&grad]).for_each(|t| program.write(*t, &values));
    });
    let norm = program.read::<f32>(control.stats).unwrap()[1];
    let codes = program.read::<u8>(ternary.codes).unwrap();
    let [a, b, c, d, e, f] = weights;
    ([a, b, c, d, e, f, rounded].map(|t| program.read(t).unwrap()), codes, norm)
}

#[test]
fn every_part_of_a_large_tensor_is_updated() {
    let (small, large) = (update(1000), update(600_000));
    assert!((1..3).all(|form| small.0[2 * form..2 * form + 2] == small.0[..2]), "from zero, every form is exact");
    for (small, large) in small.0.iter().zip(&large.0) {
        assert!(large.chunks(small.len()).all(|repeated| repeated == small));
    }
    assert!(large.1.chunks(small.1.len()).all(|repeated| repeated == small.1));
    let norm = small.2 * 600f32.sqrt();
    assert!((large.2 - norm).abs() < 1e-5 * norm && norm > 0.0, "{} is not {norm}", large.2);
}

/// No device refuses a preset for the size of a binding: neither a training step of 8,192 tokens nor decoding. To train 7b or
/// 25b-moe takes a device that binds more, for a matrix, or all experts of a layer, are bound as a whole.
#[test]
fn presets_bind_no_more_than_every_device_allows() {
    for Preset { name, vocab, model } in PRESETS.iter() {
        let shape = StepShape { batch: 8192 / model.seq_len, seq: model.seq_len, ..StepShape::default() };
        let step = TrainStep::build(model, *vocab, shape, &OptimConfig::default());
        let engine = Engine::empty(model, *vocab, &[], &common::fastest(), EngineOptions::default()).unwrap();
        let table = engine.plan().graph.tensors.iter().position(|t| t.name == "embed.weight.f16").unwrap();
        let slot = engine.plan().slots.iter().find(|slot| slot.tensors[0].index() == table).unwrap();
        assert_eq!(slot.bytes, 2 * vocab * model.dim, "{name}: bytes of the table");
        let plans = [("training", &*step.plan), ("decoding", engine.plan())];
        let matrix = 4 * model.dim * model.ffn * model.moe.as_ref().map_or(1, |moe| moe.experts);
        assert_eq!(matrix > MAX_BINDING, ["7b", "25b-moe"].contains(name));
        for (what, plan) in plans.into_iter().filter(|(what, _)| *what == "decoding" || matrix <= MAX_BINDING) {
            let bound = plan.graph.nodes.iter().flat_map(|node| node.tensors.iter().map(move |t| (node, *t)));
            let (node, t) = bound.max_by_key(|(_, t)| plan.bound(*t)).unwrap();
            let bytes = plan.bound(t);
            let (all, what_bound) = (plan.bytes() >> 20, &plan.graph.tensor(t).name);
            println!("{name}, {what}: {all} MiB in all, at most {} MiB of {what_bound}", bytes >> 20);
            assert!(
                bytes <= MAX_BINDING,
                "{name}, {what}: {} binds {bytes} bytes of {}",
                node.op.name,
                plan.graph.tensor(t).name
            );
        }
        assert!(step.model.head_chunk(8192) >= 1024, "{name}");
    }
}
