//! The browser demo in a headless Chromium, with WebGPU (in software) and without, compared with the native program.
//!
//! `cargo xtask web-test` builds the demo and names its folder in `NANOTERN_WEB`. Without that variable these tests only
//! print that they did not run.
#![cfg(all(feature = "cli", unix))]

mod agree;
#[path = "../common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the tests of the chat page use all of it")]
#[path = "../browser/driver.rs"]
mod driver;
#[path = "../tokenizers/families.rs"]
mod families;
mod limits;
#[path = "../browser/list.rs"]
mod list;
mod page;
mod sampling;
mod site;
mod streams;
#[path = "../tokenizers/texts.rs"]
mod texts;

use driver::Browser;
use nanotern::backend::Backend;
use nanotern::data::{Corpus, split_text};
use nanotern::formats::{Format, ModelFile, gguf};
use nanotern::infer::{Engine, EngineOptions, Sampling};
use nanotern::tokenizer::Tokenizer;
use nanotern::train::{Config, Session};
use serde_json::{Value, json};
use site::Site;
use std::io::Write;
use std::path::PathBuf;

/// Makes Chromium offer an adapter without a GPU: SwiftShader.
const WEBGPU: &[&str] = &["--enable-unsafe-webgpu"];
const NO_WEBGPU: &[&str] = &["--disable-gpu"];

/// A browser that shows a page of the demo.
struct Tab {
    browser: Browser,
    site: Site,
}

impl Tab {
    /// Opens a browser. Without a built demo this prints a line and returns None.
    fn open(flags: &[&str]) -> Option<Tab> {
        let Some(dir) = std::env::var_os("NANOTERN_WEB").map(PathBuf::from) else {
            let _ = writeln!(std::io::stderr(), "NOT TESTED on the web: `cargo xtask web-test` builds and tests that");
            return None;
        };
        assert!(dir.join("nanotern_web_bg.wasm").is_file(), "{}: no demo was built there", dir.display());
        let browser = Browser::open(flags)?;
        let site = Site::new(dir);
        Some(Tab { browser, site })
    }

    /// Opens an empty page with `nanotern` on a backend.
    fn api(flags: &[&str], backend: &str) -> Option<Tab> {
        let tab = Tab::open(flags)?;
        tab.browser.goto(&format!("{}/blank.html", tab.site.address));
        tab.browser.eval(&format!(
            "const {{ Nanotern }} = await import('/nanotern.js'); window.nanotern = await Nanotern.open({{ backend: '{backend}' }})"
        ));
        Some(tab)
    }

    /// Loads a file into `nanotern`. Returns the info of the model.
    fn load(&self, gguf: &[u8]) -> Value {
        self.site.put("test.gguf", gguf.to_vec());
        self.browser.eval("return await nanotern.load('/test.gguf')")
    }

    /// Greedy completions of the prompts by the model in the tab.
    fn greedy(&self, prompts: &[String], max_tokens: usize) -> Vec<String> {
        let script = |prompt| {
            let request = json!({"prompt": prompt, "max_tokens": max_tokens, "temperature": 0});
            format!("return (await nanotern.completions.create({request})).choices[0].message.content")
        };
        prompts.iter().map(|p| self.browser.eval(&script(p)).as_str().unwrap().to_string()).collect()
    }

    fn no_errors(&self) {
        assert_eq!(self.browser.console_errors(), Vec::<String>::new());
    }
}

/// The text that models learn here.
fn text() -> String {
    let animals = [("dog", "woof"), ("cat", "meow"), ("cow", "moo"), ("duck", "quack"), ("frog", "ribbit")];
    let line = |(animal, sound): &(&str, &str)| format!("What does the {animal} say? The {animal} says {sound}.\n");
    animals.iter().map(line).collect::<String>().repeat(20)
}

/// A configuration that is small enough for a GPU in software. It is JSON because the page takes it too.
fn micro() -> Value {
    json!({
        "model": {"dim": 64, "layers": 1, "heads": 2, "kv_heads": 1, "ffn": 64, "seq_len": 32, "group_size": 64,
            "mhc_streams": 2},
        "train": {"batch_size": 1, "total_steps": 50, "seed": 7},
        "optim": {"warmup_steps": 5},
    })
}

/// It with a delta rule beside attention, a loop, experts and a further head.
fn of_every_kind() -> Value {
    let mut config = micro();
    config["model"]["layers"] = json!(2);
    config["model"]["mixers"] = json!(["delta_net", "attention"]);
    config["model"]["loop"] = json!({"before": 1, "shared": 1, "times": 2, "after": 0});
    config["model"]["moe"] = json!({"experts": 3, "active": 2, "from": 1});
    config["model"]["mtp"] = json!(1);
    config
}

/// A native session on the same text.
fn session(config: &Value, backend: &Backend) -> Session {
    let config: Config = serde_json::from_value(config.clone()).unwrap();
    let text = text();
    let (train, val) = split_text(&text, config.data.val_fraction).unwrap();
    Session::new(config, Corpus::from_text("text", train, val, Tokenizer::bytes()).unwrap(), backend).unwrap()
}

/// A natively trained model that knows its text.
fn trained(mut config: Value) -> ModelFile {
    config["train"] = json!({"batch_size": 16, "total_steps": 120, "seed": 7});
    let mut session = session(&config, &common::fastest());
    (0..120).for_each(|_| session.submit().unwrap());
    pollster::block_on(session.model_file()).unwrap()
}

fn bytes(file: &ModelFile) -> Vec<u8> {
    gguf::Layout::new(file, Format::Q1_58).unwrap().to_vec()
}

/// Greedy completions of the prompts by the native program.
fn greedy(file: &ModelFile, prompts: &[String], max_tokens: usize) -> Vec<String> {
    let tokenizer = file.tokenizer().unwrap().unwrap();
    let mut engine = Engine::new(file, &common::fastest(), EngineOptions::default()).unwrap();
    let sampling = Sampling { temperature: 0.0, max_tokens, ..Sampling::default() };
    let mut go_on = |prompt: &String| {
        let (ids, _) = engine.generate(&tokenizer.encode(prompt).unwrap(), sampling.clone()).unwrap();
        let mut text = nanotern::infer::TextStream::new(file.tokenizer().unwrap().unwrap(), Vec::new());
        let mut said: String = ids.iter().map(|id| text.push(*id).text).collect();
        said.push_str(&text.finish().text);
        said
    };
    prompts.iter().map(&mut go_on).collect()
}

/// Twenty short prompts, most of them pieces of the text.
fn prompts() -> Vec<String> {
    let text = text();
    let known = (0..14).map(|i| text[i * 17..][..4 + i].to_string());
    let other = ["dog", "What does", "The frog", "q", "says moo.\n", "A duck"].map(String::from);
    known.chain(other).collect()
}
