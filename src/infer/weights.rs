//! Copies the tensors of a model file to a device, as they are; how many bytes of them a step reads.

use crate::backend::Program;
use crate::formats::{ModelFile, TensorData};
use crate::graph::{Graph, TensorId};
use crate::model::{Model, WeightForm};
use crate::{Error, Result};
use half::slice::HalfFloatSliceExt;
use std::collections::BTreeSet;

/// Writes every weight of `file` to the tensors that `model` declared in `program`'s graph.
pub fn load_weights(program: &mut Program, model: &Model, file: &ModelFile) -> Result<()> {
    program.write(model.rope, &model.rope_table());
    for weight in &model.weights {
        let name = &weight.name;
        let tensor = file.tensors.iter().find(|t| t.name == *name);
        let tensor = tensor.ok_or_else(|| Error::usage(format!("the model file lacks the tensor {name}")))?;
        match (&weight.form, &tensor.data) {
            (WeightForm::Dense(id), TensorData::F32(values)) => program.write(*id, values),
            (WeightForm::Dense(id), TensorData::F16(values)) => {
                program.write(*id, &values.to_f32_vec());
            }
            (WeightForm::Ternary(w), TensorData::Ternary(t)) => {
                program.write(w.codes, &t.codes);
                program.write(w.scales, &t.scales);
            }
            (WeightForm::Int8(w), TensorData::Int8(t)) => {
                program.write(w.codes, &t.codes);
                program.write(w.scales, &t.scales);
            }
            (_, data) => {
                return Err(Error::usage(format!("{name} is stored as {}, which is not its form", data.kind())));
            }
        }
    }
    Ok(())
}

/// Bytes of the weights that a section reads whole, which looking up rows of an embedding is not.
pub(super) fn weight_bytes(g: &Graph, section: &str, model: &Model) -> usize {
    let nodes = g.nodes[g.nodes_of(section)].iter().filter(|n| !n.op.name.starts_with("embedding"));
    let read: BTreeSet<TensorId> = nodes.flat_map(|n| n.tensors.iter().copied()).collect();
    let held = model.weights.iter().flat_map(|weight| match weight.form {
        WeightForm::Dense(id) => vec![id],
        WeightForm::Ternary(w) => vec![w.codes, w.scales],
        WeightForm::Int8(w) => vec![w.codes, w.scales],
    });
    held.filter(|id| read.contains(id)).map(|id| g.tensor(id).bytes()).sum()
}
