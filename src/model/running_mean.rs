//! A mixer for tests: a token sees the mean of the tokens up to itself. It shows what a new mixer needs: this file, an arm
//! in `layer` and `state`, and its name and options in `config`.

use super::ExtraLoss;
use super::layer::Pass;
use super::linear::{Linear, LinearInput};
use super::state::{Context, LayerState};
use super::weight::Builder;
use crate::graph::{Access, Backward, Binding, DType, Grad, Graph, Node, Op, TensorId};
use crate::ops::MATMUL;
use cpu_kernels::ops::matmul::MatmulArgs;
use cpu_kernels::{Args, Call, Kernel};
use serde::{Deserialize, Serialize};

/// The section `[model.running_mean]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunningMeanOptions {
    /// Weight of the sum of squares of the means, as a further loss.
    pub penalty: f32,
}

pub(super) struct RunningMean {
    v: Linear,
    o: Linear,
    dim: usize,
    penalty: f32,
}

impl RunningMean {
    pub(super) fn new(make: &mut Builder<'_>, prefix: &str) -> Self {
        let dim = make.config.dim;
        RunningMean {
            v: Linear::new(make, &format!("{prefix}.v.weight"), dim, dim),
            o: Linear::new(make, &format!("{prefix}.o.weight"), dim, dim),
            dim,
            penalty: make.config.running_mean.as_ref().map_or(0.0, |options| options.penalty),
        }
    }

    /// The sum of each sequence so far.
    pub(super) fn state(&self, g: &mut Graph, name: &str, slots: usize) -> LayerState {
        LayerState::RunningMean(g.persistent(&format!("{name}.sum"), &[slots, self.dim], DType::F32))
    }

    pub(super) fn forward(&self, g: &mut Graph, mut x: LinearInput, pass: &mut Pass<'_>) -> TensorId {
        let v = self.v.forward(g, &mut x);
        let (rows, dim) = g.matrix(v);
        let (slots, sum, seq) = match pass.context {
            Context::Cached { slots, state } => {
                let LayerState::RunningMean(sum) = &state.layers[pass.state] else { unreachable!("its own state") };
                (slots, *sum, 0)
            }
            Context::Batch(batch) => (pass.positions, g.temp("sum", &[batch, dim], DType::F32), rows / batch),
        };
        let y = g.temp("mean", &[rows, dim], DType::F32);
        let args = RunningMeanArgs { rows: rows as u32, dim: dim as u32, seq: seq as u32 };
        g.push(&RUNNING_MEAN, args, &[v, pass.positions, slots, sum, y]);
        if self.penalty != 0.0 && seq > 0 {
            let value = g.temp("penalty", &[1], DType::F32);
            let args = MatmulArgs { m: 1, n: 1, k: (rows * dim) as u32, b_transposed: 1, ..MatmulArgs::default() };
            g.push(&MATMUL, args, &[y, y, value]);
            pass.losses.push(ExtraLoss { value, weight: self.penalty });
        }
        self.o.forward(g, &mut LinearInput::new(y, None, 0.0))
    }
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct RunningMeanArgs {
    rows: u32,
    dim: u32,
    /// Rows of a sequence in training; 0 where `slots` says which row belongs to which sequence.
    seq: u32,
}

impl Args for RunningMeanArgs {
    const FIELDS: &'static [(&'static str, &'static str)] = &[("rows", "u32"), ("dim", "u32"), ("seq", "u32")];
}

macro_rules! op {
    ($name:literal, $kernel:path, $grad:expr, [$($buf:ident: $access:ident $dtype:ident),*]) => {
        Op {
            name: $name,
            shader: "", // these tests run on the CPU
            kernel: {
                #[expect(unsafe_code, reason = "kernels share buffers")]
                // SAFETY: it reads and writes by slices, and only its part 0 writes.
                static KERNEL: Kernel = unsafe { Kernel::new($kernel) };
                &KERNEL
            },
            fields: RunningMeanArgs::FIELDS,
            bindings: &[$(Binding { name: stringify!($buf), access: Access::$access, dtype: DType::$dtype }),*],
            passes: &[],
            scratch: None,
            work: |_| 1,
            flops: |_| 0,
            grad: $grad,
        }
    };
}

static RUNNING_MEAN: Op = op!("running_mean", running_mean, Grad::Append(gradient),
    [x: Read F32, positions: Read U32, slots: Read U32, sum: ReadWrite F32, y: Write F32]);
static RUNNING_MEAN_BACKWARD: Op = op!("running_mean_backward", running_mean_backward, Grad::None,
    [dy: Read F32, positions: Read U32, dx: Write F32]);

/// # Safety
/// See [`Kernel`].
#[expect(unsafe_code, reason = "kernels share buffers")]
unsafe fn running_mean(call: &Call<'_>) {
    let RunningMeanArgs { rows, dim, seq } = call.args();
    let (dim, b) = (dim as usize, call.bufs);
    if call.part != 0 {
        return;
    }
    // SAFETY: the contract of `Kernel`; only part 0 writes all of `sum` and `y`.
    let (x, positions, slots, sum, y) = unsafe {
        let whole = |i: usize| b[i].write::<f32>(0..b[i].len::<f32>());
        (b[0].read::<f32>(), b[1].read::<u32>(), b[2].read::<u32>(), whole(3), whole(4))
    };
    for row in 0..rows as usize {
        let slot = if seq > 0 { row / seq as usize } else { slots[row] as usize };
        if slot == u32::MAX as usize {
            continue;
        }
        let sum = &mut sum[slot * dim..][..dim];
        for (i, sum) in sum.iter_mut().enumerate() {
            *sum = x[row * dim + i] + if positions[row] == 0 { 0.0 } else { *sum };
            y[row * dim + i] = *sum / (positions[row] + 1) as f32;
        }
    }
}

/// # Safety
/// See [`Kernel`].
#[expect(unsafe_code, reason = "kernels share buffers")]
unsafe fn running_mean_backward(call: &Call<'_>) {
    let RunningMeanArgs { rows, dim, .. } = call.args();
    let (rows, dim) = (rows as usize, dim as usize);
    if call.part != 0 {
        return;
    }
    // SAFETY: the contract of `Kernel`; only part 0 writes all of `dx`.
    let (dy, positions, dx) =
        unsafe { (call.bufs[0].read::<f32>(), call.bufs[1].read::<u32>(), call.bufs[2].write::<f32>(0..rows * dim)) };
    for row in (0..rows).rev() {
        let last = row + 1 == rows || positions[row + 1] == 0;
        for i in 0..dim {
            let later = if last { 0.0 } else { dx[(row + 1) * dim + i] };
            dx[row * dim + i] = later + dy[row * dim + i] / (positions[row] + 1) as f32;
        }
    }
}

fn gradient(b: &mut Backward<'_>, node: &Node) {
    let [x, positions, _, _, y] = node.tensors[..] else { unreachable!("five buffers") };
    let args: RunningMeanArgs = Args::from_words(&node.args);
    let (dy, dx) = (b.grad(y).expect("an output has a gradient"), b.fresh(x));
    b.push(&RUNNING_MEAN_BACKWARD, args, &[dy, positions, dx]);
    b.pass(x, dx);
}

#[cfg(feature = "native")]
mod tests {
    use super::super::{MixerKind, ModelConfig, Quantize};
    use super::RunningMeanOptions;
    use crate::backend::{Backend, Cpu, Level};
    use crate::data::Corpus;
    use crate::formats::{Format, ModelFile, gguf};
    use crate::infer::{Engine, EngineOptions, Sampling};
    use crate::ops::IGNORE;
    use crate::tokenizer::Tokenizer;
    use crate::train::{Batch, Config, OptimConfig, Session, StepShape, TrainStep, Trainer};

