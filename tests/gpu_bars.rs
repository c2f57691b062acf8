//! How a training step is divided on a GPU: no op that takes a share of the work may leave a large GPU idle, and launches may
//! not become more.
#![cfg(feature = "native")]

use nanotern::graph::Op;
use nanotern::model::Preset;
use nanotern::train::{Config, StepShape, TrainStep};
use std::collections::BTreeMap;

/// Two for each of the 132 cores of an H100.
const WORKGROUPS: u64 = 264;
/// Most dispatches of a step.
const DISPATCHES_125M: usize = 1_622;
const DISPATCHES_560M: usize = 3_159;

/// Dispatches of a training step of 8 x 1024 tokens, and the nodes of a kind that take more than 1 % of its work on fewer
/// workgroups than there should be.
fn step(preset: &str) -> (usize, Vec<String>) {
    let preset = Preset::find(preset).unwrap();
    let shape = StepShape { batch: 8, seq: 1024, ..StepShape::default() };
    let step = TrainStep::build(&preset.model, preset.vocab, shape, &Config::default().optim);
    let sections = [step.sections.begin, step.sections.micro, step.sections.update];
    let mut dispatches = 0;
    let mut kinds: BTreeMap<_, (&'static Op, u64)> = BTreeMap::new();
    for node in sections.iter().flat_map(|section| &step.plan.graph.nodes[section.nodes()]) {
        dispatches += node.op.passes.iter().filter(|pass| !(pass.grid)(&node.args).contains(&0)).count();
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
    (dispatches, idle)
}

#[test]
fn nano_125m_fills_a_gpu() {
    let (dispatches, idle) = step("nano-125m");
    assert!(idle.is_empty(), "{}", idle.join("\n"));
    assert!(dispatches <= DISPATCHES_125M, "{dispatches} dispatches a step");
}

#[test]
fn small_560m_fills_a_gpu() {
    let (dispatches, idle) = step("small-560m");
    assert!(idle.is_empty(), "{}", idle.join("\n"));
    assert!(dispatches <= DISPATCHES_560M, "{dispatches} dispatches a step");
}
