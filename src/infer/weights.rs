//! Copies the tensors of a model file to a device, as they are.

use crate::backend::Program;
use crate::formats::{ModelFile, Tensor, TensorData};
use crate::model::{Model, WeightForm};
use crate::{Error, Result};
use half::slice::HalfFloatSliceExt;

/// Writes every weight of `file` to the tensors that `model` declared in `program`'s graph.
pub fn load_weights(program: &mut Program, model: &Model, file: &ModelFile) -> Result<()> {
    let missing = model.weights.iter().find(|weight| file.tensor(&weight.name).is_none());
    if let Some(weight) = missing {
        return Err(Error::usage(format!("the model file lacks the tensor {}", weight.name)));
    }
    program.write(model.rope, &model.rope_table());
    file.tensors.iter().try_for_each(|tensor| load_tensor(program, model, tensor))
}

/// Writes one weight.
pub fn load_tensor(program: &mut Program, model: &Model, tensor: &Tensor) -> Result<()> {
    let name = &tensor.name;
    let weight = model.weights.iter().find(|weight| weight.name == *name);
    let weight = weight.ok_or_else(|| Error::usage(format!("{name} is no tensor of the model")))?;
    match (&weight.form, &tensor.data) {
        (WeightForm::Dense(id), TensorData::F32(values)) => program.write(*id, values),
        (WeightForm::Dense(id), TensorData::F16(values)) => program.write(*id, &values.to_f32_vec()),
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
    Ok(())
}
