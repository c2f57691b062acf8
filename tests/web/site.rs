//! The server of the page. It serves the folder of the demo, and further files of a test, whole or broken.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// A file of a test.
#[derive(Clone)]
struct File {
    bytes: Arc<Vec<u8>>,
    /// The length in the header of the response.
    claimed: usize,
    /// Whether the connection stays open after the last byte.
    slow: bool,
}

#[derive(Default)]
struct State {
    dir: PathBuf,
    files: HashMap<String, File>,
    /// `METHOD /path` of each request.
    asked: Vec<String>,
    offline: bool,
}

pub struct Site {
    pub address: String,
    state: Arc<Mutex<State>>,
}

impl Site {
    pub fn new(dir: PathBuf) -> Site {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State { dir, ..State::default() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                // A browser may close the connection at any time.
                std::thread::spawn(move || answer(stream, &state));
            }
        });
        let site = Site { address, state };
        site.put("blank.html", b"<!doctype html><title>blank</title><link rel=icon href=data:,>".to_vec());
        site
    }

    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let claimed = bytes.len();
        self.put_cut(name, bytes, claimed);
    }

    /// Adds a file that ends before its claimed length.
    pub fn put_cut(&self, name: &str, bytes: Vec<u8>, claimed: usize) {
        self.put_file(name, File { bytes: Arc::new(bytes), claimed, slow: false });
    }

    /// Adds a file whose end never arrives.
    pub fn put_slow(&self, name: &str, bytes: Vec<u8>, claimed: usize) {
        self.put_file(name, File { bytes: Arc::new(bytes), claimed, slow: true });
    }

    fn put_file(&self, name: &str, file: File) {
        self.state.lock().unwrap().files.insert(format!("/{name}"), file);
    }

    /// Closes all further connections without an answer.
    pub fn go_offline(&self) {
        self.state.lock().unwrap().offline = true;
    }

    /// The paths of all GET requests.
    pub fn fetched(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.asked.iter().filter_map(|asked| asked.strip_prefix("GET ").map(String::from)).collect()
    }

    /// The number of requests such as `GET /model.gguf`.
    pub fn asked(&self, what: &str) -> usize {
        self.state.lock().unwrap().asked.iter().filter(|a| *a == what).count()
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let Some(request) = lines.next().transpose()? else { return Ok(()) };
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or("").split('?').next().unwrap_or(""));
    let found = {
        let mut state = state.lock().unwrap();
        state.asked.push(format!("{method} {path}"));
        if state.offline {
            return Ok(());
        }
        let name = if path == "/" { "/index.html" } else { path };
        let built = || std::fs::read(state.dir.join(name.trim_start_matches('/'))).ok();
        let built = || built().map(|bytes| File { claimed: bytes.len(), bytes: Arc::new(bytes), slow: false });
        state.files.get(name).cloned().or_else(built).map(|file| (mime(name), file))
    };
    let Some((mime, file)) = found else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    };
    let length = file.claimed;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: {mime}\r\ncontent-length: {length}\r\ncache-control: no-store\r\n\
         cross-origin-opener-policy: same-origin\r\ncross-origin-embedder-policy: require-corp\r\n\
         connection: close\r\n\r\n"
    )?;
    if method == "GET" {
        stream.write_all(&file.bytes)?;
    }
    // A browser that gives up closes the connection.
    if file.slow { stream.read_to_end(&mut Vec::new()).map(|_| ()) } else { Ok(()) }
}

fn mime(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        _ => "application/octet-stream",
    }
}
