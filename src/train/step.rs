//! One training step as a graph: its sections, and the tensors that the host writes and reads.

use super::config::{Aux, Config, OptimConfig, TrainConfig};
use crate::graph::{DType, Graph, Plan, Precision, Section, TensorId};
use crate::model::{Context, ExtraLoss, Forward, Inputs, Model, ModelConfig, Role, Stack, Weight};
use crate::ops::{self, AdamW, Head, Lion, Moment, Muon, MuonMatrix, Objective, StepControl, Targets};
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
    /// Whether the backward pass computes layers again.
    pub recompute: bool,
    /// How exactly its products are computed.
    pub precision: Precision,
    /// How much the losses of all further heads count together, beside that of the head.
    pub mtp_weight: f32,
    /// How much the entropy of what the head predicts counts.
    pub entropy_weight: f32,
    /// The share of a sequence's tokens, those with the smallest losses, that the head does not learn.
    pub token_filter: f32,
}

impl Default for StepShape {
    /// One token.
    fn default() -> Self {
        let TrainConfig { mtp_weight, entropy_weight, token_filter, .. } = TrainConfig::default();
        let (precision, recompute) = (Precision::Exact, false);
        StepShape { batch: 1, seq: 1, accum: 1, recompute, precision, mtp_weight, entropy_weight, token_filter }
    }
}

impl StepShape {
    /// That of a configuration.
    pub fn of(config: &Config) -> StepShape {
        let train = &config.train;
        StepShape {
            batch: train.batch_size,
            seq: config.seq_len(),
            accum: train.grad_accum,
            recompute: train.recompute,
            precision: train.precision,
            mtp_weight: train.mtp_weight,
            entropy_weight: train.entropy_weight,
            token_filter: train.token_filter,
        }
    }

    /// Tokens in a micro-batch.
    pub fn rows(&self) -> usize {
        self.batch * self.seq
    }

    /// Tokens of a sequence that the head learns, at least one.
    pub fn learnt(&self) -> usize {
        let filtered = (self.seq as f64 * f64::from(self.token_filter)) as usize;
        self.seq - filtered.min(self.seq - 1)
    }

    /// Tokens in a step.
    pub fn tokens(&self) -> usize {
        self.rows() * self.accum
    }
}

/// What a step submits, in this order; `eval` by itself.
#[derive(Clone, Copy, Debug)]
pub struct StepSections {
    /// Sets gradients and loss to zero and rounds the weights.
    pub begin: Section,
    /// Runs one micro-batch forward and backward, as often as gradients are accumulated.
    pub micro: Section,
    /// Clips the gradients and applies the optimizers.
    pub update: Section,
    /// Measures the loss of one micro-batch.
    pub eval: Section,
}

/// What a further head reads of a micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Ahead {
    /// (rows): the tokens further on; [`IGNORE`](ops::IGNORE) where there is none.
    pub ids: TensorId,
    /// (rows): the rows sorted by them, equal ones in order.
    pub order: TensorId,
    /// (rows): the ids to predict.
    pub targets: Targets,
}

/// A model with everything that training it needs.
pub struct TrainStep {
    /// The graph and its memory.
    pub plan: Arc<Plan>,
    /// What is submitted.
    pub sections: StepSections,
    /// The model's tensors.
    pub model: Model,
    /// Sizes.
    pub shape: StepShape,
    /// (rows): input ids of a micro-batch.
    pub ids: TensorId,
    /// (rows): the rows sorted by id, equal ids in order.
    pub order: TensorId,
    /// (rows): the ids to predict.
    pub targets: Targets,
    /// What each further head reads besides.
    pub ahead: Vec<Ahead>,
    /// (rows): position of each row in its sequence, or in its document.
    pub positions: TensorId,
    /// (1): mean loss of the step, in nats per token.
    pub loss: TensorId,
    /// What the optimizer ops read.
    pub control: StepControl,
    /// beta1 and beta2 of AdamW, for its bias corrections.
    pub adamw_betas: [f32; 2],
    /// The assignments of each expert in the last step, `experts` for each layer with experts, at equal distances.
    pub expert_loads: Option<TensorId>,
    /// Optimizer state by name.
    pub state: Vec<(String, TensorId)>,
    /// Operations of a step's matrix products, two for each multiply-add, without those of the optimizers.
    pub model_flops: u64,
}

