//! A headless Chromium, driven through chromedriver (WebDriver and its vendor commands). Tests wait for conditions, never for
//! a fixed time. Dropping the browser ends its processes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Flags of every session: no window, no sandbox (root has none), and no network traffic of the browser itself.
const FLAGS: [&str; 7] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];
/// Time in which a condition must hold: much more than it takes on a busy machine where a program compiles shaders for software.
const PATIENCE: Duration = Duration::from_secs(180);

pub const TAB: &str = "\u{e004}";
pub const ENTER: &str = "\u{e007}";
/// Holds the shift key for the keys after it.
pub const SHIFT: &str = "\u{e008}";
pub const ESCAPE: &str = "\u{e00c}";
/// Holds the control key for the keys after it.
pub const CONTROL: &str = "\u{e009}";
/// Lets go of every key that is held.
pub const RELEASE: &str = "\u{e000}";
pub const BACKSPACE: &str = "\u{e003}";

/// The least contrast of a text with its background, by WCAG, and its element.
const CONTRAST: &str = "
    const rgb = (c) => c.match(/[\\d.]+/g).map(Number);
    const light = (c) => { const [r, g, b] = rgb(c).slice(0, 3).map(v => v / 255)
        .map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
    const behind = (e) => { for (; e; e = e.parentElement) {
        const c = getComputedStyle(e).backgroundColor; if (rgb(c)[3] !== 0) return c; } return 'rgb(255, 255, 255)'; };
    const shown = [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() &&
        [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()));
    const all = shown.map(e => { const [a, b] = [getComputedStyle(e).color, behind(e)].map(light).sort((x, y) => y - x);
        return [(a + .05) / (b + .05), `${e.tagName} ${e.className} ${e.id}`]; });
    return all.sort((x, y) => x[0] - y[0])[0];";

pub struct Browser {
    agent: ureq::Agent,
    /// The session's address.
    session: String,
    driver: Child,
    /// Kept open: chromedriver ends when it cannot write a line.
    _says: BufReader<ChildStdout>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser with further flags. Without a chromedriver this prints a line and returns None; with
    /// NANOTERN_REQUIRE_BROWSER=1 it fails.
    pub fn open(flags: &[&str]) -> Option<Browser> {
        let Some((driver, says, port)) = start_driver() else {
            assert!(
                std::env::var("NANOTERN_REQUIRE_BROWSER").as_deref() != Ok("1"),
                "no chromedriver, and one is required"
            );
            // Not captured, so that it is seen even if the test passes.
            let _ = writeln!(std::io::stderr(), "NOT TESTED in a browser: this machine has no chromedriver");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let own = format!("--user-data-dir={}", profile.path().display());
        let args: Vec<&str> = FLAGS.into_iter().chain([own.as_str()]).chain(flags.iter().copied()).collect();
        let capabilities = json!({"goog:chromeOptions": {"args": args}, "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": PATIENCE.as_millis() as u64}});
        let agent = ureq::Agent::config_builder().http_status_as_error(false).proxy(None).build().new_agent();
        let sessions = format!("http://127.0.0.1:{port}/session");
        let opened = ask(&agent, &sessions, json!({"capabilities": {"alwaysMatch": capabilities}})).expect("a session");
        let session = format!("{sessions}/{}", opened["sessionId"].as_str().unwrap());
        Some(Browser { agent, session, driver, _says: says, _profile: profile })
    }

    pub fn goto(&self, url: &str) {
        self.command("url", json!({"url": url}));
    }

    pub fn reload(&self) {
        self.command("refresh", json!({}));
    }

    /// Runs the body of an async function and returns its value.
    pub fn eval(&self, body: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; (async () => {{ {body} }})().then(value => done({{value: value ?? null}}), \
             error => done({{error: String(error?.stack ?? error)}}));"
        );
        let mut result = self.command("execute/async", json!({"script": script, "args": []}));
        assert!(result["error"].is_null(), "{body}: {}", result["error"]);
        result["value"].take()
    }

    /// Waits until an expression is true.
    pub fn wait_for(&self, expression: &str) {
        let begun = Instant::now();
        while self.eval(&format!("return Boolean({expression})")) != true {
            if begun.elapsed() > PATIENCE {
                panic!("never true: {expression}\n{}", self.eval("return document.body.innerText"));
            }
        }
    }

    /// Types on the element that has the focus.
    pub fn keys(&self, keys: &str) {
        let focus = ask_get(&self.agent, &format!("{}/element/active", self.session)).unwrap();
        self.element(&focus, "the focus", "value", json!({"text": keys}));
    }

    /// Types on the element of a selector. An input for files takes the name of a file.
    pub fn keys_to(&self, selector: &str, keys: &str) {
        self.element(&self.find(selector), selector, "value", json!({"text": keys}));
    }

    pub fn click(&self, selector: &str) {
        self.element(&self.find(selector), selector, "click", json!({}));
    }

    fn find(&self, selector: &str) -> Value {
        self.command("element", json!({"using": "css selector", "value": selector}))
    }

    /// Runs a command about an element. WebDriver names elements by objects with one member; `name` is for the message.
    fn element(&self, element: &Value, name: &str, command: &str, body: Value) {
        let id = element.as_object().and_then(|e| e.values().next()).and_then(Value::as_str).expect("an element");
        let path = format!("{}/element/{id}/{command}", self.session);
        ask(&self.agent, &path, body).unwrap_or_else(|e| panic!("{command} on {name}: {e}"));
    }

    /// Saves a screenshot if `NANOTERN_SCREENSHOTS` names a folder.
    pub fn picture(&self, name: &str) {
        let Ok(dir) = std::env::var("NANOTERN_SCREENSHOTS") else { return };
        let picture = ask_get(&self.agent, &format!("{}/screenshot", self.session)).unwrap();
        let path = Path::new(&dir).join(format!("{name}.png"));
        std::fs::write(path, STANDARD.decode(picture.as_str().unwrap()).unwrap()).unwrap();
    }

    /// The least contrast of a text on the page, and its element.
    pub fn least_contrast(&self) -> Value {
        self.eval(CONTRAST)
    }

    /// Emulates a screen of this size, and a user who prefers `light` or `dark`.
    pub fn emulate(&self, width: u32, height: u32, scheme: &str) {
        let mobile = width < 600;
        let screen = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.cdp("Emulation.setDeviceMetricsOverride", screen);
        let wish = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.cdp("Emulation.setEmulatedMedia", wish);
    }

    /// Runs a command of the Chrome DevTools Protocol.
    pub fn cdp(&self, command: &str, params: Value) -> Value {
        self.command("goog/cdp/execute", json!({"cmd": command, "params": params}))
    }

    /// The errors on the console since the last call.
    pub fn console_errors(&self) -> Vec<String> {
        let entries = self.command("se/log", json!({"type": "browser"}));
        let errors = entries.as_array().unwrap().iter().filter(|e| e["level"] == "SEVERE");
        errors.map(|e| e["message"].as_str().unwrap().to_string()).collect()
    }

    /// Runs a command of WebDriver or of chromedriver.
    fn command(&self, path: &str, body: Value) -> Value {
        let said = ask(&self.agent, &format!("{}/{path}", self.session), body.clone());
        said.unwrap_or_else(|e| panic!("{path} {body}: {e}"))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.agent.delete(&self.session).call();
        let _ = kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        let _ = self.driver.wait();
    }
}

