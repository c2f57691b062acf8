//! Opens a model and prints what it is made of; a GGUF file, a checkpoint or a run will do:
//!
//!     cargo run --release --example inspect -- model.gguf

use nanotern::formats::ModelFile;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("FILE")?;
    let file = ModelFile::open(path.as_ref())?;
    println!("{} parameters, {} tokens in the vocabulary, {:?}", file.param_count(), file.vocab, file.config);
    for tensor in &file.tensors {
        println!("{:8} {:?} {}", tensor.data.kind(), tensor.shape, tensor.name);
    }
    Ok(())
}