impl TrainStep {
    /// Builds the step of a checked config.
    pub fn build(config: &ModelConfig, vocab: usize, shape: StepShape, optim: &OptimConfig) -> TrainStep {
        let mut graph = Graph::new();
        graph.precision = shape.precision;
        let g = &mut graph;
        let model = Model::new(g, config, vocab);
        let grads: Vec<TensorId> = learned(&model).map(|stack| g.add_gradient(stack.latent)).collect();
        let experts = Experts::new(g, &model);
        let rows = [shape.rows()];
        let ids = g.persistent("ids", &rows, DType::U32);
        let order = g.persistent("order", &rows, DType::U32);
        let positions = g.persistent("positions", &rows, DType::U32);
        let targets = |g: &mut Graph| Targets {
            ids: g.persistent("targets", &rows, DType::U32),
            losses: g.persistent("losses", &rows, DType::F32),
        };
        let ahead = (0..config.mtp).map(|k| {
            let before = g.set_prefix(&format!("mtp.{k}."));
            let [ids, order] = ["ids", "order"].map(|name| g.persistent(name, &rows, DType::U32));
            let ahead = Ahead { ids, order, targets: targets(g) };
            g.set_prefix(&before);
            ahead
        });
        let ahead: Vec<Ahead> = ahead.collect();
        let targets = targets(g);
        let loss = g.persistent("loss", &[1], DType::F32);
        let control = g.step_control();
        let inputs = Inputs { ids, positions, context: Context::Batch(shape.batch) };

        let (begin, ()) = g.section("begin", |g| {
            grads.iter().for_each(|grad| g.fill(*grad, 0.0));
            experts.iter().for_each(|experts| g.fill(experts.load, 0.0));
            g.fill(loss, 0.0);
            model.quantize(g);
        });
        let (scale, chunk) = (1.0 / shape.tokens() as f32, model.head_chunk(shape.rows()));
        let mtp_scale = scale * shape.mtp_weight / ahead.len().max(1) as f32;
        let (micro, ()) = g.section("micro", |g| {
            let start = g.nodes.len();
            let embedded = model.embed(g, &inputs);
            let Forward { head, extras, state } = model.forward(g, &inputs, embedded, shape.recompute);
            let further = further_heads(g, &model, &inputs, &ahead, state, shape.recompute);
            let nodes = start..g.nodes.len();
            for of in &extras.loads {
                let load = experts.as_ref().and_then(|experts| g.alike(of.bias, experts.load));
                g.tally(of.starts, load.expect("a load has the views of the biases"));
            }
            let dx = main_loss(g, &head, targets, &shape, chunk);
            g.sum(targets.losses, scale, 1.0, loss);
            let mut seeds = vec![(head.input(), dx)];
            for ((head, _), ahead) in further.iter().zip(&ahead) {
                let objective = Objective { scale: mtp_scale, entropy: 0.0 };
                let dx = g.head_loss(head, ahead.targets, chunk, Some(objective)).expect("a gradient was asked for");
                seeds.push((head.input(), dx));
            }
            for ExtraLoss { value, weight } in extras.losses {
                let seed = g.temp("d.loss", &[1], DType::F32);
                g.fill(seed, weight / shape.accum as f32);
                seeds.push((value, seed));
            }
            let backward = ops::backward(g, nodes, &seeds);
            let dembedded = backward.grad(embedded).expect("the loss depends on the embedding");
            let further: Vec<_> = further.iter().map(|(_, token)| backward.grad(*token)).collect();
            let dtable = model.embedding_table().and_then(|t| g.gradient(t)).expect("every parameter has a gradient");
            g.embedding_backward(ids, order, dembedded, dtable);
            for (dtoken, Ahead { ids, order, .. }) in further.into_iter().zip(&ahead) {
                g.embedding_backward(*ids, *order, dtoken.expect("its loss depends on it"), dtable);
            }
        });
        let (update, state) = g.section("update", |g| {
            let moments: Vec<_> = learned(&model).map(|stack| (*stack, Moments::new(g, stack, optim))).collect();
            let (state, mut checked) = optimizer_state(g, &model, control, &moments);
            checked.extend(experts.as_ref().map(|experts| experts.bias));
            let grads = learned_params(&model).map(|(weight, param)| (weight.kind(), gradient(g, param)));
            let grads: Vec<_> = grads.collect();
            g.clip(&grads, &checked, loss, control, [optim.clip, optim.outlier_factor]);
            append_updates(g, &model, control, optim, &moments);
            experts.iter().for_each(|experts| experts.balance(g, config, control));
            state
        });
        let (eval, ()) = g.section("eval", |g| {
            let embedded = model.embed(g, &inputs);
            let Forward { head, state, .. } = model.forward(g, &inputs, embedded, false);
            g.head_loss(&head, targets, chunk, None);
            let further = further_heads(g, &model, &inputs, &ahead, state, false);
            for ((head, _), ahead) in further.iter().zip(&ahead) {
                g.head_loss(head, ahead.targets, chunk, None);
            }
        });
        let model_flops = graph.flops(micro.nodes()) * shape.accum as u64;
        let plan = Arc::new(Plan::new(graph));
        let adamw_betas = AdamW::default().betas();
        let sections = StepSections { begin, micro, update, eval };
        TrainStep {
            plan,
            sections,
            model,
            shape,
            ids,
            order,
            targets,
            ahead,
            positions,
            loss,
            control,
            adamw_betas,
            expert_loads: experts.map(|experts| experts.seen),
            state,
            model_flops,
        }
    }
}

