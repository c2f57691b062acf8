//! A device that is lost while the server uses it: the library's server, with a client on plain sockets.

use super::common::cli::Project;
use super::common::server::{Server, endless};
use super::common::{has_adapter, scalar};
use nanotern::backend::{Backend, Wgpu};
use nanotern::formats::ModelFile;
use nanotern::infer::EngineOptions;
use nanotern::serve::{self, Options, Recovery, Reopen};
use nanotern::{Error, Result};
use serde_json::{Value, json};
use std::io::Read;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Loses the device that the server uses now.
type Lose = Arc<Mutex<Box<dyn Fn() + Send>>>;

/// A server on a wgpu device, in a thread of this process.
struct Lossy {
    server: Server,
    lose: Lose,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Result<()>>>,
}

impl Drop for Lossy {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let ended = self.thread.take().unwrap().join();
        assert!(std::thread::panicking() || ended.is_ok_and(|result| result.is_ok()), "the server ends in order");
    }
}

fn open(lose: &Lose) -> Result<Backend> {
    let wgpu = Wgpu::open(None)?;
    *lose.lock().unwrap() = Box::new(wgpu.loser());
    Ok(Backend::Wgpu(wgpu))
}

impl Lossy {
    fn start(recovery: impl FnOnce(PathBuf, Lose) -> Recovery) -> Lossy {
        let project = Project::new();
        project.train("run", "--total-steps 1 --seq-len 1024 --batch-size 1 --set train.eval_windows=1");
        project.ok("export --checkpoint run --output small.gguf");
        let (path, lose): (PathBuf, Lose) = (project.path("small.gguf"), Arc::new(Mutex::new(Box::new(|| {}))));
        let file = ModelFile::open(&path).unwrap();
        let listener = serve::listen("127.0.0.1", 0).unwrap();
        let engine = EngineOptions { slots: 2, context: 0 };
        let options = Options { engine, drain: Duration::ZERO, ..Options::default() };
        let backend = open(&lose).unwrap();
        let server =
            serve::Server::new(listener, &file, "small", &backend, recovery(path, lose.clone()), options).unwrap();
        let address = server.address().unwrap().to_string();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || server.run(async move { stopped.await.unwrap_or(()) }));
        let server = Server { running: None, address, project: Rc::new(project) };
        Lossy { server, lose, stop: Some(stop), thread: Some(thread) }
    }

    fn lose(&self) {
        self.lose.lock().unwrap()()
    }

    fn health(&self) -> (u16, Value) {
        let answer = self.server.get("/health");
        (answer.status, answer.json())
    }

    /// Waits until `/health` has this status.
    fn wait_for(&self, status: &str) -> Value {
        let begun = Instant::now();
        loop {
            let (_, health) = self.health();
            if health["status"] == status {
                return health;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "never {status}: {health}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ask(&self) -> super::common::server::Answer {
        self.server.chat(json!({"max_tokens": 5, "logit_bias": endless()}))
    }
}

fn reopen(path: PathBuf, lose: Lose) -> Reopen {
    Box::new(move || Ok((ModelFile::open(&path)?, open(&lose)?)))
}

#[test]
fn a_lost_device_is_opened_again() {
    if !has_adapter() {
        return;
    }
    let lossy = Lossy::start(|path, lose| Recovery { reopen: Some(reopen(path, lose)), fallback: None });
    let text = lossy.ask().content();
    assert_eq!(lossy.health().1["device_losses"], 0);
    // A stream that has begun cannot go on, and says why.
    let mut stream = lossy.server.stream();
    lossy.lose();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(
        rest.contains("the device failed") && rest.contains("\"code\":\"device_lost\"") && rest.contains("[DONE]"),
        "{rest}"
    );
    // The next request gets the answer that it would have had, and so does one that finds the device lost.
    assert_eq!(lossy.ask().content(), text);
    lossy.lose();
    assert_eq!(lossy.ask().content(), text);
    let (status, health) = lossy.health();
    assert_eq!((status, &health["status"], &health["device_losses"]), (200, &json!("ok"), &json!(2)));
    assert_eq!(lossy.server.metric("nanotern_device_losses_total"), 2.0);
    assert_eq!(
        (lossy.server.metric("nanotern_queue_length"), lossy.server.metric("nanotern_sequences_active")),
        (0.0, 0.0)
    );
}

#[test]
fn a_device_that_is_lost_again_and_again_is_given_up() {
    if !has_adapter() {
        return;
    }
    let gone = || -> Reopen { Box::new(|| Err(Error::Device("the card has fallen off the bus".into()))) };
    let lossy = Lossy::start(|_, _| Recovery { reopen: Some(gone()), fallback: None });
    lossy.lose();
    let answer = lossy.ask();
    let message = answer.text();
    assert!(message.contains("given up") && message.contains("fallen off the bus"), "{message}");
    assert_eq!(answer.refused(503, "lost").1, "device_lost");
    assert_eq!(lossy.ask().refused(503, "later").1, "device_lost");
    let (status, health) = lossy.health();
    assert_eq!((status, &health["status"]), (503, &json!("device lost")));
    assert_eq!((lossy.server.metric("nanotern_queue_length"), lossy.server.get("/").status), (0.0, 200));
}

#[test]
fn the_fallback_goes_on() {
    if !has_adapter() {
        return;
    }
    let lossy = Lossy::start(|path, lose| Recovery {
        reopen: Some(reopen(path.clone(), lose)),
        fallback: Some(Box::new(move || Ok((ModelFile::open(&path)?, scalar())))),
    });
    let text = lossy.ask().content();
    for losses in 1..=4 {
        lossy.lose();
        assert_eq!(lossy.ask().content(), text);
        let health = lossy.wait_for("ok");
        assert_eq!(health["device_losses"], losses);
        let on_cpu = health["device"].as_str().unwrap().starts_with("cpu");
        assert_eq!(on_cpu, losses == 4, "{health}");
    }
}
