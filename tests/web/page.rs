//! The page in use: load a model, chat and train; with mouse and keyboard; light, dark and on a phone.

use super::list::endless_list;
use super::{NO_WEBGPU, Tab, WEBGPU, bytes, micro, trained};
use crate::driver::{ENTER, ESCAPE, TAB};
use serde_json::{Value, json};

impl Tab {
    /// Opens the page with a default model that answers with an endless list.
    pub fn page(flags: &[&str]) -> Option<Tab> {
        let tab = Tab::open(flags)?;
        tab.site.put("model.gguf", bytes(&endless_list(1)));
        tab.browser.emulate(1200, 900, "light");
        if flags == WEBGPU {
            // The adapter is software here, so the page would choose the CPU.
            tab.browser.goto(&format!("{}/blank.html", tab.site.address));
            tab.browser.eval("localStorage.setItem('nanotern.backend', '\"webgpu\"')");
        }
        tab.show();
        Some(tab)
    }

    fn show(&self) {
        self.browser.goto(&format!("{}/", self.site.address));
        self.browser.wait_for("document.body.dataset.ready && !document.getElementById('default').disabled");
    }

    pub fn load_default(&self) {
        self.browser.click("#default");
        self.wait_for_model();
    }

    pub fn wait_for_model(&self) {
        self.browser.wait_for("!document.getElementById('send').disabled");
    }

    pub fn text_of(&self, id: &str) -> String {
        let text = self.browser.eval(&format!("return document.getElementById('{id}').innerText"));
        text.as_str().unwrap().to_string()
    }

    pub fn ask(&self, text: &str) {
        self.browser.keys_to("#text", &format!("{text}{ENTER}"));
    }

    pub fn wait_for_end(&self) {
        self.browser.wait_for("!document.getElementById('send').hidden && document.querySelector('.assistant .tools')");
    }

    pub fn answer(&self) -> String {
        let last = "return [...document.querySelectorAll('.assistant .body')].at(-1).innerText";
        self.browser.eval(last).as_str().unwrap().to_string()
    }

    /// Sets a field of a form.
    pub fn set(&self, name: &str, value: &str) {
        self.browser.eval(&format!(
            "const e = document.querySelector('[name={name}]'); e.value = {}; e.dispatchEvent(new Event('input', {{bubbles: true}}))",
            json!(value)
        ));
    }
}

#[test]
fn the_page_chats_and_keeps_the_model() {
    let Some(tab) = Tab::page(NO_WEBGPU) else { return };
    assert!(tab.text_of("path").starts_with("CPU (SIMD); no GPU adapter"), "{}", tab.text_of("path"));
    assert_eq!(tab.site.asked("GET /model.gguf"), 0, "nothing is downloaded before it is asked for");
    tab.load_default();
    tab.browser.wait_for("document.getElementById('numbers').innerText.includes('ops a token')");
    assert!(tab.text_of("numbers").contains("of memory · 0 of 4096 tokens"), "{}", tab.text_of("numbers"));
    tab.set("max_tokens", "4000");
    tab.ask("hi");
    // The page presses it itself: on a busy machine the answer would be over before a click from outside arrives.
    tab.browser.eval(
        "return new Promise(done => { const look = setInterval(() => { \
         if (!(document.querySelector('.running .body')?.textContent.length > 10)) return; \
         clearInterval(look); document.getElementById('stop').click(); done(); }, 1); })",
    );
    tab.wait_for_end();
    let stopped = tab.answer();
    assert!(stopped.contains("word\nword") && tab.text_of("status") == "Stopped.", "{stopped}");
    tab.set("max_tokens", "30");
    tab.browser.click(".assistant .tools button[title^='Ask']");
    tab.wait_for_end();
    assert_eq!(tab.text_of("status"), "Ended at the limit of tokens.");
    assert!(stopped.starts_with(tab.answer().trim_end()));
    let speed = tab.browser.eval("return document.querySelector('.speed').innerText");
    assert!(speed.as_str().unwrap().contains("tok/s, first token after"), "{speed}");
    tab.browser.wait_for("!document.getElementById('numbers').innerText.includes(' 0 of')");
    tab.browser.reload();
    tab.wait_for_model();
    assert!(tab.text_of("status").contains("from this browser's cache"), "{}", tab.text_of("status"));
    assert_eq!(tab.site.asked("GET /model.gguf"), 1);
    tab.browser.click("#change");
    tab.browser.click("#forget");
    tab.browser.wait_for("document.getElementById('status').innerText == 'The cache is empty.'");
    tab.load_default();
    assert_eq!(tab.site.asked("GET /model.gguf"), 2);
    tab.no_errors();
}

