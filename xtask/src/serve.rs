//! A server of static files that only this machine can reach. Its headers isolate the page.

use super::Result;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Limit of the bytes of a request's head.
const MAX_HEAD: u64 = 16 << 10;

/// Listens on a port of this machine; 0 chooses a free one.
pub fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind(("127.0.0.1", port)).map_err(|e| format!("127.0.0.1:{port}: {e} (`--port 0` chooses a free one)"))
}

/// Serves a folder until the process ends.
pub fn serve(listener: &TcpListener, dir: &Path) -> Result {
    println!("\nhttp://{}/ (until Ctrl-C)", listener.local_addr().map_err(|e| e.to_string())?);
    for stream in listener.incoming().flatten() {
        let dir = dir.to_path_buf();
        // A browser may close the connection at any time.
        std::thread::spawn(move || answer(stream, &dir));
    }
    Ok(())
}

fn answer(mut stream: TcpStream, dir: &Path) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut head = BufReader::new(stream.try_clone()?).take(MAX_HEAD);
    let mut request = String::new();
    head.read_line(&mut request)?;
    let mut line = String::new();
    while head.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let found = file(dir, path).and_then(|file| Some((mime(&file), fs::read(file).ok()?)));
    let (status, mime, body) = match found {
        _ if !["GET", "HEAD"].contains(&method) => ("405 Method Not Allowed", "text/plain", b"GET or HEAD\n".to_vec()),
        Some((mime, body)) => ("200 OK", mime, body),
        None => ("404 Not Found", "text/plain", b"not found\n".to_vec()),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: {mime}\r\ncontent-length: {}\r\ncache-control: no-store\r\n\
         cross-origin-opener-policy: same-origin\r\ncross-origin-embedder-policy: require-corp\r\n\
         x-content-type-options: nosniff\r\nallow: GET, HEAD\r\nconnection: close\r\n\r\n",
        body.len()
    )?;
    if method == "HEAD" { Ok(()) } else { stream.write_all(&body) }
}

/// The file for a path, if it is directly in the folder.
fn file(dir: &Path, path: &str) -> Option<PathBuf> {
    let name = path.split(['?', '#']).next()?.strip_prefix('/')?;
    let name = if name.is_empty() { "index.html" } else { name };
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) && !name.starts_with('.');
    plain.then(|| dir.join(name))
}

fn mime(file: &Path) -> &'static str {
    match file.extension().and_then(|e| e.to_str()) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("wasm") => "application/wasm",
        Some("svg") => "image/svg+xml",
        Some("json") => "application/json",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves a folder with a page and a module. Outside the folder there is a file that nobody may read.
    fn start(name: &str) -> std::net::SocketAddr {
        let outer = std::env::temp_dir().join(format!("nanotern-serve-{name}-{}", std::process::id()));
        let dir = outer.join("web");
        fs::create_dir_all(&dir).unwrap();
        fs::write(outer.join("secret"), "secret").unwrap();
        for (name, text) in [("index.html", "<p>"), ("a_bg.wasm", "\0asm"), ("model.gguf", "GGUF"), (".hidden", "no")] {
            fs::write(dir.join(name), text).unwrap();
        }
        let listener = listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener, &dir));
        address
    }

    /// Head and body of the answer to a request.
    fn ask(address: std::net::SocketAddr, request: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "{request} HTTP/1.1\r\nhost: x\r\naccept: */*\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_string(), body.to_string())
    }

    #[test]
    fn files_come_with_type_length_and_isolation() {
        let address = start("files");
        let wanted = [
            ("/", "text/html; charset=utf-8", "<p>"),
            ("/index.html?backend=cpu", "text/html; charset=utf-8", "<p>"),
            ("/a_bg.wasm", "application/wasm", "\0asm"),
            ("/model.gguf", "application/octet-stream", "GGUF"),
        ];
        for (path, mime, text) in wanted {
            let (head, body) = ask(address, &format!("GET {path}"));
            assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{path}: {head}");
            let lines: Vec<&str> = head.lines().collect();
            for line in [
                &*format!("content-type: {mime}"),
                &*format!("content-length: {}", text.len()),
                "cross-origin-opener-policy: same-origin",
                "cross-origin-embedder-policy: require-corp",
            ] {
                assert!(lines.contains(&line), "{path}: no {line:?} in {head}");
            }
            assert_eq!(body, text, "{path}");
            assert_eq!(ask(address, &format!("HEAD {path}")), (head, String::new()), "{path}");
        }
    }

    #[test]
    fn nothing_else_is_served() {
        let address = start("else");
        let paths =
            ["/none", "/../secret", "/%2e%2e/secret", "/..", "/.hidden", "//etc/passwd", "secret", "/web/..\\secret"];
        for path in paths {
            let (head, body) = ask(address, &format!("GET {path}"));
            assert!(head.starts_with("HTTP/1.1 404 ") && body == "not found\n", "{path}: {head}");
        }
        assert!(ask(address, "POST /").0.starts_with("HTTP/1.1 405 "));
        assert!(ask(address, "").0.starts_with("HTTP/1.1 405 "));
        let long = ask(address, &format!("GET /{}", "a".repeat(8000))).0;
        assert!(long.starts_with("HTTP/1.1 404 "), "{long}");
    }
}
