//! A running `nanotern serve`, and a client over plain sockets.

use super::cli::{Project, Running};
use serde_json::{Value, json};
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// A server for a byte-level model that is hardly trained.
pub struct Server {
    pub running: Option<Running>,
    pub address: String,
    pub project: Rc<Project>,
}

/// A bias against the byte tokenizer's end of document and end of turn, so that the model does not stop by itself.
pub fn endless() -> Value {
    json!({"257": -100, "261": -100})
}

impl Server {
    /// Trains for one step and serves on one CPU thread.
    pub fn start(context: usize, words: &str) -> Server {
        let project = Project::new();
        project.write("text.txt", "some words ".repeat(10_000));
        project.train(
            "runs/small",
            &format!("--total-steps 1 --seq-len {context} --batch-size 1 --set train.eval_windows=1"),
        );
        Server::of(&Rc::new(project), words)
    }

    /// Serves the project's model.
    pub fn of(project: &Rc<Project>, words: &str) -> Server {
        let backend = if words.contains("--backend") { "" } else { "--backend cpu --threads 1" };
        let mut running = project.start(&format!("serve --port 0 {backend} {words}"));
        running.wait_for("http://");
        let address = running.seen.split("http://").nth(1).unwrap().split_whitespace().next().unwrap().to_string();
        Server { running: Some(running), address, project: Rc::clone(project) }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends bytes and reads until the connection ends.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may reject the request and close the connection before everything was written.
        let _ = stream.write_all(bytes);
        Answer::read(stream)
    }

    pub fn get(&self, path: &str) -> Answer {
        self.raw(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes())
    }

    pub fn post(&self, body: &[u8]) -> Answer {
        self.raw(&post(body))
    }

    pub fn chat(&self, fields: Value) -> Answer {
        self.post(request(fields).to_string().as_bytes())
    }

    /// A stream after its first token.
    pub fn stream(&self) -> TcpStream {
        let mut stream = self.connect();
        let body = request(json!({"stream": true, "logit_bias": endless()}));
        stream.write_all(&post(body.to_string().as_bytes())).unwrap();
        let mut seen = Vec::new();
        // The first chunk contains only the role.
        while String::from_utf8_lossy(&seen).matches("\"delta\":{\"content\":").count() < 2 {
            let mut part = [0; 1024];
            let n = stream.read(&mut part).unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend(&part[..n]);
        }
        stream
    }

    pub fn metric(&self, name: &str) -> f64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find(|l| l.split(' ').next() == Some(name)).unwrap_or_else(|| panic!("{name}: {text}"));
        line.split(' ').next_back().unwrap().parse().unwrap()
    }

    pub fn wait_until_idle(&self) {
        let begun = Instant::now();
        while self.metric("nanotern_sequences_active") + self.metric("nanotern_queue_length") > 0.0 {
            assert!(begun.elapsed() < Duration::from_secs(5), "slots are still busy");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }
}

pub fn request(fields: Value) -> Value {
    let mut body = json!({"messages": [{"role": "user", "content": "hi"}], "seed": 7});
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

pub fn post(body: &[u8]) -> Vec<u8> {
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length:";
    [format!("{head} {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

pub struct Answer {
    pub status: u16,
    /// The header lines, in lower case.
    pub head: String,
    body: Vec<u8>,
}

impl Answer {
    pub fn read(mut stream: TcpStream) -> Answer {
        let mut bytes = Vec::new();
        match stream.read_to_end(&mut bytes) {
            Err(e) if e.kind() != ErrorKind::ConnectionReset => panic!("{e}"),
            _ => {}
        }
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no answer: {bytes:?}"));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let chunked = head.contains("transfer-encoding: chunked");
        let body = if chunked { unchunk(&bytes[end + 4..]) } else { bytes[end + 4..].to_vec() };
        Answer { status, head, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn content(&self) -> String {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()["choices"][0]["message"]["content"].as_str().unwrap().to_string()
    }

    /// The chunks of a stream, which must end with `[DONE]`.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text());
        let text = self.text();
        // OpenAI's events begin so, and so the simplest clients read them.
        let lines = text.lines().filter(|l| !l.is_empty() && !l.starts_with(':'));
        let mut data: Vec<&str> = lines.map(|l| l.strip_prefix("data: ").expect(l)).collect();
        assert_eq!(data.pop(), Some("[DONE]"));
        data.into_iter().map(|d| serde_json::from_str(d).unwrap()).collect()
    }

    /// An error body: (param, code).
    pub fn refused(&self, status: u16, case: &str) -> (Value, Value) {
        assert_eq!(self.status, status, "{case}: {}", self.text());
        let body = self.json();
        let error = body["error"].as_object().unwrap();
        let keys: Vec<&str> = error.keys().map(String::as_str).collect();
        assert_eq!(keys, ["code", "message", "param", "type"], "{case}");
        assert!(error["message"].is_string() && error["type"].is_string(), "{case}");
        (error["param"].clone(), error["code"].clone())
    }
}

fn unchunk(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..line]).unwrap(), 16).unwrap();
        let Some(part) = rest.get(line + 2..line + 2 + size) else { break };
        body.extend(part);
        rest = rest.get(line + 4 + size..).unwrap_or_default();
    }
    body
}