    fn scalar() -> Backend {
        Backend::Cpu(Cpu::new(Level::Scalar, Some(1)).unwrap())
    }

    /// Means and attention in turn, or means alone.
    fn config(mixers: &[MixerKind]) -> ModelConfig {
        ModelConfig { layers: 2, seq_len: 32, mhc_streams: 1, mixers: mixers.to_vec(), ..ModelConfig::self_test() }
    }

    /// A model that learned two sentences, by way of a file.
    fn trained(model: ModelConfig) -> ModelFile {
        let mut config = Config { model, ..Config::default() };
        config.train.batch_size = 4;
        config.train.total_steps = 60;
        let text = "all work and no play makes jack a dull boy. ".repeat(40);
        let corpus = Corpus::from_text("test", &text, &text, Tokenizer::bytes()).unwrap();
        let mut session = Session::new(config, corpus, &scalar()).unwrap();
        let before = pollster::block_on(session.validate()).unwrap();
        (0..60).for_each(|_| session.submit().unwrap());
        let after = pollster::block_on(session.validate()).unwrap();
        assert!(after < 0.7 * before, "the loss went from {before} to {after}");
        let file = pollster::block_on(session.model_file()).unwrap();
        let bytes = gguf::Layout::new(&file, Format::Q1_58).unwrap().to_vec();
        let read = ModelFile::from_gguf(&bytes).unwrap();
        assert_eq!(read, file);
        read
    }

    #[test]
    fn it_trains_exports_and_decodes_in_chunks_as_in_one_piece() {
        use MixerKind::{Attention, RunningMean};
        for mixers in [&[RunningMean][..], &[RunningMean, Attention]] {
            let file = trained(config(mixers));
            let part = |i: usize| if mixers[i % mixers.len()] == Attention { "attn.q" } else { "mean.o" };
            assert!((0..2).all(|i| file.tensor(&format!("layers.{i}.{}.weight", part(i))).is_some()));
            let backend = scalar();
            let engine = || Engine::new(&file, &backend, EngineOptions { slots: 2, context: 0 }).unwrap();
            let prompt: Vec<u32> = b"all work and no play makes".iter().map(|b| u32::from(*b)).collect();
            let logits = |chunk| pollster::block_on(engine().prompt_logits(&prompt, chunk)).unwrap().pop().unwrap();
            let whole = logits(prompt.len());
            for chunk in [1, 3, 16] {
                assert_eq!(logits(chunk), whole, "chunks of {chunk}");
            }
            // Slots that other sequences had before, and neighbours, change nothing.
            let sampling = Sampling { temperature: 0.0, max_tokens: 5, ..Sampling::default() };
            let mut engine = engine();
            let (alone, _) = engine.generate(&prompt, sampling.clone()).unwrap();
            let prompts = [prompt.clone(), prompt[..7].to_vec(), prompt.clone(), prompt[3..].to_vec(), prompt.clone()];
            let all = engine.generate_all(&prompts, &sampling).unwrap();
            assert!([0, 2, 4].iter().all(|i| all[*i].0 == alone), "{all:?}");
        }
    }

