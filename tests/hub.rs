//! Models of Hugging Face's hub: a server of this test stands for it. None of this asks the real one.
#![cfg(all(feature = "cli", unix))]

mod common;

use common::cli::{Ended, Project};
use serde_json::{Value, json};
use sha1::Digest;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "a-secret";

/// A request: its path, the range, and whether it has the token.
type Request = (String, Option<u64>, bool);

/// A hub with one model, `me/tiny`, whose files lie on another host.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

/// How the server misbehaves.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// Each first answer with a file breaks off in its middle.
    BreaksOff,
    /// A byte of each file is another one.
    Damages,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, b| {
        write!(text, "{b:02x}").unwrap();
        text
    })
}

/// The hash of a small file, as git has it.
fn blob(bytes: &[u8]) -> String {
    hex(&sha1::Sha1::new().chain_update(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

/// The answer about the model.
fn about(files: &BTreeMap<String, Vec<u8>>) -> Value {
    let file = |(name, bytes): (&String, &Vec<u8>)| {
        let mut file = json!({"rfilename": name, "size": bytes.len(), "blobId": blob(bytes)});
        if name.ends_with(".gguf") || name.ends_with(".safetensors") {
            file["lfs"] = json!({"sha256": hex(&sha2::Sha256::digest(bytes)), "size": bytes.len()});
        }
        file
    };
    json!({"sha": COMMIT, "siblings": files.iter().map(file).collect::<Vec<_>>()})
}

impl Server {
    fn start(files: BTreeMap<String, Vec<u8>>, fault: Fault) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        std::thread::spawn(move || {
            let mut broken = Vec::new();
            for stream in listener.incoming() {
                answer(stream.unwrap(), port, &files, fault, &log, &mut broken);
            }
        });
        Server { port, seen }
    }

    /// The paths of all requests so far.
    fn paths(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(path, ..)| path.clone()).collect()
    }
}

fn answer(
    mut stream: TcpStream,
    port: u16,
    files: &BTreeMap<String, Vec<u8>>,
    fault: Fault,
    log: &Mutex<Vec<Request>>,
    broken: &mut Vec<String>,
) {
    let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)).map(String::from) else { return };
    let field = |name: &str| lines.iter().find_map(|line| line.to_lowercase().strip_prefix(name).map(String::from));
    let range = field("range: bytes=").and_then(|range| range.trim_end_matches('-').parse::<u64>().ok());
    let token = field("authorization:").is_some_and(|value| value.contains(TOKEN));
    log.lock().unwrap().push((path.clone(), range, token));
    let mut reply = |head: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n");
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    };
    if path == "/api/models/me/tiny/revision/main?blobs=true" {
        let body = about(files).to_string();
        return reply(&format!("200 OK\r\nContent-Length: {}", body.len()), body.as_bytes());
    }
    if let Some(name) = path.strip_prefix(&format!("/me/tiny/resolve/{COMMIT}/")) {
        return reply(&format!("302 Found\r\nContent-Length: 0\r\nLocation: http://localhost:{port}/cdn/{name}"), b"");
    }
    let Some((name, bytes)) = path.strip_prefix("/cdn/").and_then(|name| files.get_key_value(name)) else {
        return reply("404 Not Found\r\nContent-Length: 0", b"");
    };
    let mut bytes = bytes[range.unwrap_or(0) as usize..].to_vec();
    let head = format!("206 Partial Content\r\nContent-Length: {}", bytes.len());
    if fault == Fault::BreaksOff && !broken.contains(name) {
        broken.push(name.clone());
        bytes.truncate(bytes.len() / 2);
    }
    if fault == Fault::Damages {
        *bytes.last_mut().unwrap() ^= 1;
    }
    reply(&head, &bytes);
}

/// A project with a model, and `nanotern` with a hub and an empty cache.
fn project() -> (Project, Vec<u8>) {
    let project = Project::new();
    project.ok("train --backend cpu --config config.toml --total-steps 1 --checkpoint-dir run");
    project.ok("export --checkpoint run --output model.gguf");
    let model = project.read("model.gguf");
    (project, model)
}

fn ask(project: &Project, port: u16, words: &str, more: &[(&str, &str)]) -> Ended {
    let mut command = project.command(words);
    command.env("HF_ENDPOINT", format!("http://127.0.0.1:{port}")).env("HF_HOME", project.path("hf"));
    command.env("HOME", project.path("home")).env("HF_TOKEN", TOKEN).env("NO_PROXY", "*");
    for name in ["HF_HUB_CACHE", "HF_HUB_OFFLINE", "LLAMA_CACHE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
    {
        command.env_remove(name);
    }
    let out = command.envs(more.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) }
}

fn files(list: &[(&str, &[u8])]) -> BTreeMap<String, Vec<u8>> {
    list.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect()
}

const CACHE: &str = "hf/hub/models--me--tiny";

