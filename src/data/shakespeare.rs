//! Tiny Shakespeare (Karpathy 2015, public-domain text), downloaded once into the cache folder.

use crate::error::{Error, Result};
use crate::files::{self, Links};
use std::path::{Path, PathBuf};
#[cfg(feature = "download")]
use std::{io::Read, time::Duration};

const URL: &str = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt";
const FILE: &str = "tinyshakespeare.txt";
pub(super) const LENGTH: u64 = 1_115_394;
const CRC32C: u32 = 0xf3bd_3377;

/// The path of the text in `cache_dir`. It is downloaded if missing; its checksum is verified in any case.
pub(super) fn fetch(cache_dir: &Path) -> Result<PathBuf> {
    let path = cache_dir.join(FILE);
    if path.symlink_metadata().is_ok() {
        let bytes = files::read(&path, Links::Follow, 2 * LENGTH)?;
        let what = |what| format!("{what}; delete the file to download it again");
        verify(&bytes).map_err(|e| Error::invalid(&path, what(e)))?;
        return Ok(path);
    }
    let bytes = download(URL).and_then(|bytes| verify(&bytes).map(|()| bytes));
    let bytes = bytes.map_err(|what| offline(&path, &what))?;
    files::write_atomic(&path, &bytes)?;
    Ok(path)
}

fn verify(bytes: &[u8]) -> Result<(), String> {
    if bytes.len() as u64 != LENGTH {
        return Err(format!("has {} bytes, but Tiny Shakespeare has {LENGTH}", bytes.len()));
    }
    let crc = crc32c::crc32c(bytes);
    if crc == CRC32C { Ok(()) } else { Err(format!("has CRC-32C {crc:08x}, but Tiny Shakespeare has {CRC32C:08x}")) }
}

#[cfg(not(feature = "download"))]
fn download(_url: &str) -> Result<Vec<u8>, String> {
    Err("this program was built without the feature `download`".to_string())
}

#[cfg(feature = "download")]
fn download(url: &str) -> Result<Vec<u8>, String> {
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_global(Some(Duration::from_secs(300)));
    download_by(&config.build().into(), url)
}

#[cfg(feature = "download")]
fn download_by(agent: &ureq::Agent, url: &str) -> Result<Vec<u8>, String> {
    let response = agent.get(url).call().map_err(|e| e.to_string())?;
    let bar = indicatif::ProgressBar::new(LENGTH); // hidden unless standard error is a terminal
    bar.set_message("downloading Tiny Shakespeare");
    if let Ok(style) = indicatif::ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes}") {
        bar.set_style(style);
    }
    let mut bytes = Vec::with_capacity(LENGTH as usize);
    // One byte more than expected reveals a longer file without reading all of it.
    let read = bar.wrap_read(response.into_body().into_reader().take(LENGTH + 1)).read_to_end(&mut bytes);
    bar.finish_and_clear();
    read.map(|_| bytes).map_err(|e| e.to_string())
}

fn offline(path: &Path, what: &str) -> Error {
    Error::usage(format!(
        "could not download Tiny Shakespeare from {URL}: {what}\n\
         Without a network, copy that file to {}, or use `--dataset text --data-path FILE` with your own text, or \
         `--dataset synthetic`, which needs no file.",
        path.display()
    ))
}

#[cfg(all(test, feature = "download"))]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;

    fn direct() -> ureq::Agent {
        ureq::Agent::config_builder().proxy(None).timeout_global(Some(Duration::from_secs(10))).build().into()
    }

    /// Serves `body` once on a local port.
    fn serve(body: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/input.txt", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request = BufReader::new(stream.try_clone().unwrap());
            let _ = request.lines().take_while(|line| line.as_ref().is_ok_and(|l| !l.is_empty())).count();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&body);
        });
        url
    }

    #[test]
    fn downloads_and_bounds_what_it_reads() {
        assert_eq!(download_by(&direct(), &serve(b"to be".to_vec())).unwrap(), b"to be");
        let long = download_by(&direct(), &serve(vec![b'x'; LENGTH as usize + 100])).unwrap();
        assert_eq!(long.len() as u64, LENGTH + 1);
        assert!(verify(&long).is_err());
    }

    #[test]
    fn failure_tells_what_to_do() {
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(); // closed again at once
        let what = download_by(&direct(), &format!("http://{unused}/")).unwrap_err();
        let message = offline(Path::new("cache/tinyshakespeare.txt"), &what).to_string();
        for part in ["cache/tinyshakespeare.txt", "--dataset text", "--dataset synthetic", URL] {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn a_damaged_cached_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), b"To be").unwrap();
        let message = fetch(dir.path()).unwrap_err().to_string();
        assert!(message.contains("has 5 bytes") && message.contains(FILE), "{message}");
        let message = verify(&vec![b'x'; LENGTH as usize]).unwrap_err();
        assert!(message.contains("CRC-32C"), "{message}");
    }
}
