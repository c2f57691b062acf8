//! Trains the tiny preset for ten steps on the embedded data set and saves the model as a GGUF file:
//!
//!     cargo run --release --example train -- model.gguf

use nanotern::train::{Config, Session};
use nanotern::{backend, data, formats::Format};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("FILE")?;
    let mut config = Config::load(None, &[])?;
    config.train.total_steps = 10;
    config.train.eval_windows = 8;
    let corpus = data::load(&config.data, Path::new(""), Path::new(""))?;
    let mut session = Session::new(config, corpus, &backend::open("auto", &Default::default())?)?;
    for step in 0..10 {
        session.submit()?;
        let stats = session.trainer.stats(step..step + 1)?;
        println!("step {}: loss {:.4} nats per token", step + 1, stats[0].loss);
    }
    // A browser awaits these; a program that can wait blocks on them.
    println!("validation loss {:.4} nats per token", pollster::block_on(session.validate())?);
    let bytes = pollster::block_on(session.model_file())?.save_gguf(path.as_ref(), Format::Q1_58)?;
    println!("{path}: {bytes} bytes");
    Ok(())
}
