//! What a model needs, from its declaration alone: parameters, bytes and operations. Graphs are built and planned, but nothing
//! that they hold is allocated.

use crate::backend::adapters;
use crate::formats::{Format, gguf::file_bytes};
use crate::graph::{Plan, TensorId};
use crate::infer::{EngineNeeds, EngineOptions};
use crate::model::{Embeddings, ModelConfig, Weight};
use crate::ops::StateForm;
use crate::train::{Config, OptimConfig, StepShape, TrainStep};
use crate::{Result, memory};
use std::collections::BTreeSet;

/// What a configuration needs.
#[derive(Clone, Debug)]
pub struct Needs {
    /// Values of all weights.
    pub params: usize,
    /// Those of them that a token uses.
    pub active: usize,
    /// Of training, for each form of optimizer state, first without recomputation, then with it.
    pub training: Vec<TrainingNeeds>,
    /// Operations of the matrix products of training for a token, two for each multiply-add, without those of the optimizers.
    pub training_flops: u64,
    /// The GGUF file without a tokenizer, for each encoding of ternary weights and of tables: its bytes, or what does not fit.
    pub files: Vec<FileNeeds>,
    /// Of decoding.
    pub decoding: EngineNeeds,
}

/// What training asks of a device, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct TrainingNeeds {
    /// How optimizers hold their state.
    pub state: StateForm,
    /// Whether the backward pass computes layers again.
    pub recompute: bool,
    /// Parameters, and what is rounded from them.
    pub weights: u64,
    /// Gradients of parameters.
    pub gradients: u64,
    /// State of the optimizers.
    pub optimizer: u64,
    /// Intermediate results, of which activations are most.
    pub activations: u64,
    /// Everything else: inputs, targets, tables.
    pub other: u64,
    /// The largest buffer.
    pub buffer: u64,
    /// The largest binding of an op.
    pub binding: u64,
}

/// The size of a file.
#[derive(Clone, Debug)]
pub struct FileNeeds {
    /// Encoding of ternary weights.
    pub format: Format,
    /// Whether tables are rounded to 8 bits.
    pub q8_0: bool,
    /// Its bytes, or what does not fit.
    pub bytes: Result<u64, String>,
}

impl Needs {
    /// What a checked configuration with `vocab` tokens needs for training, and for decoding with these options.
    ///
    /// # Errors
    /// [`Error::Usage`](crate::Error::Usage) when the options of decoding are out of range.
    pub fn new(config: &Config, vocab: usize, options: EngineOptions) -> Result<Needs> {
        let weights = config.model.weights(vocab);
        let (mut training, mut training_flops) = (Vec::new(), 0);
        for recompute in [false, true] {
            for state in [StateForm::F32, StateForm::Bf16, StateForm::Int8] {
                let step = TrainStep::build(
                    &config.model,
                    vocab,
                    StepShape { recompute, ..StepShape::of(config) },
                    &OptimConfig { state, ..config.optim.clone() },
                );
                training.push(TrainingNeeds::new(&step, state));
                // Recomputed layers are no work of the model.
                if !recompute {
                    training_flops = step.model_flops / step.shape.tokens() as u64;
                }
            }
        }
        let mut files = Vec::new();
        for q8_0 in [false, true] {
            let embeddings = if q8_0 { Embeddings::Q8_0 } else { config.model.embeddings };
            let model = ModelConfig { embeddings, ..config.model.clone() };
            // A scale for a whole matrix is not trained.
            files.extend(Format::ALL.into_iter().filter(|f| *f != Format::I2S).map(|format| {
                let bytes = model.check().and_then(|()| file_bytes(&model, vocab, format));
                FileNeeds { format, q8_0, bytes: bytes.map_err(|e| e.to_string()) }
            }));
        }
        Ok(Needs {
            params: weights.iter().map(Weight::elements).sum(),
            active: weights.iter().map(|weight| weight.active(&config.model)).sum(),
            training,
            training_flops,
            files,
            decoding: EngineNeeds::new(&config.model, vocab, options)?,
        })
    }
}

impl TrainingNeeds {
    fn new(step: &TrainStep, state: StateForm) -> TrainingNeeds {
        let Plan { graph, slots, .. } = &*step.plan;
        let bytes = |tensors: &mut dyn Iterator<Item = TensorId>| {
            let bases: BTreeSet<TensorId> = tensors.map(|t| graph.base(t)).collect();
            bases.into_iter().map(|t| graph.tensor(t).bytes() as u64).sum::<u64>()
        };
        let latents = || step.model.stacks.iter().map(|stack| stack.latent);
        let values = step.model.weights.iter().flat_map(|weight| weight.value.tensors());
        let weights = bytes(&mut latents().chain(values));
        let gradients = bytes(&mut latents().filter_map(|t| graph.gradient(t)));
        let optimizer = bytes(&mut step.state.iter().map(|(_, t)| *t));
        let activations = (step.plan.temp_bytes() + step.plan.scratch()) as u64;
        let all = (step.plan.bytes() + step.plan.scratch()) as u64;
        let bound = graph.nodes.iter().flat_map(|node| &node.tensors).map(|t| step.plan.bound(*t));
        TrainingNeeds {
            state,
            recompute: step.shape.recompute,
            weights,
            gradients,
            optimizer,
            activations,
            other: all - weights - gradients - optimizer - activations,
            buffer: slots.iter().map(|slot| slot.bytes).max().unwrap_or(0) as u64,
            binding: bound.max().unwrap_or(0) as u64,
        }
    }

    /// All of it.
    pub fn bytes(&self) -> u64 {
        self.weights + self.gradients + self.optimizer + self.activations + self.other
    }
}

/// What a device of this machine has room for.
#[derive(Clone, Debug)]
pub struct Room {
    /// What `nanotern devices` calls it.
    pub device: String,
    /// Bytes that are free, if the system says so. No interface of a GPU tells wgpu.
    pub free: Option<u64>,
    /// Bytes of the largest buffer.
    pub buffer: u64,
    /// Bytes of the largest binding of an op.
    pub binding: u64,
}

impl Room {
    /// Of every device of this machine.
    pub fn all() -> Vec<Room> {
        let free = Some(memory::free());
        let cpu = Room { device: "cpu".to_string(), free, buffer: u64::MAX, binding: u64::MAX };
        let gpu = adapters().into_iter().map(|adapter| Room {
            free: free.filter(|_| adapter.shares_memory()),
            buffer: adapter.max_buffer,
            binding: adapter.max_binding,
            device: format!("wgpu {}", adapter.name),
        });
        #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "CUDA is not built in"))]
        let mut rooms: Vec<Room> = [cpu].into_iter().chain(gpu).collect();
        #[cfg(feature = "cuda")]
        rooms.extend(crate::backend::cuda::devices().into_iter().flatten().map(|device| Room {
            free: Some(device.memory as u64),
            buffer: u64::MAX,
            binding: u64::MAX,
            device: format!("cuda {}", device.name),
        }));
        rooms
    }

    /// Whether so many bytes fit, with buffers and bindings of at most these sizes. None if that depends on memory of which the
    /// size is not known.
    pub fn fits(&self, bytes: u64, buffer: u64, binding: u64) -> Option<bool> {
        if buffer > self.buffer || binding > self.binding {
            return Some(false);
        }
        self.free.map(|free| bytes <= free)
    }
}
