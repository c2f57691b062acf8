//! The memory plan assigns a buffer to each tensor.
//!
//! Each slot is a buffer of its own and not a range of a larger one: WebGPU forbids binding ranges of one buffer as read and
//! as written in one dispatch, even if they do not overlap, and native wgpu does not detect it. Temporaries are assigned
//! greedily, the largest first.

use super::{Graph, Kind, Tensor, TensorId};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

/// One buffer of a plan.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its size in bytes.
    pub bytes: usize,
    /// The tensors that use it, in the order of first use.
    pub tensors: Vec<TensorId>,
}

/// A graph with a buffer for every persistent tensor and every temporary that a node uses.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The planned graph.
    pub graph: Graph,
    /// The buffers.
    pub slots: Vec<Slot>,
    /// The slot of each tensor.
    slot_of: Vec<Option<u32>>,
}

impl Plan {
    /// Plans the buffers of a graph.
    ///
    /// # Panics
    /// When a temporary is used both inside and outside of a section.
    pub fn new(graph: Graph) -> Self {
        let lives = lifetimes(&graph);
        let mut plan = Plan { slots: Vec::new(), slot_of: vec![None; graph.tensors.len()], graph };
        for i in 0..plan.graph.tensors.len() {
            if plan.graph.tensors[i].kind == Kind::Persistent {
                plan.slots.push(Slot { bytes: plan.graph.tensors[i].bytes(), tensors: vec![TensorId(i as u32)] });
                plan.slot_of[i] = Some(plan.slots.len() as u32 - 1);
            }
        }
        let shared = plan.slots.len();
        let mut temps: Vec<(&TensorId, &RangeInclusive<usize>)> =
            lives.iter().filter(|(t, _)| plan.graph.tensor(**t).kind == Kind::Temp).collect();
        temps.sort_by_key(|(t, _)| (std::cmp::Reverse(plan.graph.tensor(**t).bytes()), **t));
        let overlaps =
            |a: &RangeInclusive<usize>, b: &RangeInclusive<usize>| a.start() <= b.end() && b.start() <= a.end();
        for (t, life) in temps {
            let free = |slot: &Slot| !slot.tensors.iter().any(|o| overlaps(&lives[o], life));
            let slot = match plan.slots[shared..].iter().position(free) {
                Some(i) => shared + i,
                None => {
                    plan.slots.push(Slot { bytes: plan.graph.tensor(*t).bytes(), tensors: Vec::new() });
                    plan.slots.len() - 1
                }
            };
            plan.slots[slot].tensors.push(*t);
            plan.slot_of[t.index()] = Some(slot as u32);
        }
        for slot in &mut plan.slots[shared..] {
            slot.tensors.sort_by_key(|t| *lives[t].start());
        }
        plan
    }

    /// The slot of a tensor, an index into [`Plan::slots`].
    ///
    /// # Panics
    /// When the tensor is a temporary that no node uses.
    pub fn slot(&self, t: TensorId) -> usize {
        let slot = self.slot_of[t.index()];
        slot.unwrap_or_else(|| panic!("{} is used by no node", self.graph.tensor(t).name)) as usize
    }

    /// Bytes of all buffers: the memory that the device needs.
    pub fn bytes(&self) -> usize {
        self.slots.iter().fold(0, |sum, slot| sum.saturating_add(slot.bytes))
    }

    /// The most bytes of temporaries alive at one node, a lower bound for every plan.
    pub fn ideal_peak(&self) -> usize {
        let lives = lifetimes(&self.graph);
        let alive = |i: usize| {
            let live = lives.iter().filter(|(t, l)| self.graph.tensor(**t).kind == Kind::Temp && l.contains(&i));
            live.map(|(t, _)| self.graph.tensor(*t).bytes()).sum()
        };
        (0..self.graph.nodes.len()).map(alive).max().unwrap_or(0)
    }

    /// Bytes of the slots of temporaries.
    pub fn temp_bytes(&self) -> usize {
        let temp = |s: &&Slot| self.graph.tensor(s.tensors[0]).kind == Kind::Temp;
        self.slots.iter().filter(temp).map(|s| s.bytes).sum()
    }
}

/// The first and the last node that use each tensor.
///
/// # Panics
/// When a temporary is used both inside and outside of a section: its contents would not be kept.
fn lifetimes(graph: &Graph) -> BTreeMap<TensorId, RangeInclusive<usize>> {
    let mut lives: BTreeMap<TensorId, RangeInclusive<usize>> = BTreeMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        for t in &node.tensors {
            let first = lives.get(t).map_or(i, |l| *l.start());
            lives.insert(*t, first..=i);
        }
    }
    for section in &graph.sections {
        for (t, life) in &lives {
            let Tensor { kind, name, .. } = graph.tensor(*t);
            let inside = section.nodes().contains(life.start()) == section.nodes().contains(life.end());
            assert!(
                *kind == Kind::Persistent || inside,
                "{name} is used inside and outside of section {}",
                section.name
            );
        }
    }
    lives
}
