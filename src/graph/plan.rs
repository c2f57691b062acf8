//! The memory plan assigns a buffer to each tensor.
//!
//! Each slot is a buffer of its own and not a range of a larger one: WebGPU forbids binding ranges of one buffer as read and
//! as written in one dispatch, even if they do not overlap, and native wgpu does not detect it. Temporaries are assigned
//! greedily, the largest first: each goes to the first slot in which nothing lives at the same time. Put the other way round,
//! which is faster: a slot takes the largest temporary, then the largest of the rest that fits before it, and so on. That is
//! O(n log^2 n) for n temporaries.

use super::{Graph, Kind, Node, Tensor, TensorId};

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
        let mut temps: Vec<(TensorId, Life)> = Vec::new();
        for (i, life) in lives.into_iter().enumerate() {
            let t = TensorId(i as u32);
            match (plan.graph.tensor(t).kind, life) {
                (Kind::Persistent, _) => plan.push(vec![t]),
                (Kind::Temp, Some(life)) => temps.push((t, life)),
                (Kind::Temp, None) => {}
            }
        }
        let temps: Vec<_> =
            sorted(temps.iter().map(|(t, _)| usize::MAX - plan.graph.tensor(*t).bytes())).map(|i| temps[i]).collect();
        let mut waiting = Waiting::new(temps.iter().map(|(_, life)| *life).collect());
        while let Some(largest) = waiting.take(Gap::default()) {
            let (mut chosen, mut gaps) = (vec![largest], around(Gap::default(), temps[largest].1).to_vec());
            while let Some(gap) = gaps.pop() {
                if let Some(next) = waiting.take(gap) {
                    chosen.push(next);
                    gaps.extend(around(gap, temps[next].1));
                }
            }
            let in_time = sorted(chosen.iter().map(|i| temps[*i].1.first));
            plan.push(in_time.map(|i| temps[chosen[i]].0).collect());
        }
        plan
    }

    /// Makes a slot of these tensors.
    fn push(&mut self, tensors: Vec<TensorId>) {
        tensors.iter().for_each(|t| self.slot_of[t.index()] = Some(self.slots.len() as u32));
        let bytes = tensors.iter().map(|t| self.graph.tensor(*t).bytes()).max().unwrap_or(0);
        self.slots.push(Slot { bytes, tensors });
    }

    /// Bytes of the memory in which the passes of an op hand results on: what the node that needs most takes.
    pub fn scratch(&self) -> usize {
        let words = |node: &Node| node.op.scratch.map_or(0, |words| words(&node.args));
        self.graph.nodes.iter().map(words).max().unwrap_or(0).saturating_mul(4)
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
        let (mut born, mut died) = (vec![0; self.graph.nodes.len() + 1], vec![0; self.graph.nodes.len() + 1]);
        for (tensor, life) in self.graph.tensors.iter().zip(lifetimes(&self.graph)) {
            if let (Kind::Temp, Some(life)) = (tensor.kind, life) {
                born[life.first] += tensor.bytes();
                died[life.last + 1] += tensor.bytes();
            }
        }
        let mut alive = 0;
        let each = born.iter().zip(&died).map(|(born, died)| {
            alive = alive + born - died;
            alive
        });
        each.max().unwrap_or(0)
    }

    /// Bytes of the slots of temporaries.
    pub fn temp_bytes(&self) -> usize {
        let temp = |s: &&Slot| self.graph.tensor(s.tensors[0]).kind == Kind::Temp;
        self.slots.iter().filter(temp).map(|s| s.bytes).sum()
    }
}

/// The first and the last node that use a tensor.
#[derive(Clone, Copy, Debug)]
struct Life {
    first: usize,
    last: usize,
}

/// Nodes at which nothing lives in a slot: those before `end` that are not among the first `start`.
#[derive(Clone, Copy, Debug)]
struct Gap {
    start: usize,
    end: usize,
}

impl Default for Gap {
    fn default() -> Self {
        Gap { start: 0, end: usize::MAX }
    }
}

/// What a life leaves of a gap.
fn around(gap: Gap, life: Life) -> [Gap; 2] {
    [Gap { end: life.first, ..gap }, Gap { start: life.last + 1, ..gap }]
}

/// The places of values in rising order, those of equals as they are.
fn sorted(values: impl Iterator<Item = usize>) -> impl Iterator<Item = usize> {
    let mut pairs: Vec<(usize, usize)> = values.zip(0..).collect();
    pairs.sort();
    pairs.into_iter().map(|(_, place)| place)
}

/// The lives of all tensors that nodes use.
///
/// # Panics
/// When a temporary is used both inside and outside of a section: its contents would not be kept.
fn lifetimes(graph: &Graph) -> Vec<Option<Life>> {
    let mut lives: Vec<Option<Life>> = vec![None; graph.tensors.len()];
    for (i, node) in graph.nodes.iter().enumerate() {
        for t in &node.tensors {
            lives[t.index()].get_or_insert(Life { first: i, last: i }).last = i;
        }
    }
    let mut section_of = vec![None; graph.nodes.len()];
    graph.sections.iter().for_each(|section| section_of[section.nodes()].fill(Some(section.name)));
    for (Tensor { kind, name, .. }, life) in graph.tensors.iter().zip(&lives) {
        if let (Kind::Temp, Some(life)) = (kind, life) {
            let sections = [life.first, life.last].map(|i| section_of[i]);
            assert!(sections[0] == sections[1], "{name} is used inside and outside of a section: {sections:?}");
        }
    }
    lives
}

/// Lives in the order of preference, to take the first that a gap holds: a Fenwick tree over where they start, the last
/// first, of segment trees over where they end.
struct Waiting {
    lives: Vec<Life>,
    /// The places in `lives`, by start.
    by_start: Vec<usize>,
    /// The place of each in that order, from 1.
    at: Vec<usize>,
    /// `trees[i - 1]` holds the first i of that order, but for those that smaller trees hold.
    trees: Vec<Ends>,
}

