//! One training step as a graph: what is submitted, and the tensors that the host writes and reads.
//!
//! Sections: `begin` zeroes gradients and quantises the weights, `micro` runs one micro-batch forward and backward (as
//! often as gradients are accumulated), `update` clips and applies the optimizers, `eval` measures the loss of one batch.

use super::config::{Aux, OptimConfig};
use crate::graph::{DType, Graph, Plan, TensorId};
use crate::model::{Context, Inputs, Model, ModelConfig, Role};
use crate::ops::{self, AdamW, Head, Lion, Muon, StepControl, Targets};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Sizes of a step.
#[derive(Clone, Copy, Debug)]
pub struct StepShape {
    /// Sequences in a micro-batch.
    pub batch: usize,
    /// Tokens in a sequence.
    pub seq: usize,
    /// Micro-batches in a step.
    pub accum: usize,
    /// Layers are computed again for the backward pass.
    pub recompute: bool,
}

impl StepShape {
    /// Tokens in a micro-batch.
    pub fn rows(&self) -> usize {
        self.batch * self.seq
    }

    /// Tokens in a step.
    pub fn tokens(&self) -> usize {
        self.rows() * self.accum
    }
}

/// A model with everything that training it needs.
pub struct TrainStep {
    pub plan: Arc<Plan>,
    pub model: Model,
    pub shape: StepShape,
    /// (rows): input ids of a micro-batch.
    pub ids: TensorId,
    /// (rows): rows sorted by id, ties in order.
    pub order: TensorId,
    /// (rows): the ids to predict.
    pub targets: Targets,
    /// (rows): position of each row in its sequence.
    pub positions: TensorId,
    /// (1): mean loss of the step, in nats per token.
    pub loss: TensorId,
    pub control: StepControl,
    pub adamw_betas: [f32; 2],
    /// Optimizer state by name, each f32.
    pub state: Vec<(String, TensorId)>,
    /// Multiply-adds of a step's matrix products, counted as two each, without the optimizer's.
    pub model_flops: u64,
}

impl TrainStep {
    /// Builds the step of a checked config.
    pub fn build(config: &ModelConfig, vocab: usize, shape: StepShape, optim: &OptimConfig) -> TrainStep {
        let mut graph = Graph::new();
        let g = &mut graph;
        let model = Model::new(g, config, vocab);
        let grads: Vec<TensorId> = model.params.iter().map(|p| g.add_gradient(p.id)).collect();
        let rows = [shape.rows()];
        let ids = g.persistent("ids", &rows, DType::U32);
        let order = g.persistent("order", &rows, DType::U32);
        let positions = g.persistent("positions", &rows, DType::U32);
        let targets = Targets {
            ids: g.persistent("targets", &rows, DType::U32),
            losses: g.persistent("losses", &rows, DType::F32),
        };
        let loss = g.persistent("loss", &[1], DType::F32);
        let control = g.step_control();
        let inputs = Inputs { ids, positions, context: Context::Batch(shape.batch) };

        g.section("begin", |g| {
            grads.iter().for_each(|grad| g.fill(*grad, 0.0));
            g.fill(loss, 0.0);
            model.quantize(g);
        });
        let scale = 1.0 / shape.tokens() as f32;
        g.section("micro", |g| {
            let start = g.nodes.len();
            let embedded = model.embed(g, &inputs);
            let head = model.forward(g, &inputs, embedded, shape.recompute);
            let nodes = start..g.nodes.len();
            let dx =
                g.head_loss(&head, targets, model.head_chunk(shape.rows()), scale).expect("a gradient was asked for");
            g.sum(targets.losses, scale, 1.0, loss);
            let backward = ops::backward(g, nodes, &[(head.input(), dx)]);
            let dembedded = backward.grad(embedded).expect("the loss depends on the embedding");
            let dtable = model.embedding_table().and_then(|t| g.gradient(t)).expect("every parameter has a gradient");
            g.embedding_backward(ids, order, dembedded, dtable);
        });
        let state = g.section("update", |g| {
            g.clip(&grads, loss, control, optim.clip, optim.outlier_factor);
            update(g, &model, control, optim)
        });
        g.section("eval", |g| {
            let embedded = model.embed(g, &inputs);
            let head: Head = model.forward(g, &inputs, embedded, false);
            g.head_loss(&head, targets, model.head_chunk(shape.rows()), 0.0);
        });
        let model_flops = graph.flops(graph.nodes_of("micro")) * shape.accum as u64;
        let plan = Arc::new(Plan::new(graph));
        let adamw_betas = AdamW::default().betas();
        TrainStep { plan, model, shape, ids, order, targets, positions, loss, control, adamw_betas, state, model_flops }
    }

    /// Positions of the rows of a micro-batch.
    pub fn position_values(&self) -> Vec<u32> {
        (0..self.shape.rows()).map(|r| (r % self.shape.seq) as u32).collect()
    }
}

/// Rows sorted by id, ties in order: what the embedding's gradient needs to add up each id's rows without atomics.
pub fn sorted_rows(ids: &[u32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|r| ids[*r as usize]);
    order
}

/// Appends every parameter's update; returns the optimizer state it keeps.
fn update(g: &mut Graph, model: &Model, control: StepControl, optim: &OptimConfig) -> Vec<(String, TensorId)> {
    let mut state = vec![("ctl".to_string(), control.ctl)];
    let mut keep = |g: &mut Graph, name: String, like: TensorId| {
        let shape = g.shape(like).to_vec();
        let t = g.persistent(&name, &shape, DType::F32);
        state.push((name, t));
        t
    };
    let muon = Muon {
        lr: optim.muon_lr,
        momentum: optim.muon_momentum,
        steps: optim.muon_steps,
        weight_decay: optim.weight_decay,
    };
    let lr = optim.aux_lr;
    let mut batches: BTreeMap<[usize; 2], Vec<[TensorId; 3]>> = BTreeMap::new();
    for p in &model.params {
        let grad = g.gradient(p.id).expect("every parameter has a gradient");
        let m = keep(g, format!("{}.m", p.name), p.id);
        match (p.role, optim.aux) {
            (Role::Matrix, _) => batches.entry(g.sides(p.id)).or_default().push([grad, p.id, m]),
            (Role::Other, Aux::AdamW) => {
                let v = keep(g, format!("{}.v", p.name), p.id);
                g.adamw(&AdamW { lr, ..AdamW::default() }, control, [grad, p.id, m, v]);
            }
            (Role::Other, Aux::Lion) => g.lion(&Lion { lr, ..Lion::default() }, control, [grad, p.id, m]),
        }
    }
    for matrices in batches.values() {
        g.muon(&muon, control, matrices);
    }
    state
}