/// Appends the losses of the head and the gradient of its objective. Returns that of its input (rows, dim).
///
/// With a filter only the hardest tokens of a sequence are learnt (Chai et al. 2025, "Enhancing Token Filtering Efficiency in Large
/// Language Model Training with Collider"). Which these are is known when all losses are, so the head runs once more.
fn main_loss(g: &mut Graph, head: &Head, targets: Targets, shape: &StepShape, chunk: usize) -> TensorId {
    let objective = |rows: usize| Some(Objective { scale: 1.0 / rows as f32, entropy: shape.entropy_weight });
    let learnt = shape.learnt();
    let dx = if learnt == shape.seq {
        g.head_loss(head, targets, chunk, objective(shape.tokens()))
    } else {
        g.head_loss(head, targets, chunk, None);
        let ids = g.hardest(targets, shape.seq, learnt);
        let losses = g.temp("kept.losses", &[shape.rows()], DType::F32);
        g.head_loss(head, Targets { ids, losses }, chunk, objective(shape.batch * learnt * shape.accum))
    };
    dx.expect("a gradient was asked for")
}

/// Appends the further heads, from the state (rows, dim) behind the last layer. Returns each, with the embedding (rows, dim)
/// that it reads.
fn further_heads(
    g: &mut Graph,
    model: &Model,
    inputs: &Inputs<'_>,
    ahead: &[Ahead],
    mut state: TensorId,
    recompute: bool,
) -> Vec<(Head, TensorId)> {
    let heads = ahead.iter().enumerate().map(|(k, ahead)| {
        let token = model.embed(g, &Inputs { ids: ahead.ids, ..*inputs });
        state = model.further(g, k, inputs, [state, token], recompute);
        let hidden = model.further_hidden(g, k, state);
        (model.head(g, hidden), token)
    });
    heads.collect()
}

/// The rows sorted by id, equal ids in order. With this order the embedding's gradient adds up the rows of an id without
/// atomics.
pub fn sorted_rows(ids: &[u32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..ids.len() as u32).collect();
    order.sort_by_key(|r| ids[*r as usize]);
    order
}

/// The stacks that have gradients.
fn learned(model: &Model) -> impl Iterator<Item = &Stack> {
    model.stacks.iter().filter(|stack| stack.role != Role::Balance)
}

/// The parameters that have gradients.
fn learned_params(model: &Model) -> impl Iterator<Item = (&Weight, TensorId)> {
    model.params().filter(|(weight, _)| weight.role != Role::Balance)
}

/// The biases of all layers with experts, and their loads, each a tensor of one shape.
struct Experts {
    bias: TensorId,
    /// The assignments of this step.
    load: TensorId,
    /// Those of the last step, until the next one ends.
    seen: TensorId,
    layers: usize,
}

impl Experts {
    fn new(g: &mut Graph, model: &Model) -> Option<Self> {
        let bias = model.stacks.iter().find(|stack| stack.role == Role::Balance)?.latent;
        let mut like = |what: &str| g.like(bias, &[], DType::F32, |name| format!("{what}.{name}"));
        let layers = model.weights.iter().filter(|weight| weight.role == Role::Balance).count();
        Some(Experts { bias, load: like("load"), seen: like("seen"), layers })
    }

    /// Appends the update of the biases.
    fn balance(&self, g: &mut Graph, config: &ModelConfig, control: StepControl) {
        let moe = config.moe.clone().unwrap_or_default();
        let stride = g.tensor(self.bias).elements() / self.layers;
        let shape = [self.layers, moe.experts, stride];
        g.balance([self.load, self.bias, self.seen], control, shape, moe.bias_rate);
    }
}

