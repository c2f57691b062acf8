//! The look of the page: light, dark, on a phone, and with hostile Markdown. `NANOTERN_SCREENSHOTS=DIR` saves pictures.

use super::Page;
use serde_json::{Value, json};

const MARKDOWN: &str = "## A heading\n\nSome **bold**, *slanted* and `code <b>` words, snake_case and 2 * 3 * 4.\nA second line.\n\n\
    1. first\n2. second\n   - inner **one**\n   - two\n\n```rust\nfn main() {\n    println!(\"<script>alert(1)</script>\");\n}\n```\n\
    After <img src=x onerror=\"window.harm=1\"> [a link](javascript:window.harm=1) <script>window.harm=1</script>\n\n\
    ````\nnot closed ``` yet";

impl Page {
    /// Shows a conversation that the browser has kept.
    fn show(&self, messages: Value) {
        let kept = messages.to_string();
        self.browser.eval(&format!("localStorage.setItem('nanotern.chat', JSON.stringify({kept}))"));
        self.browser.reload();
        self.browser.wait_for("document.title.startsWith('small')");
    }

    fn show_settings(&self, yes: bool) {
        self.browser.eval(&format!("const {{ showSettings }} = await import('/settings.js'); showSettings({yes})"));
    }
}

#[test]
fn markdown_is_drawn_and_stays_text() {
    let Some(page) = Page::open() else { return };
    page.show(json!([{"role": "user", "content": MARKDOWN}, {"role": "assistant", "content": MARKDOWN}]));
    let tags = page
        .browser
        .eval("return [...document.querySelectorAll('.assistant .body *')].map(e => e.tagName.toLowerCase())");
    let want = "h3 p strong em code ol li li ul li strong li pre code p pre code";
    assert_eq!(tags, json!(want.split(' ').collect::<Vec<_>>()));
    let code = page.browser.eval("return [...document.querySelectorAll('.assistant pre')].map(e => e.textContent)");
    assert_eq!(code, json!(["fn main() {\n    println!(\"<script>alert(1)</script>\");\n}", "not closed ``` yet"]));
    assert_eq!(page.browser.eval("return document.querySelectorAll('.user .body *').length"), 0);
    assert_eq!(page.browser.eval("return document.querySelector('.user .body').textContent"), MARKDOWN);
    // Deep, unclosed and long texts neither take long nor throw.
    let odd = ["*", "**", "`", "- ", "# ", "1. ", "```\n", "  - a\n"].map(|s| s.repeat(5000));
    for text in odd {
        let import = "const { markdown } = await import('/markdown.js')";
        let call = format!("{import}; const f = markdown({}); return f.textContent.length", json!(text));
        assert!(page.browser.eval(&call).is_u64());
    }
    assert!(page.browser.eval("return window.harm").is_null());
    page.no_errors();
}

#[test]
fn light_dark_and_small() {
    let Some(page) = Page::open() else { return };
    let word = "Donaudampfschifffahrtsgesellschaft".repeat(9);
    page.show(json!([{"role": "user", "content": "What can you do?"},
        {"role": "assistant", "content": MARKDOWN.replace("inner", &word), "speed": "412.0 tok/s, first token after 9 ms"},
        {"role": "user", "content": word}, {"role": "assistant", "content": "", "note": "The server is shutting down."}]));
    let mut backs = Vec::new();
    for (name, width, height, scheme) in [
        ("desktop_light", 1200, 800, "light"),
        ("desktop_dark", 1200, 800, "dark"),
        ("phone_light", 360, 740, "light"),
        ("phone_dark", 360, 740, "dark"),
    ] {
        page.browser.emulate(width, height, scheme);
        page.browser
            .wait_for(&format!("matchMedia('(prefers-color-scheme: {scheme})').matches && innerWidth == {width}"));
        for settings in [false, true] {
            page.show_settings(settings);
            page.browser.eval("document.getElementById('log').scrollTop = 0");
            let scrolls = page.browser.eval(
                "return [document.documentElement, document.getElementById('log'), document.getElementById('settings')] \
                 .filter(e => e.scrollWidth > e.clientWidth).map(e => e.tagName)",
            );
            assert_eq!(scrolls, json!([]), "{name} scrolls sideways");
            let least = page.browser.least_contrast();
            assert!(least[0].as_f64().unwrap() >= 4.5, "{name}: contrast {least}");
            page.browser.picture(&format!("{name}{}", if settings { "_settings" } else { "" }));
        }
        page.show_settings(false);
        page.browser.eval("document.getElementById('log').scrollTop = 1e6");
        page.browser.picture(&format!("{name}_end"));
        backs.push(page.browser.eval("return getComputedStyle(document.body).backgroundColor"));
        let send = page.browser.eval("const r = document.getElementById('send').getBoundingClientRect(); return r.right <= innerWidth && r.bottom <= innerHeight");
        assert_eq!(send, true, "{name}");
    }
    assert!(backs[0] != backs[1] && backs[0] == backs[2] && backs[1] == backs[3], "{backs:?}");
    page.browser.click("#new");
    page.browser.picture("phone_dark_empty");
    page.browser.emulate(1200, 800, "light");
    page.browser.picture("desktop_light_empty");
    page.no_errors();
}
