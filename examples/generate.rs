//! Generates text with a GGUF file that `nanotern export` wrote:
//!
//!     cargo run --release --example generate -- model.gguf "Once upon a time"

use nanotern::infer::{Engine, EngineOptions, Sampling};
use nanotern::{backend, formats::ModelFile};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [_, path, prompt] = &std::env::args().collect::<Vec<_>>()[..] else { return Err("FILE PROMPT".into()) };
    let file = ModelFile::open(path.as_ref())?;
    let tokenizer = file.tokenizer()?.ok_or("the model has no tokenizer")?;
    let mut engine = Engine::new(&file, &backend::open("auto", &Default::default())?, EngineOptions::default())?;
    let mut tokens = file.text.prompt(tokenizer.encode(prompt)?);
    tokens.extend(engine.generate(&tokens, Sampling::default())?.0);
    println!("{}", tokenizer.decode(&tokens));
    Ok(())
}
