//! The costs of the demo, and its errors.

use super::list::endless_list;
use super::{NO_WEBGPU, Tab, WEBGPU, bytes};
use half::vec::HalfBitsVecExt;
use nanotern::formats::{Format, ModelFile, Tensor, TensorData, Ternary, TextConfig, gguf};
use nanotern::model::ModelConfig;
use nanotern::tokenizer::Tokenizer;
use serde_json::json;
use std::io::Write;
use std::process::{Command, Stdio};

/// The largest download of a first visit without the model, in compressed bytes. Shaders with several passes, fused ones, and
/// checks of ids, slots and positions, which keep a stranger's file and a wrong token from reaching other memory, are part of it;
/// so are experts, delta rules, further heads, optimizer state in fewer bits, and the files and tokenizers of others' models.
const MAX_DOWNLOAD: usize = 580_000;

#[test]
fn the_download_is_small_and_the_page_is_soon_ready() {
    let Some(tab) = Tab::page(NO_WEBGPU) else { return };
    let loaded =
        "return [location.pathname, ...performance.getEntriesByType('resource').map(e => new URL(e.name).pathname)]";
    let mut paths: Vec<String> = serde_json::from_value(tab.browser.eval(loaded)).unwrap();
    // The list of the page does not have the files that the worker fetches.
    paths.extend(tab.site.fetched());
    paths.sort();
    paths.dedup();
    paths.retain(|path| !["/model.gguf", "/blank.html", "/favicon.ico"].contains(&&**path));
    assert!(paths.iter().any(|path| path.ends_with(".wasm")), "{paths:?}");
    let dir = std::path::PathBuf::from(std::env::var_os("NANOTERN_WEB").unwrap());
    let gzipped = |path: &String| {
        let name = if path == "/" { "index.html" } else { path.trim_start_matches('/') };
        let bytes = std::fs::read(dir.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut gzip =
            Command::new("gzip").args(["-9", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut to = gzip.stdin.take().unwrap();
        let write = std::thread::spawn(move || to.write_all(&bytes));
        let size = gzip.wait_with_output().unwrap().stdout.len();
        write.join().unwrap().unwrap();
        size
    };
    let total: usize = paths.iter().map(gzipped).sum();
    let ready = tab.browser.eval("return Number(document.body.dataset.ready)");
    println!("{total} bytes gzipped in {} files; ready after {ready} ms", paths.len());
    assert!(total < MAX_DOWNLOAD, "{total} bytes: {paths:?}");
}

#[test]
fn simd_is_measured_beside_scalar() {
    let Some(tab) = Tab::api(NO_WEBGPU, "cpu") else { return };
    for (outs, dim) in [(1024, 1024), (2560, 6912)] {
        let times = tab.browser.eval(&format!("return await nanotern.benchmark({outs}, {dim})"));
        let [simd, scalar] = ["simd", "scalar"].map(|kernel| times[kernel].as_f64().unwrap());
        let gops = |seconds: f64| 2.0 * (outs * dim) as f64 / seconds * 1e-9;
        println!("{outs} x {dim}: SIMD {:.1} GOPS, scalar {:.1}: {:.1} times", gops(simd), gops(scalar), scalar / simd);
    }
    tab.no_errors();
}

#[test]
fn gpu_memory_stays_flat() {
    let Some(tab) = Tab::api(WEBGPU, "webgpu") else { return };
    let mut file = endless_list(1);
    file.config.seq_len = 64;
    tab.load(&bytes(&file));
    let ask = "await nanotern.chat.completions.create({messages: [{role: 'user', content: 'hi'}], max_tokens: 3});";
    let memory = |after: &str| tab.browser.eval(&format!("{after} return await nanotern.memory()"));
    let first = memory(ask);
    assert!(first["gpu"].as_u64() > Some(1 << 17), "{first}");
    for _ in 0..10 {
        let now = memory(&format!("for (let i = 0; i < 10; i += 1) {ask}"));
        assert_eq!((&now["gpu"], &now["buffers"]), (&first["gpu"], &first["buffers"]));
    }
    for _ in 0..10 {
        let now = memory(&format!("await nanotern.load('/test.gguf'); {ask}"));
        assert_eq!((&now["gpu"], &now["buffers"]), (&first["gpu"], &first["buffers"]));
    }
    let stats = memory(
        "window.t = await nanotern.train('some text '.repeat(100), {model: {dim: 64, layers: 1, seq_len: 32}, \
                        train: {batch_size: 1, total_steps: 2}}); await t.step(2);",
    );
    assert!(stats["gpu"].as_u64() > first["gpu"].as_u64(), "{stats}");
    let after = memory("await t.free();");
    assert_eq!((&after["gpu"], &after["buffers"]), (&first["gpu"], &first["buffers"]));
    let none = memory("await nanotern.unload();");
    assert_eq!((&none["gpu"], &none["buffers"]), (&json!(0), &json!(0)));
    tab.no_errors();
}

/// The first bytes of a file of a model whose table fits no device here, and the length of the whole file. Its zeros are
/// never touched.
fn oversized() -> (Vec<u8>, usize) {
    let tokenizer = Tokenizer::bytes();
    let (heads, vocab) = (128, 1 << 17);
    let config =
        ModelConfig { dim: 128 * heads, layers: 2, heads, kv_heads: heads, ffn: 128, ..ModelConfig::default() };
    let tensor = |weight: &nanotern::model::Weight| {
        use nanotern::model::Form;
        let size = weight.elements();
        let data = match weight.form {
            Form::Ternary { group, .. } => {
                let (outs, dim) = weight.matrix();
                TensorData::Ternary(Ternary {
                    codes: vec![0; size / 4],
                    scales: vec![0.0; size / group],
                    outs,
                    dim,
                    group,
                })
            }
            Form::F32 => TensorData::F32(vec![0.0; size]),
            _ => TensorData::F16(vec![0; size].reinterpret_into()),
        };
        Tensor::new(weight, data)
    };
    let tensors = config.weights(vocab).iter().map(tensor).collect();
    let file = ModelFile { config, vocab, tensors, text: TextConfig::new(&tokenizer) };
    let layout = gguf::Layout::new(&file, Format::Q1_58).unwrap();
    let mut front = vec![0; 4 << 20];
    // This fails as soon as the buffer is full.
    let _ = layout.write(&mut front.as_mut_slice());
    (front, layout.bytes() as usize)
}

impl Tab {
    /// Loads an address that must fail. Returns the message of the page.
    fn fails(&self, name: &str) -> String {
        self.browser.eval(
            "document.getElementById('alert').hidden = true; document.getElementById('loader').hidden = false; \
                           document.getElementById('url').value = ''",
        );
        self.browser.keys_to("#url", &format!("{}/{name}{}", self.site.address, crate::driver::ENTER));
        self.browser.wait_for("!document.getElementById('alert').hidden && document.getElementById('progress').hidden");
        self.text_of("alert")
    }

    /// Checks that the page still loads and answers.
    fn works(&self) {
        self.load_default();
        self.set("max_tokens", "5");
        self.ask("hi");
        self.wait_for_end();
        assert!(self.answer().contains("wor"), "{}", self.answer());
    }

    /// Checks that the console has no errors but the browser's own about files.
    fn no_own_errors(&self) {
        let own = self.browser.console_errors().into_iter().filter(|e| !e.contains("Failed to load resource"));
        assert_eq!(own.collect::<Vec<_>>(), Vec::<String>::new());
    }
}

#[test]
fn broken_files_are_named_and_the_page_goes_on() {
    let Some(tab) = Tab::page(WEBGPU) else { return };
    let good = bytes(&endless_list(1));
    tab.site.put("wrong.gguf", b"not a model ".repeat(20_000));
    tab.site.put("short.gguf", good[..good.len() / 2].to_vec());
    tab.site.put_cut("cut.gguf", good[..good.len() / 2].to_vec(), good.len());
    let (front, total) = oversized();
    tab.site.put_slow("giant.gguf", front, total);
    for (name, what) in [
        ("wrong.gguf", "is not a (whole) model file: magic"),
        ("short.gguf", "is not a (whole) model file: tensor"),
        ("cut.gguf", "broke off after"),
        ("giant.gguf", "but this device allows"),
        ("missing.gguf", "404"),
    ] {
        let said = tab.fails(name);
        println!("{name}: {said}");
        assert!(said.contains(what), "{name}: {said}");
        tab.works();
        tab.browser.click("#change");
    }
    assert_eq!(tab.browser.eval("return await (await caches.open('nanotern-models')).keys().then(k => k.length)"), 1);
    tab.site.go_offline();
    assert!(tab.fails("other.gguf").contains("offline"));
    // A file in the cache needs no network.
    tab.works();
    tab.no_own_errors();
}

#[test]
fn a_download_that_stalls_can_be_cancelled() {
    let Some(tab) = Tab::page(NO_WEBGPU) else { return };
    let file = bytes(&endless_list(1));
    tab.site.put_slow("stalled.gguf", file[..file.len() / 2].to_vec(), file.len());
    tab.browser.keys_to("#url", &format!("{}/stalled.gguf{}", tab.site.address, crate::driver::ENTER));
    tab.browser.wait_for("document.getElementById('received').innerText.includes(' of ')");
    tab.browser.click("#cancel");
    tab.browser.wait_for("document.getElementById('progress').hidden && document.getElementById('alert').hidden");
    tab.works();
    tab.no_own_errors();
}

#[test]
fn what_has_ended_says_so() {
    let Some(tab) = Tab::api(NO_WEBGPU, "cpu") else { return };
    let config = json!({"model": {"dim": 64, "layers": 1, "heads": 2, "kv_heads": 1, "seq_len": 32}, "train": {"batch_size": 1}});
    let said = tab.browser.eval(&format!(
        "const text = 'some text '.repeat(100); \
         const [first, second] = [await nanotern.train(text, {config}), await nanotern.train(text, {config})]; \
         await first.free(); \
         const old = await first.step().catch(error => error.message); \
         const [{{ step }}] = await second.step(); \
         nanotern.close(); \
         return [old, step, await nanotern.memory().catch(error => error.message)]"
    ));
    assert_eq!(said, json!(["this training session has ended", 1, "it was closed"]));
    tab.no_errors();
}

#[test]
fn a_lost_gpu_is_said_and_opened_again() {
    let Some(tab) = Tab::page(WEBGPU) else { return };
    tab.load_default();
    tab.set("max_tokens", "4000");
    tab.ask("hi");
    tab.browser.wait_for("document.querySelector('.running .body')?.textContent.length > 2");
    tab.browser.cdp("Browser.crashGpuProcess", json!({}));
    tab.browser.wait_for("!document.getElementById('alert').hidden");
    assert!(tab.text_of("alert").contains("The GPU was lost"), "{}", tab.text_of("alert"));
    tab.browser.wait_for("!document.getElementById('send').hidden");
    tab.browser.click("#again");
    tab.wait_for_model();
    tab.browser.click("#new");
    tab.set("max_tokens", "5");
    tab.ask("hi");
    tab.wait_for_end();
    assert!(tab.answer().contains("wor"), "{}", tab.answer());
    tab.no_own_errors();
}

#[test]
fn no_memory_on_the_cpu_is_said() {
    let Some(tab) = Tab::page(NO_WEBGPU) else { return };
    let (front, total) = oversized();
    tab.site.put_slow("giant.gguf", front, total);
    let said = tab.fails("giant.gguf");
    assert!(said.contains("MiB of memory") && said.contains("smaller batch or model"), "{said}");
    tab.works();
}

#[test]
fn a_module_that_failed_says_so_and_another_can_be_opened() {
    let Some(tab) = Tab::api(NO_WEBGPU, "cpu") else { return };
    let failed = "return nanotern.benchmark(65536, 131072).catch(error => [error.code, error.message])";
    let said = tab.browser.eval(failed);
    assert_eq!(said[0], "internal", "{said}");
    assert!(said[1].as_str().unwrap().contains("the module failed"), "{said}");
    let again = "const { Nanotern } = await import('/nanotern.js'); const other = await Nanotern.open({ backend: 'cpu' }); \
                 return other.runtime.backend";
    assert_eq!(tab.browser.eval(again), "cpu");
}

#[test]
fn a_model_that_cannot_write_is_an_invalid_file() {
    let Some(tab) = Tab::api(NO_WEBGPU, "cpu") else { return };
    let file = ModelFile { text: TextConfig::default(), ..endless_list(1) };
    tab.site.put("mute.gguf", bytes(&file));
    let said = tab.browser.eval("return nanotern.load('/mute.gguf').catch((error) => [error.code, error.message])");
    assert_eq!(said, json!(["invalid_file", "the model has no tokenizer"]));
    tab.no_errors();
}