impl Waiting {
    fn new(lives: Vec<Life>) -> Self {
        let by_start: Vec<usize> = sorted(lives.iter().map(|life| usize::MAX - life.first)).collect();
        let mut at = vec![0; lives.len()];
        by_start.iter().zip(1..).for_each(|(life, place)| at[*life] = place);
        let mut trees: Vec<Ends> = (0..lives.len()).map(|_| Ends::default()).collect();
        for life in sorted(lives.iter().map(|life| life.last)) {
            above(at[life], lives.len()).for_each(|i| trees[i - 1].ends.push((lives[life].last, life)));
        }
        trees.iter_mut().for_each(Ends::fill);
        Waiting { lives, by_start, at, trees }
    }

    /// Takes the first life that lies in the gap.
    fn take(&mut self, gap: Gap) -> Option<usize> {
        let mut i = self.by_start.partition_point(|l| self.lives[*l].first >= gap.start);
        let mut found = None;
        while i > 0 {
            let first = self.trees[i - 1].first_before(gap.end);
            found = found.into_iter().chain(first).min();
            i -= lowest_bit(i);
        }
        let taken = found?;
        above(self.at[taken], self.trees.len()).for_each(|i| self.trees[i - 1].remove((self.lives[taken].last, taken)));
        Some(taken)
    }
}

/// The trees of a Fenwick tree of `n` that hold place i.
fn above(i: usize, n: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(i), |i| Some(i + lowest_bit(*i))).take_while(move |i| *i <= n)
}

fn lowest_bit(i: usize) -> usize {
    i & i.wrapping_neg()
}

/// Lives by where they end.
#[derive(Default)]
struct Ends {
    /// (end, place).
    ends: Vec<(usize, usize)>,
    /// A segment tree of the smallest place; `usize::MAX` where a life was removed.
    least: Vec<usize>,
}

impl Ends {
    /// Makes the segment tree.
    fn fill(&mut self) {
        let n = self.ends.len();
        self.least = vec![usize::MAX; n];
        self.least.extend(self.ends.iter().map(|(_, place)| *place));
        (1..n).rev().for_each(|i| self.least[i] = self.least[2 * i].min(self.least[2 * i + 1]));
    }

    /// The smallest place of a life that ends before `end`.
    fn first_before(&self, end: usize) -> Option<usize> {
        let n = self.ends.len();
        let (mut low, mut high) = (n, n + self.ends.partition_point(|(last, _)| *last < end));
        let mut found = usize::MAX;
        while low < high {
            if low % 2 == 1 {
                found = found.min(self.least[low]);
                low += 1;
            }
            if high % 2 == 1 {
                high -= 1;
                found = found.min(self.least[high]);
            }
            (low, high) = (low / 2, high / 2);
        }
        (found < usize::MAX).then_some(found)
    }

    fn remove(&mut self, life: (usize, usize)) {
        let n = self.ends.len();
        let mut i = n + self.ends.partition_point(|other| *other < life);
        self.least[i] = usize::MAX;
        while i > 1 {
            i /= 2;
            self.least[i] = self.least[2 * i].min(self.least[2 * i + 1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::DType;
    use crate::ops::COPY;
    use crate::rng::Rng;
    use cpu_kernels::ops::copy::CopyArgs;
    use std::cmp::Reverse;

    /// The slots of temporaries by definition: the largest first, each in the first slot where it lives alone.
    fn defined(graph: &Graph) -> Vec<Vec<TensorId>> {
        let lives = lifetimes(graph);
        let life = |t: TensorId| lives[t.index()].unwrap();
        let used = (0..graph.tensors.len() as u32).map(TensorId).filter(|t| lives[t.index()].is_some());
        let mut temps: Vec<TensorId> = used.filter(|t| graph.tensor(*t).kind == Kind::Temp).collect();
        temps.sort_by_key(|t| (Reverse(graph.tensor(*t).bytes()), *t));
        let mut slots: Vec<Vec<TensorId>> = Vec::new();
        for t in temps {
            let apart = |o: &TensorId| life(*o).last < life(t).first || life(t).last < life(*o).first;
            match slots.iter_mut().find(|slot| slot.iter().all(apart)) {
                Some(slot) => slot.push(t),
                None => slots.push(vec![t]),
            }
        }
        slots.iter_mut().for_each(|slot| slot.sort_by_key(|t| life(*t).first));
        slots
    }

    #[test]
    fn the_plan_is_the_one_of_the_definition() {
        let mut rng = Rng::new(5);
        for trial in 0..200 {
            let mut g = Graph::new();
            let x = g.persistent("x", &[1], DType::F32);
            let (count, sizes) = (1 + rng.below(80), 1 + rng.below(12));
            let mut alive = vec![x];
            for _ in 0..count {
                let y = g.temp("y", &[1 + rng.below(sizes) as usize], DType::F32);
                // Some live long.
                let back = rng.below(alive.len().min(if trial % 2 == 0 { 4 } else { 60 }) as u64) as usize;
                let from = alive[alive.len() - 1 - back];
                g.push(&COPY, CopyArgs { n: 1 }, &[from, y]);
                alive.push(y);
            }
            let want = defined(&g);
            let plan = Plan::new(g);
            let have: Vec<_> = plan.slots[1..].iter().map(|slot| slot.tensors.clone()).collect();
            assert_eq!(have, want, "trial {trial}");
            for slot in &plan.slots {
                assert_eq!(slot.bytes, slot.tensors.iter().map(|t| plan.graph.tensor(*t).bytes()).max().unwrap());
            }
        }
    }
}
