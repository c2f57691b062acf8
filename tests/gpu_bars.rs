//! What a training step asks of a GPU: no op that takes a share of the work may leave a large GPU idle; launches, bytes that are
//! moved and memory may not become more.
#![cfg(feature = "native")]

use nanotern::bench::{StepPlan, plan_step};
use nanotern::graph::Op;
use nanotern::model::Preset;
use nanotern::train::{Config, StepShape, TrainConfig, TrainStep};
use std::collections::BTreeMap;

/// Two for each of the 132 cores of an H100.
const WORKGROUPS: u64 = 264;
/// Most bytes that a step moves, as a multiple of what its algorithm moves at least.
const MOVED: f64 = 1.5;

/// The plan of a training step of 8 x 1024 tokens.
fn plan(preset: &str, recompute: bool) -> StepPlan {
    let preset = Preset::find(preset).unwrap();
    let train = TrainConfig { batch_size: 8192 / preset.model.seq_len, recompute, ..TrainConfig::default() };
    plan_step(&Config { model: preset.model.clone(), train, ..Config::default() }, preset.vocab)
}

/// The kinds of nodes of such a step that take more than 1 % of its work on fewer workgroups than there should be.
fn idle(preset: &str) -> Vec<String> {
    let preset = Preset::find(preset).unwrap();
    let shape = StepShape { batch: 8, seq: 1024, ..StepShape::default() };
    let step = TrainStep::build(&preset.model, preset.vocab, shape, &Config::default().optim);
    let sections = [step.sections.begin, step.sections.micro, step.sections.update];
    let mut kinds: BTreeMap<_, (&'static Op, u64)> = BTreeMap::new();
    for node in sections.iter().flat_map(|section| &step.plan.graph.nodes[section.nodes()]) {
        kinds.entry((node.op.name, node.args)).or_insert((node.op, 0)).1 += (node.op.work)(&node.args);
    }
    let total: u64 = kinds.values().map(|(_, work)| work).sum();
    let mut idle = Vec::new();
    for ((name, args), (op, work)) in kinds {
        let grids = op.passes.iter().map(|pass| (pass.grid)(&args));
        let workgroups = grids.map(|grid| grid.iter().map(|n| u64::from(*n)).product::<u64>()).max().unwrap_or(0);
        if 100 * work > total && workgroups < WORKGROUPS {
            let share = 100 * work / total;
            idle.push(format!("{name} {args:?}: {workgroups} workgroups for {share} % of the work"));
        }
    }
    idle
}

#[test]
fn steps_fill_a_gpu() {
    for preset in ["nano-125m", "small-560m"] {
        let idle = idle(preset);
        assert!(idle.is_empty(), "{preset}: {}", idle.join("\n"));
    }
}

#[test]
fn a_step_takes_few_launches_and_moves_few_bytes() {
    for (preset, launches) in [("nano-125m", 666), ("small-560m", 1_390)] {
        let StepPlan { ops, total, least_bytes, .. } = plan(preset, false);
        let gb = |bytes: u64| bytes as f64 * 1e-9;
        let ratio = total.bytes as f64 / least_bytes as f64;
        println!(
            "{preset}: {} launches, {:.1} GB moved, {ratio:.2} times {:.1} GB",
            total.launches,
            gb(total.bytes),
            gb(least_bytes)
        );
        println!("{:.1} GB if every tile of a product reads its factors from memory", gb(total.tiled_bytes));
        let mut ops: Vec<_> = ops.into_iter().collect();
        ops.sort_by_key(|(_, t)| std::cmp::Reverse(t.bytes));
        ops.iter().for_each(|(op, t)| println!("{op:32} {:5} launches {:7.2} GB", t.launches, gb(t.bytes)));
        assert!(total.launches <= launches, "{preset}: {} launches a step", total.launches);
        assert!(ratio <= MOVED, "{preset}: {ratio:.2} times the bytes of the algorithm");
    }
}

/// Most MB of buffers. A card with 24 GB trains the larger preset if it computes activations again.
#[test]
fn steps_fit_their_memory() {
    for (preset, recompute, most) in [
        ("tiny", false, 727),
        ("nano-125m", false, 6_856),
        ("nano-125m", true, 2_809),
        ("small-560m", false, 24_101),
        ("small-560m", true, 9_381),
    ] {
        let StepPlan { buffer_bytes, temporary_bytes, .. } = plan(preset, recompute);
        let [all, temporary] = [buffer_bytes, temporary_bytes].map(|bytes| bytes / 1_000_000);
        println!("{preset}, recompute {recompute}: {all} MB, {temporary} MB of them for intermediate results");
        assert!(all <= most, "{preset}, recompute {recompute}: {all} MB");
    }
}
