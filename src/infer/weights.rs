//! Copies the tensors of a model file to a device, as they are.

use crate::backend::Program;
use crate::formats::{ModelFile, TensorData};
use crate::model::{Model, WeightForm};
use crate::{Error, Result};

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
                let values: Vec<f32> = values.iter().map(|v| v.to_f32()).collect();
                program.write(*id, &values);
            }
            (WeightForm::Ternary(w), TensorData::Ternary(t)) => {
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
