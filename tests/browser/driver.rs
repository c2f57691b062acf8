//! A headless Chromium, driven through chromedriver (WebDriver and its vendor commands). Everything waits for a condition,
//! never for a time; dropping the browser ends its processes.

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use url::{ParseError, Url};
use warp::http::Method;

/// Flags of every session: no window, no sandbox (root has none), and nothing that asks the network by itself.
const FLAGS: [&str; 7] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];
/// How long a condition may take to hold on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

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

pub struct Browser {
    runtime: Runtime,
    client: Client,
    driver: Child,
    /// Kept open: chromedriver would not survive a line that nobody takes.
    _says: BufReader<ChildStdout>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts a browser with further flags; None where there is no chromedriver. NANOTERN_REQUIRE_BROWSER=1 makes that a
    /// failure; otherwise it is said.
    pub fn open(flags: &[&str]) -> Option<Browser> {
        let mut command = Command::new("chromedriver");
        // A process group of its own, which ends with everything that chromedriver has started.
        let spawned = command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0).spawn();
        let Ok(mut driver) = spawned else {
            assert!(
                std::env::var("NANOTERN_REQUIRE_BROWSER").as_deref() != Ok("1"),
                "no chromedriver, and one is required"
            );
            // Past the capture of passing tests: it must be seen.
            let _ = writeln!(std::io::stderr(), "NOT TESTED in a browser: this machine has no chromedriver");
            return None;
        };
        let mut says = BufReader::new(driver.stdout.take().unwrap());
        let port = says.by_ref().lines().map(Result::unwrap).find_map(|line| {
            line.split("successfully on port ").nth(1).map(|port| port.trim_end_matches('.').to_string())
        });
        let port = port.expect("chromedriver says its port");
        let profile = tempfile::tempdir().unwrap();
        let own = format!("--user-data-dir={}", profile.path().display());
        let args: Vec<&str> = FLAGS.into_iter().chain([own.as_str()]).chain(flags.iter().copied()).collect();
        let capabilities = json!({"goog:chromeOptions": {"args": args}, "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": PATIENCE.as_millis() as u64}});
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            builder.capabilities(capabilities.as_object().unwrap().clone());
            builder.connect(&format!("http://127.0.0.1:{port}")).await.expect("a session")
        });
        Some(Browser { runtime, client, driver, _says: says, _profile: profile })
    }

    pub fn goto(&self, url: &str) {
        self.runtime.block_on(self.client.goto(url)).unwrap();
    }

    pub fn reload(&self) {
        self.runtime.block_on(self.client.refresh()).unwrap();
    }

    /// The value of the body of an async function.
    pub fn eval(&self, body: &str) -> Value {
        let script = format!(
            "const done = arguments[0]; (async () => {{ {body} }})().then(value => done({{value: value ?? null}}), \
             error => done({{error: String(error?.stack ?? error)}}));"
        );
        let mut result = self.runtime.block_on(self.client.execute_async(&script, Vec::new())).unwrap();
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
        let send = async { self.client.active_element().await?.send_keys(keys).await };
        self.runtime.block_on(send).unwrap();
    }

    /// Types on the element of a selector; on an input for files, chooses one.
    pub fn keys_to(&self, selector: &str, keys: &str) {
        let send = async { self.client.find(Locator::Css(selector)).await?.send_keys(keys).await };
        self.runtime.block_on(send).unwrap();
    }

    pub fn click(&self, selector: &str) {
        let click = async { self.client.find(Locator::Css(selector)).await?.click().await };
        self.runtime.block_on(click).unwrap_or_else(|e| panic!("{selector}: {e}"));
    }

    /// A PNG of what is to be seen.
    pub fn screenshot(&self, path: &Path) {
        std::fs::write(path, self.runtime.block_on(self.client.screenshot()).unwrap()).unwrap();
    }

    /// Makes the page believe in a screen of this size, and in `light` or `dark` as the user's wish.
    pub fn emulate(&self, width: u32, height: u32, scheme: &str) {
        let mobile = width < 600;
        let screen = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.cdp("Emulation.setDeviceMetricsOverride", screen);
        let wish = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.cdp("Emulation.setEmulatedMedia", wish);
    }

    /// A command of the Chrome DevTools Protocol.
    pub fn cdp(&self, command: &str, params: Value) -> Value {
        self.issue(Vendor("goog/cdp/execute", json!({"cmd": command, "params": params})))
    }

    /// What the console has said since the last call that was an error.
    pub fn console_errors(&self) -> Vec<String> {
        let entries = self.issue(Vendor("se/log", json!({"type": "browser"})));
        let errors = entries.as_array().unwrap().iter().filter(|e| e["level"] == "SEVERE");
        errors.map(|e| e["message"].as_str().unwrap().to_string()).collect()
    }

    fn issue(&self, command: Vendor) -> Value {
        self.runtime.block_on(self.client.issue_cmd(command)).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.runtime.block_on(self.client.clone().close());
        let _ = kill_process_group(Pid::from_child(&self.driver), Signal::KILL);
        let _ = self.driver.wait();
    }
}

/// A command that only chromedriver has: its path and body.
#[derive(Debug)]
struct Vendor(&'static str, Value);

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (Method::POST, Some(self.1.to_string()))
    }
}