/// Starts a chromedriver. Returns it, its output and its port. It chooses a port that is free for IPv6, and ends if that port
/// is not free for IPv4.
fn start_driver() -> Option<(Child, BufReader<ChildStdout>, String)> {
    for _ in 0..5 {
        let mut command = Command::new("chromedriver");
        // A process group of its own, so that the children of chromedriver can be ended with it.
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut driver = command.spawn().ok()?;
        let mut says = BufReader::new(driver.stdout.take().unwrap());
        let port = says.by_ref().lines().map(Result::unwrap).find_map(|line| {
            line.split("successfully on port ").nth(1).map(|port| port.trim_end_matches('.').to_string())
        });
        match port {
            Some(port) => return Some((driver, says, port)),
            None => driver.wait().unwrap(),
        };
    }
    panic!("chromedriver ended five times before it printed its port");
}

/// Sends a command to chromedriver.
fn ask(agent: &ureq::Agent, url: &str, body: Value) -> Result<Value, String> {
    answer(agent.post(url).header("content-type", "application/json").send(body.to_string()))
}

/// As [`ask`], for commands without a body.
fn ask_get(agent: &ureq::Agent, url: &str) -> Result<Value, String> {
    answer(agent.get(url).call())
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Result<Value, String> {
    let mut response = response.map_err(|e| e.to_string())?;
    let text = response.body_mut().with_config().limit(64 << 20).read_to_string().map_err(|e| e.to_string())?;
    let mut json: Value = serde_json::from_str(&text).map_err(|e| format!("{e}: {text}"))?;
    if response.status().is_success() { Ok(json["value"].take()) } else { Err(json["value"]["message"].to_string()) }
}
