//! Named tensors as a safetensors file, ordered by name. Data is written and read bit for bit, including denormals and signed
//! zeros. Writing makes no copy of the model in memory; reading holds the file's bytes beside it.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{Dtype, Metadata, SafeTensors, TensorInfo};

use super::Array;
use crate::error::{Error, Result};
use crate::graph::DType;
use crate::memory;

const _: () = assert!(cfg!(target_endian = "little"), "safetensors data is little-endian and is written verbatim");

/// The types that tensors have.
const DTYPES: [(DType, Dtype); 4] =
    [(DType::F32, Dtype::F32), (DType::Bf16, Dtype::BF16), (DType::I8, Dtype::I8), (DType::U8, Dtype::U8)];

/// Elements that are written at once.
const CHUNK: usize = 64 << 10;

/// The encoded header of a safetensors file and the tensors in file order.
pub(super) struct Layout<'a> {
    header: Vec<u8>,
    tensors: Vec<&'a Array>,
    /// Size of the whole file.
    pub bytes: u64,
}

impl<'a> Layout<'a> {
    /// # Errors
    /// [`Error::Usage`] if two tensors have the same name.
    ///
    /// # Panics
    /// When a shape does not match its data.
    pub(super) fn new(tensors: &'a [Array]) -> Result<Self> {
        let mut tensors: Vec<&Array> = tensors.iter().collect();
        tensors.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = tensors.windows(2).find(|p| p[0].name == p[1].name) {
            return Err(Error::usage(format!("two tensors are named {:?}", pair[0].name)));
        }
        let mut offset = 0;
        let infos = tensors.iter().map(|t| {
            assert_ne!(t.name, "__metadata__", "safetensors reserves this name");
            assert_eq!(t.shape.iter().product::<usize>(), t.data.len(), "{}: shape {:?}", t.name, t.shape);
            let start = offset;
            offset += t.data.len() * t.dtype.bytes();
            let (_, dtype) = DTYPES.iter().find(|(have, _)| *have == t.dtype).expect("a type of arrays");
            (t.name.clone(), TensorInfo { dtype: *dtype, shape: t.shape.clone(), data_offsets: (start, offset) })
        });
        let infos: Vec<_> = infos.collect();
        // Readers of the PyTorch ecosystem require this key.
        let note = HashMap::from([("format".to_string(), "pt".to_string())]);
        let metadata = Metadata::new(Some(note), infos).expect("offsets were laid out in order");
        let mut json = serde_json::to_vec(&metadata).expect("strings and integers always serialise");
        json.resize(json.len().next_multiple_of(8), b' ');
        let mut header = (json.len() as u64).to_le_bytes().to_vec();
        header.extend_from_slice(&json);
        let bytes = (header.len() + offset) as u64;
        Ok(Layout { header, tensors, bytes })
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(&self.header)?;
        for tensor in &self.tensors {
            // A small chunk stays in cache between the checksum and the copy to the kernel.
            for start in (0..tensor.data.len()).step_by(CHUNK) {
                out.write_all(&tensor.bytes(start..tensor.data.len().min(start + CHUNK)))?;
            }
        }
        Ok(())
    }
}

/// The tensors of a safetensors file, ordered by name.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Array>> {
    let file = SafeTensors::deserialize(bytes).map_err(|e| Error::invalid(path, e.to_string()))?;
    let mut views = file.tensors();
    let elements = views.iter().map(|(_, view)| view.data().len() / (view.dtype().bitsize() / 8).max(1));
    memory::check(elements.sum::<usize>().saturating_mul(4), memory::free(), "use a smaller model")?;
    views.sort_by(|a, b| a.0.cmp(&b.0));
    let tensor = |(name, view): (String, safetensors::tensor::TensorView)| {
        let Some((dtype, _)) = DTYPES.iter().find(|(_, dtype)| *dtype == view.dtype()) else {
            return Err(Error::invalid(
                path,
                format!("tensor {name:?} is {:?}, want F32, BF16, I8 or U8", view.dtype()),
            ));
        };
        Ok(Array { shape: view.shape().to_vec(), name, dtype: *dtype, data: Array::elements(*dtype, view.data()) })
    };
    views.into_iter().map(tensor).collect()
}