#[test]
fn a_gpu_in_software_is_no_gain() {
    let Some(tab) = Tab::page(WEBGPU) else { return };
    assert!(tab.text_of("path").starts_with("WebGPU: "), "{}", tab.text_of("path"));
    tab.browser.eval("localStorage.clear()");
    tab.show();
    assert_eq!(tab.text_of("path"), "CPU (SIMD); the WebGPU adapter is software, which is slower");
    tab.no_errors();
}

#[test]
fn files_addresses_and_backends_can_be_chosen() {
    let Some(tab) = Tab::page(WEBGPU) else { return };
    assert!(tab.text_of("path").starts_with("WebGPU: "), "{}", tab.text_of("path"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.gguf");
    let file = trained(micro());
    std::fs::write(&path, bytes(&file)).unwrap();
    tab.browser.keys_to("#gguf", path.to_str().unwrap());
    tab.wait_for_model();
    assert_eq!(tab.text_of("model"), format!("{:.2} M parameters", file.param_count() as f64 / 1e6));
    tab.browser.wait_for("document.getElementById('numbers').innerText.includes('GPU memory')");
    // The last choice counts, however long the others take.
    tab.browser.eval(
        "const s = document.getElementById('backend'); \
         for (const name of ['auto', 'webgpu', 'cpu']) { s.value = name; s.dispatchEvent(new Event('change')); }",
    );
    tab.browser.wait_for("document.getElementById('path').innerText == 'CPU (SIMD)'");
    tab.wait_for_model();
    assert!(tab.text_of("model").contains("M parameters"), "it was loaded again");
    tab.browser.click("#change");
    tab.browser.keys_to("#url", &format!("{}/model.gguf{ENTER}", tab.site.address));
    tab.browser.wait_for("document.getElementById('numbers').innerText.includes('4096')");
    tab.browser.click("#to-train");
    tab.site.put("test.gguf", bytes(&file));
    tab.browser.eval(
        "const bytes = await (await fetch('/test.gguf')).blob(); const held = new DataTransfer(); \
         held.items.add(new File([bytes], 'dropped.gguf')); \
         const event = new DragEvent('drop', { dataTransfer: held, bubbles: true, cancelable: true }); \
         if (document.querySelector('h1').dispatchEvent(event)) throw new Error('the browser would open the file')",
    );
    tab.wait_for_model();
    tab.browser.wait_for("!document.getElementById('numbers').innerText.includes('4096')");
    assert_eq!(tab.text_of("model"), format!("{:.2} M parameters", file.param_count() as f64 / 1e6));
    tab.no_errors();
}

/// Waits until `least` steps have been trained.
fn wait_for_step(tab: &Tab, least: u32) {
    tab.browser.wait_for(&format!(
        "Number(/step (\\d+)/.exec(document.getElementById('training').innerText)?.[1]) >= {least}"
    ));
}

#[test]
fn the_page_trains_pauses_saves_and_chats_with_it() {
    let Some(tab) = Tab::page(NO_WEBGPU) else { return };
    tab.browser.click("#to-train");
    for (name, value) in [("dim", "64"), ("layers", "1"), ("total_steps", "120"), ("seq_len", "32")] {
        tab.set(name, value);
    }
    tab.browser.click("#start");
    wait_for_step(&tab, 5);
    // An impatient user clicks twice.
    tab.browser.eval("const pause = document.getElementById('pause'); pause.click(); pause.click()");
    tab.browser.wait_for("document.getElementById('training').innerText.startsWith('Paused')");
    let paused = tab.text_of("training");
    assert!(tab.browser.eval("return document.querySelectorAll('#histogram rect').length") == 96);
    tab.browser.eval("await new Promise(done => setTimeout(done, 300))");
    assert_eq!(tab.text_of("training"), paused);
    tab.browser.click("#pause");
    tab.browser.wait_for("document.getElementById('training').innerText.startsWith('Done: step 120 of 120')");
    assert!(tab.browser.eval("return document.querySelectorAll('#samples li').length").as_u64() > Some(3));
    let loss = tab.text_of("loss");
    assert!(loss.split(' ').next().unwrap().parse::<f32>().unwrap() < 3.5, "{loss}");
    let colours = "const c = document.getElementById('codes'); const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; \
                   return new Set(Array.from({length: d.length / 4}, (_, i) => d.slice(4 * i, 4 * i + 3).join())).size";
    assert_eq!(tab.browser.eval(colours), 3, "a colour each for -1, 0 and 1");
    tab.browser
        .eval("window.saved = []; const real = URL.createObjectURL; URL.createObjectURL = b => { saved.push(b); return real(b); }");
    tab.browser.click("#save-gguf");
    tab.browser.click("#save-mhc");
    tab.browser.wait_for("saved.length == 2");
    let files =
        tab.browser.eval("return await Promise.all(saved.map(async b => [...new Uint8Array(await b.arrayBuffer())]))");
    let [gguf, mhc]: [Vec<u8>; 2] = serde_json::from_value(files).unwrap();
    assert!(
        nanotern::formats::ModelFile::from_gguf(&gguf).is_ok() && nanotern::formats::mhc::MhcFile::parse(&mhc).is_ok()
    );
    tab.browser.click("#use");
    tab.set("max_tokens", "8");
    tab.ask("What does ");
    tab.wait_for_end();
    assert!(!tab.answer().is_empty());
    tab.no_errors();
}

#[test]
fn light_dark_and_small() {
    let Some(tab) = Tab::page(NO_WEBGPU) else { return };
    for (name, width, height, scheme) in [
        ("desktop_light", 1200, 900, "light"),
        ("desktop_dark", 1200, 900, "dark"),
        ("phone_light", 360, 740, "light"),
        ("phone_dark", 360, 740, "dark"),
    ] {
        tab.browser.emulate(width, height, scheme);
        tab.show();
        tab.looks_well(&format!("web_{name}_start"));
        tab.load_default();
        tab.set("max_tokens", "40");
        tab.ask("What can you do?");
        tab.wait_for_end();
        tab.looks_well(&format!("web_{name}_chat"));
        tab.browser.click("#toggle");
        tab.looks_well(&format!("web_{name}_settings"));
        tab.browser.click("#toggle");
        tab.browser.click("#to-train");
        for (field, value) in [("dim", "64"), ("layers", "1"), ("total_steps", "60")] {
            tab.set(field, value);
        }
        tab.looks_well(&format!("web_{name}_before"));
        tab.browser.click("#start");
        wait_for_step(&tab, 20);
        tab.looks_well(&format!("web_{name}_train"));
        tab.browser.wait_for("document.getElementById('training').innerText.startsWith('Done')");
        tab.browser.eval("document.getElementById('views').scrollIntoView()");
        tab.looks_well(&format!("web_{name}_done"));
        tab.browser.eval("const { Nanotern } = await import('/nanotern.js'); const n = await Nanotern.open(); await n.clearCache(); n.close(); localStorage.clear()");
    }
    tab.no_errors();
}

impl Tab {
    /// Checks that nothing scrolls sideways and every text has contrast.
    fn looks_well(&self, name: &str) {
        self.browser.picture(name);
        let wide = "return [document.documentElement, ...document.querySelectorAll('section, main, form')] \
                    .filter(e => e.scrollWidth > e.clientWidth + 1 && e.checkVisibility()).map(e => e.id || e.tagName)";
        assert_eq!(self.browser.eval(wide), json!([]), "{name} scrolls sideways");
        let least = self.browser.least_contrast();
        assert!(least[0].as_f64().unwrap() >= 4.5, "{name}: contrast {least}");
    }
}

/// Presses Tab until the control `id` has the focus.
fn tab_to(tab: &Tab, id: &str) {
    for _ in 0..40 {
        if tab.browser.eval("return document.activeElement.id || document.activeElement.name") == id {
            let ring =
                "const e = document.activeElement; return getComputedStyle(e).outlineStyle != 'none' || e.id == 'text'";
            assert_eq!(tab.browser.eval(ring), Value::Bool(true), "{id} shows no focus");
            return;
        }
        tab.browser.keys(TAB);
    }
    panic!("{id} cannot be reached by keyboard");
}

#[test]
fn the_keyboard_is_enough() {
    let Some(tab) = Tab::page(NO_WEBGPU) else { return };
    tab_to(&tab, "default");
    tab.browser.keys(ENTER);
    tab.wait_for_model();
    tab.set("max_tokens", "4000");
    tab_to(&tab, "text");
    tab.browser.keys(&format!("hello{ENTER}"));
    tab.browser.wait_for("document.querySelector('.running .body')?.textContent.length > 2");
    tab.browser.keys(ESCAPE);
    tab.wait_for_end();
    tab.browser.eval("document.activeElement.blur()");
    tab_to(&tab, "to-train");
    tab.browser.keys(ENTER);
    for id in ["text", "dim", "layers", "total_steps", "start"] {
        tab_to(&tab, id);
    }
    tab.browser.keys(ENTER);
    wait_for_step(&tab, 2);
    tab_to(&tab, "pause");
    tab.browser.keys(ENTER);
    tab.browser.wait_for("document.getElementById('training').innerText.startsWith('Paused')");
    tab_to(&tab, "end");
    tab.browser.keys(ENTER);
    tab.browser.wait_for("!document.getElementById('start').hidden");
    tab.no_errors();
}
