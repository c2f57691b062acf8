//! Copies the tensors of a model file to a device, as they are.

use crate::backend::Program;
use crate::formats::{ModelFile, Tensor, TensorData};
use crate::model::{Form, Model, Value};
use crate::{Error, Result};
use half::slice::HalfFloatSliceExt;

/// Writes every weight of `file` to the tensors that `model`, declared for inference, has in `program`'s graph.
///
/// # Errors
/// [`Error::Model`] names a weight that the file lacks, that the model does not have, or that has another form.
pub fn load_weights(program: &mut Program, model: &Model, file: &ModelFile) -> Result<()> {
    let missing = model.weights.iter().find(|weight| file.tensor(&weight.name).is_none());
    if let Some(weight) = missing {
        return Err(Error::Model(format!("the model file lacks the tensor {}", weight.name)));
    }
    program.write(model.rope, &model.rope_table());
    file.tensors.iter().try_for_each(|tensor| load_tensor(program, model, tensor))
}

/// Writes one weight; errors as [`load_weights`].
pub fn load_tensor(program: &mut Program, model: &Model, tensor: &Tensor) -> Result<()> {
    let name = &tensor.name;
    let weight = model.weights.iter().find(|weight| weight.name == *name);
    let weight = weight.ok_or_else(|| Error::Model(format!("{name} is not a tensor of the model")))?;
    match (weight.form, weight.value, &tensor.data) {
        (Form::F32, Value::Dense(id), TensorData::F32(values)) => program.write(id, values),
        (Form::F16, Value::Dense(id), TensorData::F16(values)) => program.write::<u16>(id, values.reinterpret_cast()),
        (_, Value::Ternary(w), TensorData::Ternary(t)) => {
            program.write(w.codes, &t.codes);
            match t.scales[..] {
                [all] => program.write(w.scales, &vec![all; (w.outs * (w.dim / w.group)) as usize]),
                _ => program.write(w.scales, &t.scales),
            }
        }
        (_, Value::Int8(w), TensorData::Int8(t)) => {
            program.write(w.codes, &t.codes);
            program.write(w.scales, &t.scales);
        }
        (form, _, data) => {
            let have = data.kind();
            return Err(Error::Model(format!("{name} is stored as {have}; the model needs {form:?}")));
        }
    }
    Ok(())
}
