//! Sampling draws the same tokens on every backend, where the logits are the same.

use crate::common;
use nanotern::backend::{Backend, Program};
use nanotern::graph::{DType, Graph, Plan, Section, TensorId};
use nanotern::ops::{SampleRow, SamplingState};
use nanotern::rng::Rng;
use std::sync::Arc;

const ROWS: usize = 8;
/// Sizes of vocabularies: of one block of tokens, at its end, and of many.
const VOCABS: [usize; 9] = [1, 2, 31, 1023, 1024, 1025, 5000, 50_257, 128_256];
/// Rounds of other logits and other settings, and draws in each.
const ROUNDS: u64 = 3;
const DRAWS: u32 = 6;

struct Sampler {
    program: Program,
    section: Section,
    state: SamplingState,
    logits: TensorId,
    params: TensorId,
    tokens: TensorId,
}

impl Sampler {
    fn new(backend: &Backend, vocab: usize) -> Sampler {
        let mut g = Graph::new();
        let state = g.sampling_state(ROWS, vocab);
        let logits = g.persistent("logits", &[ROWS, vocab], DType::F32);
        let params = g.persistent("params", &[ROWS, 8], DType::U32);
        let tokens = g.persistent("tokens", &[ROWS], DType::U32);
        let (section, ()) = g.section("sample", |g| g.sample(logits, state, params, tokens));
        let program = backend.prepare(Arc::new(Plan::new(g))).unwrap();
        Sampler { program, section, state, logits, params, tokens }
    }

    fn draw(&mut self, rows: &[SampleRow]) -> Vec<u32> {
        let words: Vec<u32> = rows.iter().flat_map(SampleRow::words).collect();
        self.program.write(self.params, &words);
        self.program.run_section(self.section).unwrap();
        self.program.read(self.tokens).unwrap()
    }
}

/// Logits of one kind: alike, equal in groups, near each other, or far apart.
fn logits(kind: usize, vocab: usize, rng: &mut Rng) -> Vec<f32> {
    let spread = [0.0, 4.0, 0.01, 1.0, 4.0, 30.0][kind % 6];
    let steps = [1.0, 2.0, 1e4, 1e6, 1e6, 1e6][kind % 6];
    (0..vocab).map(|_| (rng.normal() * spread * steps).round() / steps).collect()
}

fn setting(slot: usize, rng: &mut Rng) -> SampleRow {
    let mut one_of = |values: &[f32]| values[rng.below(values.len() as u64) as usize];
    SampleRow {
        slot: slot as u32,
        temperature: one_of(&[0.0, 0.1, 0.7, 0.8, 1.0, 1.3, 2.0]),
        top_k: one_of(&[0.0, 0.0, 1.0, 2.0, 40.0, 1000.0, 1e6]) as u32,
        top_p: one_of(&[1.0, 0.95, 0.95, 0.5, 0.999, 0.0]),
        min_p: one_of(&[0.0, 0.0, 0.0, 0.05, 0.5]),
        repetition_penalty: one_of(&[1.0, 1.0, 1.1, 0.7]),
        seed: one_of(&[0.0, 1.0, 5e8]) as u32,
        counter: 0,
    }
}

#[test]
fn the_same_tokens_are_drawn_on_every_backend() {
    let rng = &mut Rng::new(11);
    let mut drawn = 0;
    for vocab in VOCABS {
        let backends = [("scalar".to_string(), common::scalar())].into_iter().chain(common::backends());
        let mut samplers: Vec<_> = backends.map(|(name, backend)| (name, Sampler::new(&backend, vocab))).collect();
        for round in 0..ROUNDS {
            let all: Vec<f32> = (0..ROWS).flat_map(|row| logits(row + round as usize, vocab, rng)).collect();
            let bias: Vec<f32> =
                (0..ROWS * vocab).map(|_| if rng.below(9) == 0 { rng.normal() } else { 0.0 }).collect();
            let seen: Vec<u32> = (0..ROWS * vocab).map(|_| u32::from(rng.below(5) == 0)).collect();
            for (_, s) in &mut samplers {
                s.program.write(s.logits, &all);
                s.program.write(s.state.bias, &bias);
                s.program.write(s.state.seen, &seen);
            }
            let settings: Vec<SampleRow> = (0..ROWS).map(|slot| setting(slot, rng)).collect();
            for counter in 0..DRAWS {
                let rows: Vec<SampleRow> = settings.iter().map(|row| SampleRow { counter, ..*row }).collect();
                let mut tokens = samplers.iter_mut().map(|(name, s)| (name.clone(), s.draw(&rows)));
                let (_, want) = tokens.next().unwrap();
                for (name, have) in tokens {
                    assert_eq!(have, want, "{name}, vocabulary {vocab}, round {round}: {rows:?}");
                }
                drawn += ROWS;
            }
            let mut seen = samplers.iter_mut().map(|(_, s)| s.program.read::<u32>(s.state.seen).unwrap());
            let want = seen.next().unwrap();
            assert!(seen.all(|have| have == want), "what was seen, vocabulary {vocab}, round {round}");
        }
    }
    assert!(drawn >= 1200, "{drawn} tokens");
}
