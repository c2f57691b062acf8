//! The chat page in use: a headless Chromium on the page of a real `nanotern serve`.
#![cfg(all(feature = "cli", unix))]

#[path = "../common/mod.rs"]
mod common;
mod driver;
mod list;
mod looks;

use common::cli::Project;
use common::sampling::{FIELDS, fields};
use common::server::Server;
use driver::{BACKSPACE, Browser, CONTROL, ENTER, ESCAPE, RELEASE, SHIFT, TAB};
use list::endless_list;
use nanotern::formats::Format;
use serde_json::{Value, json};
use std::rc::Rc;

/// A server and a browser that shows its page.
struct Page {
    // Dropped first, because a browser keeps connections open.
    browser: Browser,
    server: Server,
}

impl Page {
    /// The page of a model that answers with an endless list of words.
    fn open() -> Option<Page> {
        let browser = Browser::open(&["--disable-gpu"])?;
        let project = Project::new();
        endless_list(12).save_gguf(&project.path("small.gguf"), Format::Q1_58).unwrap();
        let server = Server::of(&Rc::new(project), "--model small.gguf");
        let page = Page { browser, server };
        page.browser.emulate(1200, 800, "light");
        page.browser.goto(&format!("http://{}/", page.server.address));
        page.browser.wait_for("document.title.startsWith('small')");
        Some(page)
    }

    /// Types a value into a field of the settings.
    fn set(&self, name: &str, value: impl std::fmt::Display) {
        if self.browser.eval("return document.getElementById('settings').hidden") == true {
            self.browser.click("#toggle");
        }
        self.browser.keys_to(&format!("[name={name}]"), &value.to_string());
    }

    fn ask(&self, text: &str) {
        self.browser.keys_to("#text", &format!("{text}{ENTER}"));
    }

    fn wait_for_end(&self) {
        self.browser.wait_for("!document.getElementById('send').hidden && document.querySelector('.assistant .tools')");
    }

    fn wait_for_text(&self) {
        self.browser.wait_for("document.querySelector('.running .body')?.textContent.length > 2");
    }

    /// (role, text, note) of each message.
    fn messages(&self) -> Vec<[String; 3]> {
        let list = self.browser.eval(
            "return [...document.querySelectorAll('.message')].map(m => [m.classList[1], m.querySelector('.body').innerText, \
             m.querySelector('.note')?.innerText ?? ''])",
        );
        serde_json::from_value(list).unwrap()
    }

    fn status(&self) -> String {
        self.browser.eval("return document.getElementById('status').innerText").as_str().unwrap().to_string()
    }

    /// Records the bodies of requests in `sent`.
    fn record(&self) {
        self.browser.eval(
            "window.sent = []; const real = fetch; \
             window.fetch = (url, o) => { if (o?.body) sent.push(JSON.parse(o.body)); return real(url, o); };",
        );
    }

    fn no_errors(&self) {
        assert_eq!(self.browser.console_errors(), Vec::<String>::new());
    }
}

#[test]
fn answers_stream_stop_and_come_again() {
    let Some(page) = Page::open() else { return };
    page.ask("hi");
    page.wait_for_text();
    assert_eq!(page.browser.eval("return document.getElementById('log').ariaBusy"), "true");
    page.browser.click("#stop");
    page.wait_for_end();
    let stopped = page.messages();
    assert_eq!((stopped[0][1].as_str(), stopped.len(), page.status().as_str()), ("hi", 2, "Stopped."));
    assert!(stopped[1][2].is_empty() && stopped[1][1].contains("word\nword"), "{stopped:?}");
    assert!(page.browser.eval("return document.querySelectorAll('.assistant li').length").as_u64() > Some(0));
    page.server.wait_until_idle();
    page.set("max_tokens", 30);
    page.browser.click(".assistant .tools button[title^='Ask']");
    page.wait_for_end();
    let again = page.messages();
    assert_eq!((again.len(), page.status().as_str()), (2, "Ended at the limit of tokens."));
    assert!(stopped[1][1].starts_with(again[1][1].trim_end()), "{again:?}");
    let speed = page.browser.eval("return document.querySelector('.speed').innerText");
    assert!(speed.as_str().unwrap().contains("tok/s, first token after"), "{speed}");
    page.browser.click(".user .tools button");
    assert_eq!(page.messages().len(), 0);
    page.browser.keys(&format!(" there{ENTER}"));
    page.wait_for_end();
    assert_eq!(page.messages()[0][1], "hi there");
    page.browser.click("#new");
    page.browser.wait_for("document.querySelector('.empty')");
    page.no_errors();
}

#[test]
fn settings_and_conversation_stay_and_reach_the_request() {
    let Some(page) = Page::open() else { return };
    for (name, value) in
        [("temperature", "0.5"), ("top_k", "7"), ("max_tokens", "5"), ("seed", "3"), ("system", "Be brief.")]
    {
        page.set(name, value);
    }
    page.ask("first");
    page.wait_for_end();
    let said = page.messages();
    page.browser.reload();
    page.browser.wait_for("document.title.startsWith('small')");
    assert_eq!(page.messages(), said);
    page.record();
    page.ask("second");
    page.wait_for_end();
    let sent = page.browser.eval("return sent[0]");
    assert_eq!(
        sent,
        json!({"stream": true, "stream_options": {"include_usage": true}, "temperature": 0.5, "top_k": 7,
            "max_tokens": 5, "seed": 3, "messages": [{"role": "system", "content": "Be brief."},
            {"role": "user", "content": "first"}, {"role": "assistant", "content": sent["messages"][2]["content"]},
            {"role": "user", "content": "second"}]})
    );
    page.no_errors();
}

