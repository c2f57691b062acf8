//! Linear layers, and the embedding and head, which are tables of the same forms.

use super::init::EMBEDDING_STD;
use super::weight::{Builder, Form, Role, Set, Value, Weight};
use super::{Init, Inputs};
use crate::graph::{Graph, MAX_BINDING, TensorId};
use crate::ops::{Head, QuantRows};

/// A linear layer. Its form does not depend on the forms of other layers.
pub(super) struct Linear {
    value: Value,
    bias: Option<TensorId>,
}

/// Linear layers of one input.
pub(super) struct Linears<const N: usize> {
    each: [Linear; N],
    all: Option<Linear>,
    bound_apart: bool,
    outs: usize,
}

/// The input of linear layers, (rows, inputs), which may be normalised first. It is quantised once for all layers that share it
/// and want int8.
pub(super) struct LinearInput {
    x: TensorId,
    /// The gain of the normalisation, and what is added to its mean square.
    norm: Option<(TensorId, f32)>,
    dense: Option<TensorId>,
    quantized: Option<QuantRows>,
}

impl LinearInput {
    /// x, normalised where there is a gain.
    pub(super) fn new(x: TensorId, gain: Option<TensorId>, eps: f32) -> Self {
        LinearInput { x, norm: gain.map(|w| (w, eps)), dense: None, quantized: None }
    }

    pub(super) fn rows(&self, g: &Graph) -> usize {
        g.matrix(self.x).0
    }

    pub(super) fn dense(&mut self, g: &mut Graph) -> TensorId {
        *self.dense.get_or_insert_with(|| self.norm.map_or(self.x, |(w, eps)| g.rms_norm(self.x, w, eps)))
    }

    fn quantized(&mut self, g: &mut Graph) -> QuantRows {
        *self.quantized.get_or_insert_with(|| match self.norm {
            Some((w, eps)) => g.rms_norm_quantize(self.x, w, eps),
            None => g.quantize_rows(self.x),
        })
    }
}

impl Linear {
    /// Declares a layer in the form that the configuration gives linear layers, with the bias that it gives this one.
    pub(super) fn new(make: &mut Builder<'_>, name: &str, outs: usize, inputs: usize) -> Self {
        let form = make.config.matrix_form(name, inputs);
        let layer = Self::in_form(make, name, (outs, inputs), (form, Role::Matrix));
        Linear { bias: make.bias(name, outs), ..layer }
    }

    /// Declares a layer (outs, inputs) in another form, without a bias.
    pub(super) fn in_form(
        make: &mut Builder<'_>,
        name: &str,
        (outs, inputs): (usize, usize),
        form: (Form, Role),
    ) -> Self {
        let Set { each: [value], .. } = make.set(name, [(name.to_string(), outs)], inputs, form);
        Linear { value, bias: None }
    }

    /// (rows, inputs) -> (rows, outs).
    pub(super) fn forward(&self, g: &mut Graph, x: &mut LinearInput) -> TensorId {
        let rows = 0..x.rows(g);
        let y = match &self.value {
            Value::Dense(w) => {
                let x = x.dense(g);
                g.linear(x, *w, rows)
            }
            Value::Int8(w) => {
                let x = x.quantized(g);
                g.int8_matmul(x, w, rows)
            }
            Value::Ternary(w) => {
                let x = x.quantized(g);
                g.ternary_matmul(x, w, rows)
            }
        };
        self.bias.into_iter().for_each(|bias| g.add_bias(y, bias));
        y
    }
}

/// A linear layer of each expert. Its input is sorted by expert.
pub(super) struct ExpertLinear(Value);

impl ExpertLinear {
    /// Declares the layers (experts, outs, inputs) in the form that the configuration gives linear layers.
    pub(super) fn new(make: &mut Builder<'_>, name: &str, shape: [usize; 3]) -> Self {
        ExpertLinear(make.experts(name, shape))
    }