fn gradient(g: &Graph, param: TensorId) -> TensorId {
    g.gradient(param).expect("every parameter has a gradient")
}

/// The optimizer's state of a stack of parameters.
#[derive(Clone, Copy)]
struct Moments {
    /// The momentum, or the first moment.
    m: Moment,
    /// AdamW's second moment.
    v: Option<Moment>,
}

impl Moments {
    fn new(g: &mut Graph, stack: &Stack, optim: &OptimConfig) -> Self {
        let m = g.first_moment(stack.latent, optim.state);
        let adamw = stack.role != Role::Matrix && optim.aux == Aux::AdamW;
        Moments { m, v: adamw.then(|| g.second_moment(stack.latent, optim.state)) }
    }

    /// The part of the state of all stacks that belongs to a parameter.
    fn of(g: &Graph, all: &[(Stack, Moments)], param: TensorId) -> Self {
        let stack = all.iter().find(|(stack, _)| stack.latent == g.base(param));
        let (_, Moments { m, v }) = *stack.expect("every parameter is in a stack");
        let part = |t: TensorId| g.alike(param, t).expect("a moment has the views of its parameters");
        let part = |m: Moment| Moment { values: part(m.values), scales: m.scales.map(part) };
        Moments { m: part(m), v: v.map(part) }
    }
}

/// The state of the optimizers by name, in the order of the parameters; and the tensors that a step checks before it updates
/// them: what is not a matrix of Muon, and its state, of which only scales and floats can be wrong. A matrix that is not finite
/// makes the loss so, and so does its momentum through it.
fn optimizer_state(
    g: &Graph,
    model: &Model,
    control: StepControl,
    moments: &[(Stack, Moments)],
) -> (Vec<(String, TensorId)>, Vec<TensorId>) {
    let mut state = vec![("ctl".to_string(), control.ctl)];
    for (weight, param) in learned_params(model) {
        let Moments { m, v } = Moments::of(g, moments, param);
        for (moment, Moment { values, scales }) in
            [("m", Some(m)), ("v", v)].into_iter().filter_map(|(n, m)| Some((n, m?)))
        {
            state.push((format!("{}.{moment}", weight.name), values));
            state.extend(scales.map(|scales| (format!("{}.{moment}.scales", weight.name), scales)));
        }
    }
    let checked = moments.iter().filter(|(stack, _)| stack.role != Role::Matrix);
    let float = |m: Moment| m.scales.unwrap_or(m.values);
    let checked = checked
        .flat_map(|(stack, Moments { m, v })| [stack.latent, float(*m)].into_iter().chain(v.map(float)))
        .collect();
    (state, checked)
}

/// Appends the update of every parameter.
fn append_updates(
    g: &mut Graph,
    model: &Model,
    control: StepControl,
    optim: &OptimConfig,
    moments: &[(Stack, Moments)],
) {
    let muon = Muon {
        lr: optim.muon_lr,
        momentum: optim.muon_momentum,
        steps: optim.muon_steps,
        weight_decay: optim.weight_decay,
    };
    let lr = optim.aux_lr;
    for (stack, Moments { m, v }) in moments {
        let (grad, param) = (gradient(g, stack.latent), stack.latent);
        match (stack.role, v) {
            (Role::Matrix, _) => {}
            (_, Some(v)) => g.adamw(&AdamW { lr, ..AdamW::default() }, control, [grad, param], [*m, *v]),
            (_, None) => g.lion(&Lion { lr, ..Lion::default() }, control, [grad, param], *m),
        }
    }
    // Those of one kind together, since they follow each other at equal distances.
    let mut kinds: BTreeMap<&str, Vec<MuonMatrix>> = BTreeMap::new();
    for (weight, param) in model.params().filter(|(weight, _)| weight.role == Role::Matrix) {
        let (Moments { m, .. }, grad) = (Moments::of(g, moments, param), gradient(g, param));
        let [.., rows, _] = weight.shape[..] else { unreachable!("a matrix has rows") };
        kinds.entry(weight.kind()).or_default().extend(g.muon_matrices_of([grad, param], m, rows));
    }
    let mut batches: BTreeMap<[usize; 2], Vec<MuonMatrix>> = BTreeMap::new();
    for matrix in kinds.into_values().flatten() {
        batches.entry(matrix.sides()).or_default().push(matrix);
    }
    batches.values().for_each(|matrices| g.muon(&muon, control, matrices));
}