    /// Losses and gradients of a document do not depend on the documents around it, and its losses are those it has alone.
    #[test]
    fn documents_do_not_see_each_other() {
        let shape = StepShape { batch: 1, seq: 32, ..StepShape::default() };
        let step = TrainStep::build(&config(&[MixerKind::RunningMean]), 64, shape, &OptimConfig::default());
        let mut trainer = Trainer::new(step, &scalar()).unwrap();
        trainer.init(1);
        let mut results = |around: u32, first: usize| {
            let document = (0..10).map(|i| i * i % 50);
            let ids = |n: usize| std::iter::repeat_n(around, n - 1).chain([63]);
            let before = if first > 0 { ids(first).collect() } else { Vec::new() };
            let inputs: Vec<u32> = before.into_iter().chain(document).chain([63]).chain(ids(21 - first)).collect();
            let counted = |row: usize| if (first..first + 11).contains(&row) { 5 } else { IGNORE };
            let batch = Batch::new(inputs, (0..32).map(counted).collect(), 32).separate(63);
            trainer.submit(0, 0.0, [batch]).unwrap();
            let losses = trainer.program.read::<f32>(trainer.step.targets.losses).unwrap();
            let graph = &trainer.step.plan.graph;
            let list: Vec<_> = trainer.step.model.params().map(|(_, param)| graph.gradient(param).unwrap()).collect();
            let gradients: Vec<Vec<f32>> = list.into_iter().map(|id| trainer.program.read(id).unwrap()).collect();
            (losses[first..first + 11].to_vec(), gradients)
        };
        assert!(results(1, 8) == results(2, 8));
        assert_eq!(results(1, 8).0, results(1, 0).0);
    }

    /// The gradients of one step.
    fn gradients(penalty: f32, accum: usize) -> Vec<f32> {
        let options = (penalty != 0.0).then_some(RunningMeanOptions { penalty });
        let model =
            ModelConfig { quantize: Quantize::None, running_mean: options, ..config(&[MixerKind::RunningMean]) };
        let shape = StepShape { batch: 2, seq: 32, accum, recompute: accum > 1, ..StepShape::default() };
        let mut trainer =
            Trainer::new(TrainStep::build(&model, 64, shape, &OptimConfig::default()), &scalar()).unwrap();
        trainer.init(1);
        let ids = |k: u32| (0..64).map(|i| (i * i + k) % 64).collect();
        let batch = Batch::new(ids(0), ids(5), shape.seq);
        trainer.submit(0, 0.0, std::iter::repeat_n(batch, accum)).unwrap();
        let graph = &trainer.step.plan.graph;
        let list: Vec<_> = trainer.step.model.params().map(|(_, param)| graph.gradient(param).unwrap()).collect();
        list.into_iter().flat_map(|id| trainer.program.read::<f32>(id).unwrap()).collect()
    }

    #[test]
    fn a_further_loss_counts_by_its_weight() {
        let [none, once, twice] = [0.0, 1e-4, 2e-4].map(|penalty| gradients(penalty, 1));
        let norm = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        let minus = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<f32>>();
        let (one, two) = (minus(&once, &none), minus(&twice, &none));
        assert!(norm(&one) > 1e-3 * norm(&none), "{} of {}", norm(&one), norm(&none));
        let off = norm(&minus(&two, &one.iter().map(|v| 2.0 * v).collect::<Vec<_>>())) / norm(&two);
        assert!(off < 1e-3, "twice the weight is {off} away from twice the gradient");
        let halves = gradients(1e-4, 2);
        let off = norm(&minus(&halves, &once)) / norm(&once);
        assert!(off < 1e-5, "two equal micro-batches are {off} away from one");
    }

    #[cfg(feature = "serve")]
    #[test]
    fn it_is_served() {
        use std::io::{Read, Write};
        let file = trained(config(&[MixerKind::RunningMean]));
        let listener = crate::serve::listen("127.0.0.1", 0).unwrap();
        let server =
            crate::serve::Server::new(listener, &file, "mean", &scalar(), Default::default(), Default::default())
                .unwrap();
        let address = server.address().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = std::thread::spawn(move || server.run(async { drop(stopped.await) }));
        let body = r#"{"messages":[{"role":"user","content":"all"}],"max_tokens":3}"#;
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = format!("content-type: application/json\r\ncontent-length: {}\r\nconnection: close", body.len());
        write!(stream, "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{head}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"completion_tokens\":"), "{answer}");
        stop.send(()).unwrap();
        running.join().unwrap().unwrap();
    }
}