#[test]
fn a_model_is_downloaded_once_into_the_cache_of_others() {
    let (project, model) = project();
    let server = Server::start(files(&[("deep/tiny.gguf", &model), ("README.md", b"words")]), Fault::BreaksOff);
    let generate = "generate --backend cpu --prompt a --max-tokens 3 --temperature 0 --model";
    let want = project.ok(&format!("{generate} model.gguf"));
    for name in ["hf:me/tiny", "hf:me/tiny:deep/tiny.gguf", "hf:me/tiny@main"] {
        let ended = ask(&project, server.port, &format!("{generate} {name}"), &[]);
        assert_eq!((ended.code, &ended.stdout), (Some(0), &want), "{}", ended.stderr);
    }
    let seen = server.seen.lock().unwrap().clone();
    // Every file once, and what broke off from where it did. Only the hub sees the token.
    let ranges: Vec<u64> =
        seen.iter().filter(|(path, ..)| path.starts_with("/cdn/")).filter_map(|(_, from, _)| *from).collect();
    assert_eq!(ranges, [0, model.len() as u64 / 2], "{seen:?}");
    assert!(seen.iter().all(|(path, _, token)| *token != path.starts_with("/cdn/")), "{seen:?}");
    let file = project.path(CACHE).join("snapshots").join(COMMIT).join("deep/tiny.gguf");
    let link = std::fs::read_link(&file).unwrap();
    let sum = hex(&sha2::Sha256::digest(&model));
    assert_eq!(link, std::path::Path::new("../../../blobs").join(sum));
    assert_eq!(std::fs::read(&file).unwrap(), model);
    assert_eq!(project.read(&format!("{CACHE}/refs/main")), COMMIT.as_bytes());

    // Without the hub the cache suffices, and it is said.
    for more in [("HF_HUB_OFFLINE", "1"), ("HF_ENDPOINT", "http://127.0.0.1:9")] {
        let ended = ask(&project, server.port, &format!("{generate} hf:me/tiny"), &[more]);
        assert_eq!((ended.code, &ended.stdout), (Some(0), &want), "{}", ended.stderr);
        assert!(ended.stderr.contains("from the cache"), "{}", ended.stderr);
    }
    assert_eq!(server.paths().len(), seen.len());
}

#[test]
fn a_folder_of_the_hub_is_what_it_is_read_with() {
    let (project, model) = project();
    let list: [(&str, &[u8]); 5] = [
        ("config.json", br#"{"architectures": ["Unknown"]}"#),
        ("model.safetensors", &[2, 0, 0, 0, 0, 0, 0, 0, b'{', b'}']),
        ("tokenizer.json", b"{}"),
        ("original/model.safetensors", b"too much"),
        ("tiny.gguf", &model),
    ];
    let server = Server::start(files(&list), Fault::None);
    let ended = ask(&project, server.port, "inspect hf:me/tiny", &[]);
    assert!(ended.stdout.contains("Unknown"), "{}{}", ended.stdout, ended.stderr);
    let fetched: Vec<String> =
        server.paths().into_iter().filter_map(|p| p.strip_prefix("/cdn/").map(String::from)).collect();
    assert_eq!(fetched, ["config.json", "model.safetensors", "tokenizer.json"]);
    let listed = ask(&project, server.port, "models --json", &[]);
    let lines: Vec<Value> = listed.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!((&line["name"], &line["runs"]), (&json!("hf:me/tiny"), &json!(false)));
    assert!(line["why"].as_str().unwrap().contains("Unknown"), "{line}");
}

#[test]
fn what_the_hub_does_not_give_is_said() {
    let (project, model) = project();
    let two = Server::start(files(&[("a.gguf", &model), ("b.gguf", &model)]), Fault::None);
    let damaged = Server::start(files(&[("a.gguf", &model)]), Fault::Damages);
    for (port, name, more, said) in [
        (two.port, "hf:me/tiny", ("X", ""), "a.gguf, b.gguf"),
        (two.port, "hf:me/tiny:c.gguf", ("X", ""), "has no file \"c.gguf\""),
        (two.port, "hf:me/other", ("X", ""), "answers 404"),
        (two.port, "hf:me/../x", ("X", ""), "hf:owner/name"),
        (two.port, "hf:me/tiny:../../x", ("X", ""), "hf:owner/name"),
        (two.port, "hf:tiny", ("X", ""), "hf:owner/name"),
        (damaged.port, "hf:me/tiny", ("X", ""), "it was deleted"),
        (two.port, "hf:me/tiny", ("HF_HUB_OFFLINE", "1"), "does not have it"),
        (9, "hf:me/tiny", ("X", ""), "does not have it"),
    ] {
        let ended = ask(&project, port, &format!("inspect {name}"), &[more]);
        assert!(ended.code.is_some_and(|code| code > 0) && ended.stderr.contains(said), "{name}: {}", ended.stderr);
    }
    assert!(!project.path(CACHE).join("refs").exists(), "nothing is complete");
    let blobs = std::fs::read_dir(project.path(CACHE).join("blobs")).unwrap();
    assert_eq!(blobs.count(), 0, "nothing damaged is kept");
}

#[test]
fn models_of_other_programs_are_listed() {
    let (project, model) = project();
    for dir in ["home/.lmstudio/models/me/one", "home/.cache/llama.cpp"] {
        std::fs::create_dir_all(project.path(dir)).unwrap();
    }
    project.write("home/.lmstudio/models/me/one/one.gguf", &model);
    project.write("home/.cache/llama.cpp/two.gguf", &model[..100]);
    let said = ask(&project, 9, "models", &[]).stdout;
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() == 4 && lines[0].ends_with("one.gguf") && lines[2].ends_with("two.gguf"), "{said}");
    assert!(lines[1].contains("LM Studio; runs: 0.0 M") && lines[3].contains("llama.cpp; does not run:"), "{said}");
}