    /// (rows, inputs) -> (rows, outs); those of expert e lie from `starts[e]` up to `starts[e + 1]`.
    pub(super) fn forward(&self, g: &mut Graph, x: &mut LinearInput, starts: TensorId) -> TensorId {
        match &self.0 {
            Value::Dense(w) => {
                let x = x.dense(g);
                g.grouped_linear(x, *w, starts)
            }
            Value::Ternary(w) => {
                let x = x.quantized(g);
                g.grouped_ternary(x, w, starts)
            }
            Value::Int8(_) => unreachable!("only tables are int8"),
        }
    }
}

impl<const N: usize> Linears<N> {
    /// Declares layers by their names and outputs. `name` is that of the set.
    pub(super) fn new(make: &mut Builder<'_>, name: &str, layers: [(String, usize); N], inputs: usize) -> Self {
        let outs = layers.iter().map(|(_, outs)| outs).sum();
        let forms = layers.each_ref().map(|(name, _)| make.config.matrix_form(name, inputs));
        let have_bias = layers.iter().any(|(name, _)| make.config.has_bias(name));
        if have_bias || forms.iter().any(|form| *form != forms[0]) {
            return Self::alone(make, layers, inputs);
        }
        let Set { each, all, bound_apart } = make.set(name, layers, inputs, (forms[0], Role::Matrix));
        let layer = |value| Linear { value, bias: None };
        Linears { each: each.map(layer), all: all.map(layer), bound_apart, outs }
    }

    /// Declares layers of which something is done to the outputs of each.
    pub(super) fn alone(make: &mut Builder<'_>, layers: [(String, usize); N], inputs: usize) -> Self {
        let outs = layers.iter().map(|(_, outs)| outs).sum();
        let each = layers.map(|(name, outs)| Linear::new(make, &name, outs, inputs));
        Linears { each, all: None, bound_apart: true, outs }
    }

    /// Whether the outputs of all layers for so many rows are to be one tensor: not where every device could bind those of each layer
    /// but not all.
    pub(super) fn are_together(&self, rows: usize) -> bool {
        self.all.is_some() && !(self.bound_apart && rows * self.outs * size_of::<f32>() > MAX_BINDING)
    }

    /// The outputs of each layer.
    pub(super) fn apart(&self, g: &mut Graph, x: &mut LinearInput) -> [TensorId; N] {
        std::array::from_fn(|i| self.each[i].forward(g, x))
    }

    /// (rows, all outputs): those of the last layer come first.
    pub(super) fn together(&self, g: &mut Graph, x: &mut LinearInput) -> TensorId {
        match &self.all {
            Some(all) => all.forward(g, x),
            None => {
                let mut parts = self.apart(g, x);
                parts.reverse();
                g.join_columns(&parts)
            }
        }
    }
}

/// A (vocabulary, width) table: the embedding or the head.
pub(super) struct Table(Weight);

impl Table {
    pub(super) fn new(make: &mut Builder<'_>, name: &str, vocab: usize, form: Form) -> Self {
        Table(make.weight(name, &[vocab, make.config.dim], form, Role::Table, Init::Normal(EMBEDDING_STD)))
    }

    /// ids (rows) -> (rows, width).
    pub(super) fn embed(&self, g: &mut Graph, inputs: &Inputs<'_>) -> TensorId {
        match &self.0.value {
            Value::Dense(table) => g.embedding(inputs.ids, *table),
            Value::Int8(table) => g.embedding_int8(inputs.ids, table),
            Value::Ternary(_) => unreachable!("no configuration has a ternary embedding"),
        }
    }

    /// This table as the head over hidden (rows, width).
    pub(super) fn head(&self, g: &mut Graph, hidden: TensorId) -> Head {
        let latent = self.0.latent;
        match self.0.value {
            Value::Dense(weight) => Head::Dense { x: hidden, weight, latent },
            Value::Int8(weight) => Head::Int8 { x: g.quantize_rows(hidden), input: hidden, weight },
            Value::Ternary(weight) => Head::Ternary { x: g.quantize_rows(hidden), input: hidden, weight, latent },
        }
    }