#[test]
fn the_settings_form_has_the_limits_of_the_table() {
    let Some(page) = Page::open() else { return };
    assert_eq!(page.browser.eval(FIELDS), fields("as many as fit"));
    page.set("temperature", "2.5");
    page.browser.click("#toggle");
    page.ask("hi");
    page.browser.wait_for("!settings.hidden && document.activeElement.name == 'temperature'");
    assert_eq!(page.messages(), Vec::<[String; 3]>::new(), "nothing was sent");
    page.no_errors();
}

#[test]
fn a_conversation_goes_to_a_file_and_comes_back() {
    let Some(page) = Page::open() else { return };
    page.set("max_tokens", 4);
    page.set("system", "Be brief.");
    page.ask("first");
    page.wait_for_end();
    let said = page.messages();
    page.browser
        .eval("const real = URL.createObjectURL; URL.createObjectURL = b => { window.saved = b; return real(b); };");
    page.browser.click("#save");
    let saved = page.browser.eval("return await saved.text()").as_str().unwrap().to_string();
    let answered = page.server.post(saved.as_bytes());
    assert_eq!(answered.status, 200, "the file is a request: {saved}");
    page.server.project.write("saved.json", &saved);
    page.server.project.write("wrong.json", r#"{"messages": [{"role": "user", "content": 1}]}"#);
    page.browser.click("#new");
    page.browser.keys_to("[name=system]", "More.");
    let open = |name: &str| page.browser.keys_to("#file", page.server.project.path(name).to_str().unwrap());
    open("saved.json");
    page.browser.wait_for("document.querySelectorAll('.message').length == 2");
    assert_eq!(page.messages(), said);
    assert_eq!(page.browser.eval("return document.querySelector('[name=system]').value"), "Be brief.");
    open("wrong.json");
    page.browser.wait_for("document.getElementById('status').innerText == 'wrong.json holds no conversation.'");
    assert_eq!(page.messages(), said);
    page.no_errors();
}

#[test]
fn the_keyboard_is_enough() {
    let Some(page) = Page::open() else { return };
    page.browser.click("#toggle");
    page.set("max_tokens", 3);
    page.browser.click("#text");
    page.browser.keys(&format!("one{SHIFT}{ENTER}{RELEASE}two{ENTER}"));
    page.wait_for_end();
    assert_eq!(page.messages()[0][1], "one\ntwo");
    page.browser.eval("document.activeElement.blur()");
    let wanted = page.browser.eval(
        "return [...document.querySelectorAll('button, input, textarea')].filter(e => e.checkVisibility()).length",
    );
    let mut reached: Vec<Value> = Vec::new();
    for _ in 0..2 * wanted.as_u64().unwrap() {
        page.browser.keys(TAB);
        let name = page.browser.eval(
            "const e = document.activeElement; const ring = getComputedStyle(e.id == 'text' ? e.form : e); \
             return e == document.body ? null : [e.id || e.name || e.title, ring.outlineStyle, ring.borderColor]",
        );
        if !name.is_null() && !reached.contains(&name) {
            reached.push(name);
        }
    }
    let controls = reached.iter().filter(|r| r[0] != "log").count() as u64;
    assert_eq!(Value::from(controls), wanted, "{reached:?}");
    assert!(reached.iter().all(|r| r[0] == "text" || r[0] == "log" || r[1] != "none"), "no ring: {reached:?}");
    page.browser.keys_to("[name=max_tokens]", &format!("{CONTROL}a{RELEASE}{BACKSPACE}"));
    page.browser.click("#text");
    page.browser.keys(&format!("more{ENTER}"));
    page.wait_for_text();
    page.browser.keys(ESCAPE);
    page.wait_for_end();
    assert_eq!(page.status(), "Stopped.");
    page.browser.keys(ESCAPE);
    assert_eq!(page.browser.eval("return document.activeElement.id + settings.hidden"), "toggletrue");
    page.no_errors();
}

#[test]
fn errors_of_the_server_are_shown_and_no_text_is_lost() {
    let Some(mut page) = Page::open() else { return };
    page.browser.eval("document.getElementById('text').value = 'far too long '.repeat(1400)");
    page.ask("");
    page.wait_for_end();
    assert!(page.messages()[1][2].contains("context of 4096 tokens"), "{:?}", page.messages()[1]);
    page.browser.click("#new");
    page.ask("a question");
    page.wait_for_text();
    page.server.running.take().unwrap().kill();
    page.wait_for_end();
    let lost = page.messages();
    assert_eq!(lost[0][1], "a question");
    assert!(lost[1][1].contains("word") && lost[1][2].contains("connection to the server was lost"), "{lost:?}");
    page.ask("another question");
    page.browser.wait_for("document.querySelectorAll('.note').length == 2 && !document.getElementById('send').hidden");
    assert_eq!(page.messages()[2][1], "another question");
    page.browser.click(".user:nth-last-of-type(2) .tools button");
    assert_eq!(page.browser.eval("return document.getElementById('text').value"), "another question");
    // The browser itself logs failed requests. There must be no other errors.
    let own = page.browser.console_errors().into_iter().filter(|e| !e.contains("/v1/chat/completions"));
    assert_eq!(own.collect::<Vec<_>>(), Vec::<String>::new());
}
