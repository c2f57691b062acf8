//! Trains 1.58-bit (ternary) language models on any GPU or none, exports them, and serves them.
//!
//! This is the library under the program `nanotern`. A program of your own needs neither its command line nor its server:
//!
//! ```toml
//! nanotern = { version = "0.1", default-features = false, features = ["native"] }
//! ```
//!
//! # Open a model and generate
//!
//! [`ModelFile`](formats::ModelFile) reads a GGUF file, a checkpoint or a run; [`backend::open`] finds a device;
//! an [`Engine`](infer::Engine) generates.
//!
//! ```
//! use nanotern::backend;
//! use nanotern::formats::ModelFile;
//! use nanotern::infer::{Engine, EngineOptions, Sampling};
//!
//! # fn main() -> nanotern::Result<()> {
//! # use nanotern::{data::Corpus, formats::Format, model::ModelConfig, tokenizer::Tokenizer, train::{Config, Session}};
//! # let model = ModelConfig { dim: 64, layers: 1, heads: 2, kv_heads: 1, ffn: 128, seq_len: 32, ..ModelConfig::default() };
//! # let text = "the quick brown fox jumps over the lazy dog\n".repeat(8);
//! # let corpus = Corpus::from_text("fox", &text, &text, Tokenizer::bytes())?;
//! # let config = Config { model, ..Config::default() };
//! # let mut session = Session::new(config, corpus, &backend::open("cpu", &Default::default())?)?;
//! # let dir = tempfile::tempdir().expect("a temporary folder");
//! # let path = dir.path().join("model.gguf");
//! # pollster::block_on(session.model_file())?.save_gguf(&path, Format::Q1_58)?;
//! let file = ModelFile::open(&path)?;
//! let tokenizer = file.tokenizer()?.expect("the model has a tokenizer");
//! let device = backend::open("cpu", &Default::default())?; // or "auto": a GPU if there is one
//! let mut engine = Engine::new(&file, &device, EngineOptions::default())?;
//!
//! let sampling = Sampling { temperature: 0.0, max_tokens: 20, ..Sampling::default() };
//! let prompt = tokenizer.encode("the quick")?;
//! let (tokens, why) = engine.generate(&prompt, sampling)?;
//! println!("{} ({why:?})", tokenizer.decode(&[prompt, tokens].concat()));
//! # Ok(())
//! # }
//! ```
//!
//! [`Engine::start`](infer::Engine::start) and [`Engine::step`](infer::Engine::step) run many sequences side by side and
//! give each token as it is drawn; [`TextStream`](infer::TextStream) makes whole characters of them.
//!
//! # Train ten steps
//!
//! ```
//! use nanotern::backend;
//! use nanotern::data::Corpus;
//! use nanotern::model::ModelConfig;
//! use nanotern::tokenizer::Tokenizer;
//! use nanotern::train::{Config, Session, TrainConfig};
//!
//! # fn main() -> nanotern::Result<()> {
//! let text = "the quick brown fox jumps over the lazy dog\n".repeat(64);
//! let corpus = Corpus::from_text("fox", &text, &text, Tokenizer::bytes())?;
//! let config = Config {
//!     model: ModelConfig { dim: 64, layers: 1, heads: 2, kv_heads: 1, ffn: 128, seq_len: 32, ..ModelConfig::default() },
//!     train: TrainConfig { batch_size: 4, total_steps: 10, ..TrainConfig::default() },
//!     ..Config::default()
//! };
//! config.check()?;
//!
//! let mut session = Session::new(config, corpus, &backend::open("cpu", &Default::default())?)?;
//! let before = pollster::block_on(session.validate())?;
//! for _ in 0..10 {
//!     session.submit()?; // returns at once: the device works on it
//! }
//! let after = pollster::block_on(session.validate())?;
//! assert!(after < before, "{before} to {after} nats per token");
//!
//! // What is trained is what is served, bit for bit.
//! let file = pollster::block_on(session.model_file())?;
//! # assert_eq!(file.vocab, Tokenizer::bytes().vocab_size());
//! # Ok(())
//! # }
//! ```
//!
//! A [`Run`](train::Run) is a session with a folder: checkpoints, logs, a plot, and resuming.
//!
//! # Features
//!
//! | feature | adds | on by default |
//! |---|---|---|
//! | none | what a browser tab can do: models, training, inference, formats, the CPU backend and WebGPU | |
//! | `native` | files, threads, BPE tokenizers, chat templates, Vulkan, Metal and DirectX 12 | yes |
//! | `download` | fetching the data set `shakespeare`, and models of Hugging Face's hub | yes |
//! | `serve` | [`serve`]: the OpenAI API and a chat page over HTTP | yes |
//! | `cli` | the program `nanotern`, with all of these | yes |
//! | `parquet` | corpora in columns of Parquet files | no |
//! | `cuda` | NVIDIA GPUs through CUDA; the driver is loaded at run time | no |
//!
//! # Floors
//!
//! Each module imports only from those beneath it; `cargo xtask floors` checks that.
//!
//! ```text
//! cli               the program, over the library
//! serve             the OpenAI API and a chat page
//! eval, bench       how good, how fast
//! train, infer      a step, a run; sequences side by side
//! formats           GGUF, .mhc
//! checkpoint        the folders that a run saves
//! data              where tokens come from
//! tokenizer         from text to tokens and back
//! model             from a configuration to a graph
//! backend           cpu, wgpu, cuda
//! ops               one table of ops
//! graph             nodes and tensors, gradients, the plan of memory
//! hub               Hugging Face's cache, and downloads into it
//! rng, files        random numbers; files written as a whole
//! memory            what is free
//! error             the one error type
//! ```
//!
//! Modules that are not in this documentation (`graph`, `ops`, `rng`, `bench`) are public for the program, the tests and
//! the benchmarks, and may change with any version.

#![warn(missing_docs)]

pub mod backend;
#[cfg(feature = "native")]
#[doc(hidden)]
pub mod bench;
pub mod checkpoint;
pub mod data;
pub mod error;
#[cfg(feature = "native")]
pub mod eval;
#[cfg(feature = "native")]
pub mod files;
pub mod formats;
#[doc(hidden)]
pub mod graph;
#[cfg(feature = "download")]
pub mod hub;
pub mod infer;
mod memory;
pub mod model;
#[doc(hidden)]
pub mod ops;
#[doc(hidden)]
pub mod rng;
#[cfg(feature = "serve")]
pub mod serve;
pub mod tokenizer;
pub mod train;

pub use error::{Error, Result};