    /// The parameter, where the table is trained.
    pub(super) fn latent(&self) -> Option<TensorId> {
        self.0.latent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Backend, Cpu, Level};
    use crate::graph::{DType, Plan};
    use crate::model::weight::Purpose;
    use crate::model::{ModelConfig, Scales};
    use crate::ops;
    use crate::rng::Rng;
    use std::sync::Arc;

    const ROWS: usize = 3;
    const DIM: usize = 64;

    /// Outputs, and the gradients of the parameters and of the input for a loss of half the sum of squares, of layers of
    /// these forms side by side on one input.
    fn run(forms: &[Form], first: usize) -> (Vec<Vec<f32>>, Vec<Vec<f32>>, Vec<f32>) {
        let (mut g, config) = (Graph::new(), ModelConfig::default());
        let rope = g.persistent("rope", &[1], DType::F32);
        let x = g.persistent("x", &[ROWS, DIM], DType::F32);
        let mut make = Builder::new(&mut g, &config, Purpose::Training, rope, Default::default());
        let declare = |(i, form): (usize, &Form)| {
            let name = format!("w{}", first + i);
            let value = make.weight(&name, &[32, DIM], *form, Role::Matrix, Init::Normal(0.2)).value;
            Linear { value, bias: None }
        };
        let layers: Vec<Linear> = forms.iter().enumerate().map(declare).collect();
        let (weights, stacks) = (make.weights, make.stacks);
        let params: Vec<TensorId> = weights.iter().map(|w| w.latent.unwrap()).collect();
        let dx = g.add_gradient(x);
        let dw: Vec<TensorId> = params.iter().map(|p| g.add_gradient(*p)).collect();
        let keep = |g: &mut Graph, y: TensorId| {
            let kept = g.persistent("kept", &[ROWS, 32], DType::F32);
            g.round_f16(y, kept);
            kept
        };
        let (section, outputs) = g.section("all", |g| {
            stacks.iter().for_each(|stack| stack.round(g));
            let start = g.nodes.len();
            let mut input = LinearInput::new(x, None, 0.0);
            let y: Vec<TensorId> = layers.iter().map(|layer| layer.forward(g, &mut input)).collect();
            let nodes = start..g.nodes.len();
            let seeds: Vec<_> = y.iter().map(|y| (*y, *y)).collect();
            ops::backward(g, nodes, &seeds);
            y.into_iter().map(|y| keep(g, y)).collect::<Vec<_>>()
        });
        let backend = Backend::Cpu(Cpu::new(Level::Scalar, Some(1)).unwrap());
        let mut program = backend.prepare(Arc::new(Plan::new(g))).unwrap();
        let normal = |seed: usize, n: usize| {
            let mut rng = Rng::new(seed as u64);
            (0..n).map(|_| rng.normal()).collect::<Vec<f32>>()
        };
        program.write(x, &normal(100, ROWS * DIM));
        for (i, param) in params.iter().enumerate() {
            program.write(*param, &normal(first + i, 32 * DIM));
        }
        program.run_section(section).unwrap();
        let mut read = |t: &TensorId| pollster::block_on(program.fetch::<f32>(*t)).unwrap();
        (outputs.iter().map(&mut read).collect(), dw.iter().map(&mut read).collect(), read(&dx))
    }

    #[test]
    fn layers_of_any_form_share_an_input() {
        let ternary = |group| Form::Ternary { group, scales: Scales::Group };
        let forms = [Form::F32, ternary(32), Form::F16, ternary(64)];
        let (outputs, gradients, dx) = run(&forms, 0);
        let mut sum = vec![0.0; ROWS * DIM];
        for (i, form) in forms.iter().enumerate() {
            let (alone, gradient, dx) = run(&[*form], i);
            assert_eq!((&alone[0], &gradient[0]), (&outputs[i], &gradients[i]), "{form:?}");
            assert!(gradient[0].iter().any(|v| *v != 0.0) && dx.iter().any(|v| *v != 0.0));
            sum.iter_mut().zip(dx).for_each(|(sum, dx)| *sum += dx);
        }
        assert!(dx.iter().zip(&sum).all(|(a, b)| (a - b).abs() < 1e-4 * b.abs().max(1.0)), "{dx:?}, {sum:?}");
    }
}
