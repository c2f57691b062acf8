//! The tab and the native program compute the same logits, texts and training steps.

use super::{NO_WEBGPU, Tab, WEBGPU, bytes, common, greedy, micro, of_every_kind, prompts, session, text, trained};
use common::relative;
use nanotern::backend::{Backend, Wgpu};
use nanotern::formats::ModelFile;
use nanotern::infer::{Engine, EngineOptions};
use serde_json::{Value, json};

const TOKENS: usize = 16;

fn numbers(value: Value) -> Vec<f32> {
    serde_json::from_value(value).unwrap()
}

/// Natively trained models give the same texts in a tab, and logits within `limit` of the scalar kernels'.
fn answers_agree(flags: &[&str], backend: &str, files: &[ModelFile], limit: f64) {
    let choice = if flags == WEBGPU { "webgpu" } else { "auto" };
    let Some(tab) = Tab::api(flags, choice) else { return };
    assert_eq!(tab.browser.eval("return nanotern.runtime.backend"), backend);
    if backend == "cpu" {
        let device = tab.browser.eval("return nanotern.runtime.device");
        assert!(device.as_str().unwrap().contains("simd128"), "{device}");
    }
    files.iter().for_each(|file| file_agrees(&tab, file, backend, limit));
    tab.no_errors();
}

fn file_agrees(tab: &Tab, file: &ModelFile, backend: &str, limit: f64) {
    let info = tab.load(&bytes(file));
    assert_eq!(info["parameters"], file.param_count());
    assert_eq!(info["backend"], backend);
    let mut engine = Engine::new(file, &common::scalar(), EngineOptions::default()).unwrap();
    let tokenizer = file.tokenizer().unwrap().unwrap();
    let prompts = prompts();
    let mut worst = 0f64;
    for prompt in &prompts[..8] {
        let rows = pollster::block_on(engine.prompt_logits(&tokenizer.encode(prompt).unwrap(), 16)).unwrap();
        let want: Vec<f64> = rows.last().unwrap().iter().map(|v| f64::from(*v)).collect();
        let have = tab.browser.eval(&format!("return [...await nanotern.logits({})]", json!(prompt)));
        worst = worst.max(relative(&numbers(have), &want));
    }
    println!("{backend}: logits differ by {worst:.1e}");
    assert!(worst <= limit, "{backend}: logits differ by {worst:.1e}");
    let (have, want) = (tab.greedy(&prompts, TOKENS), greedy(file, &prompts, TOKENS));
    assert!(want.iter().any(|t| t.contains("says")), "the model has learnt its text: {want:?}");
    assert_eq!(have, want, "{backend}");
}

#[test]
fn webgpu_answers_as_the_native_cpu_does() {
    answers_agree(WEBGPU, "webgpu", &[trained(micro()), trained(of_every_kind())], 1e-5);
}

/// Equal bits, with tables as they were trained and with tables of 8 bits, which the demo ships.
#[test]
fn without_webgpu_the_simd_kernels_answer_the_same() {
    let file = trained(micro());
    let mut small = file.clone();
    small.round_tables_to_int8().unwrap();
    answers_agree(NO_WEBGPU, "cpu", &[file, small, trained(of_every_kind())], 0.0);
}

/// The losses of fifty steps in the tab. The session stays open there as `training`.
fn losses_in(tab: &Tab, config: &Value) -> Vec<f32> {
    tab.browser.eval(&format!("window.training = await nanotern.train({}, {config})", json!(text())));
    let some = |_| numbers(tab.browser.eval("return (await training.step(5)).map(s => s.loss)"));
    (0..10).flat_map(some).collect()
}

fn losses_of(config: &Value, backend: &Backend) -> Vec<f32> {
    let mut session = session(config, backend);
    (0..50).for_each(|_| session.submit().unwrap());
    session.trainer.stats(0..50).unwrap().iter().map(|s| s.loss).collect()
}

#[test]
fn training_in_the_tab_is_the_native_run() {
    let Some(tab) = Tab::api(WEBGPU, "webgpu") else { return };
    if !common::has_adapter() {
        return;
    }
    let wgpu = Backend::Wgpu(Wgpu::open(None).unwrap());
    for (quantize, mut config) in [("none", of_every_kind()), ("none", micro()), ("ternary", micro())] {
        config["model"]["quantize"] = quantize.into();
        if quantize == "none" {
            config["model"]["embeddings"] = "f32".into();
        }
        let (have, want) = (losses_in(&tab, &config), losses_of(&config, &wgpu));
        let off: Vec<f32> = have.iter().zip(&want).map(|(h, w)| (h - w).abs()).collect();
        // An activation or weight within float error of a tie can get another code, and then the ternary runs differ.
        // So they agree closely only up to the first tie; the unquantised runs have no ties.
        let tie = off.iter().position(|off| *off > 1e-5).unwrap_or(50);
        let worst = off.iter().copied().fold(0f32, f32::max);
        println!("{quantize}: loss {} to {}, off by {worst:.1e}, first tie at step {tie}", want[0], want[49]);
        assert!(have.len() == 50 && want[49] < want[0] - 1.0, "it learns: {want:?}");
        let (least_tie, limit) = if quantize == "none" { (50, 1e-3) } else { (10, 0.2) };
        assert!(tie >= least_tie && worst <= limit, "{quantize}: losses differ by {off:?}");
    }
    exports_agree(&tab);
    tab.no_errors();
}

/// The native program and the tab generate the same texts from the file of the session.
fn exports_agree(tab: &Tab) {
    let parts = tab.browser.eval("const f = await training.export(); return [[...f.gguf], [...f.mhc]]");
    let [gguf, mhc]: [Vec<u8>; 2] = serde_json::from_value(parts).unwrap();
    let mut file = ModelFile::from_gguf(&gguf).unwrap();
    file.set_mhc(nanotern::formats::mhc::MhcFile::parse(&mhc).unwrap()).unwrap();
    tab.browser.eval("await training.use()");
    let prompts = &prompts()[..6];
    assert_eq!(tab.greedy(prompts, TOKENS), greedy(&file, prompts, TOKENS));
    tab.load(&gguf);
    assert_eq!(tab.greedy(prompts, TOKENS), greedy(&file, prompts, TOKENS));
}
