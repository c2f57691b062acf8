//! Models of Hugging Face's hub: the cache that its programs share, and downloads into it.
//!
//! The cache is that of `huggingface_hub`. `models--OWNER--NAME` has `blobs` (contents, by their hash), `snapshots/COMMIT` (the files
//! of a commit, links to blobs) and `refs` (the commit of a branch). `HF_HUB_CACHE` or `HF_HOME` say where it is, `HF_TOKEN` who asks,
//! `HF_ENDPOINT` whom, and `HF_HUB_OFFLINE` that nobody is to be asked; proxies are those of the environment.

use crate::files::{self, Links};
use crate::{Error, Result};
use serde_json::Value as Json;
use sha1::Digest;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;
use std::{env, io};

/// What the name of a model of the hub begins with.
pub const PREFIX: &str = "hf:";
const ENDPOINT: &str = "https://huggingface.co";
/// Most bytes of an answer about a model, and of an index.
const MAX_ANSWER: u64 = 64 << 20;
/// Times that a download that broke off is taken up again before it fails.
const TRIES: usize = 5;
/// Files beside the tensors that a folder is read with.
const BESIDE: [&str; 7] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "chat_template.jinja",
    INDEX,
];
const INDEX: &str = "model.safetensors.index.json";

/// A model of the hub, or a file of one: `hf:owner/name`, `hf:owner/name@revision`, `hf:owner/name:file.gguf`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    repo: String,
    revision: String,
    file: Option<String>,
}

impl Source {
    /// Reads the name of a model of the hub. None for what does not begin with [`PREFIX`].
    ///
    /// # Errors
    /// [`Error::Usage`] says how such a name is written.
    pub fn parse(name: &str) -> Result<Option<Source>> {
        let Some(rest) = name.strip_prefix(PREFIX) else { return Ok(None) };
        let (rest, file) = rest.split_once(':').map_or((rest, None), |(rest, file)| (rest, Some(file)));
        let (repo, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let word = |text: &str| {
            !text.is_empty()
                && !text.contains("..")
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let named = repo.split_once('/').is_some_and(|(owner, name)| word(owner) && word(name));
        if !(named && word(revision) && file.is_none_or(is_inner)) {
            return Err(Error::usage(format!("{name}: a model of the hub is written hf:owner/name[@revision][:file]")));
        }
        Ok(Some(Source { repo: repo.into(), revision: revision.into(), file: file.map(String::from) }))
    }
}

/// Whether a name stays within the folder that it is joined to.
fn is_inner(name: &str) -> bool {
    let mut parts = Path::new(name).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The hub, and the cache of this user.
pub struct Hub {
    cache: PathBuf,
    endpoint: String,
    token: Option<String>,
    offline: bool,
}

/// A file of a model on the hub.
struct Remote {
    name: String,
    size: u64,
    /// SHA-256 of a large file, otherwise the SHA-1 that git has of it.
    hash: String,
}

impl Hub {
    /// The hub that the environment names.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is no home for the cache.
    pub fn from_env() -> Result<Hub> {
        let var = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let cache = cache().ok_or_else(|| Error::usage("there is no home folder for models: set HF_HOME"))?;
        let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into()).trim_end_matches('/').to_string();
        let stored = || fs::read_to_string(cache.parent()?.join("token")).ok().map(|token| token.trim().to_string());
        let token = var("HF_TOKEN").or_else(stored);
        let offline =
            var("HF_HUB_OFFLINE").is_some_and(|value| !["0", "false", "no"].contains(&&*value.to_lowercase()));
        Ok(Hub { cache, endpoint, token, offline })
    }

    /// The path of a model in the cache: a file, or a folder. What is missing is downloaded. `say` is told what takes long.
    ///
    /// # Errors
    /// [`Error::Usage`] says why the hub does not give the model, or what the cache lacks; [`Error::Io`] if a file cannot be written.
    pub fn get(&self, source: &Source, say: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let dir = self.cache.join(format!("models--{}", source.repo.replace('/', "--")));
        let asked = if self.offline { Err("HF_HUB_OFFLINE is set".to_string()) } else { self.ask(source) };
        let (commit, all) = match asked {
            Ok(Answer::Files(commit, all)) => (commit, all),
            Ok(Answer::No(why)) => return Err(Error::usage(format!("{}: {why}", source.repo))),
            Err(why) => {
                let path = cached(&dir, source).map_err(|lacks| {
                    let (repo, cache) = (&source.repo, dir.display());
                    Error::usage(format!("{repo}: {} was not asked: {why}; the cache {cache} {lacks}", self.endpoint))
                })?;
                say(&format!("{} from the cache: {} was not asked: {why}", source.repo, self.endpoint));
                return Ok(path);
            }
        };
        let wanted =
            wanted(&all, source.file.as_deref()).map_err(|why| Error::usage(format!("{}: {why}", source.repo)))?;
        let blob = |file: &Remote| dir.join("blobs").join(&file.hash);
        let missing: Vec<&Remote> = wanted.iter().copied().filter(|file| !blob(file).is_file()).collect();
        if !missing.is_empty() {
            let bytes: u64 = missing.iter().map(|file| file.size).sum();
            let (count, size) = (missing.len(), crate::error::mib(bytes));
            say(&format!("downloading {count} files of {}, {size:.1} MiB, to {}", source.repo, dir.display()));
        }
        let snapshot = dir.join("snapshots").join(&commit);
        for file in &wanted {
            let (blob, path) = (blob(file), snapshot.join(&file.name));
            if !blob.is_file() {
                self.download(&source.repo, &commit, file, &blob)?;
            }
            link(&blob, &path, 1 + Path::new(&file.name).components().count())?;
        }
        files::write_atomic(&made(dir.join("refs"))?.join(&source.revision), commit.as_bytes())?;
        Ok(match (&source.file, &wanted[..]) {
            (None, [one]) if one.name.ends_with(".gguf") => snapshot.join(&one.name),
            (Some(file), _) => snapshot.join(file),
            (None, _) => snapshot,
        })
    }

    /// A request for an address of the hub. The token goes to the hub alone, not to where it redirects.
    fn request(&self, url: &str) -> ureq::RequestBuilder<ureq::typestate::WithoutBody> {
        let config = ureq::Agent::config_builder()
            .timeout_connect(Some(Duration::from_secs(15)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .http_status_as_error(false);
        let request = ureq::Agent::from(config.build()).get(url);
        match &self.token {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    /// Asks which files a model has. An error means that the hub did not answer.
    fn ask(&self, source: &Source) -> Result<Answer, String> {
        let url = format!("{}/api/models/{}/revision/{}?blobs=true", self.endpoint, source.repo, source.revision);
        let mut response = self.request(&url).call().map_err(|e| e.to_string())?;
        let status = response.status().as_u16();
        if let 401 | 403 | 404 = status {
            let with = if self.token.is_some() { "this HF_TOKEN" } else { "no HF_TOKEN" };
            let why = "there is no such model or revision, or it is private or gated";
            return Ok(Answer::No(format!("{} answers {status} with {with}: {why}", self.endpoint)));
        }
        if status != 200 {
            return Err(format!("it answers {status}"));
        }
        let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec().map_err(|e| e.to_string())?;
        let json: Json = serde_json::from_slice(&body).map_err(|e| format!("its answer is no JSON: {e}"))?;
        let is_hash = |text: &str| [40, 64].contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        let commit = json["sha"].as_str().filter(|sha| is_hash(sha)).ok_or("its answer names no commit")?;
        let file = |json: &Json| {
            let name = json["rfilename"].as_str().filter(|name| is_inner(name))?.to_string();
            let hash =
                json["lfs"]["sha256"].as_str().or(json["blobId"].as_str()).filter(|hash| is_hash(hash))?.to_string();
            Some(Remote { name, size: json["size"].as_u64()?, hash })
        };
        let files = json["siblings"].as_array().ok_or("its answer lists no files")?.iter().filter_map(file).collect();
        Ok(Answer::Files(commit.to_string(), files))
    }

    /// Downloads a file to `blob`, going on with what an earlier download left.
    fn download(&self, repo: &str, commit: &str, file: &Remote, blob: &Path) -> Result<()> {
        made(blob.parent().expect("a blob is in a folder").to_path_buf())?;
        let part = blob.with_extension("incomplete");
        let failed = |e: io::Error| Error::io(&part, e);
        let broken = |why: &str| Error::usage(format!("{repo}: {}: {why}", file.name));
        let mut out = files::open_within(&part, OpenOptions::new().create(true).read(true).append(true))?;
        let mut have = out.metadata().map_err(failed)?.len();
        let bar = indicatif::ProgressBar::new(file.size); // hidden unless standard error is a terminal
        bar.set_message(file.name.clone());
        if let Ok(style) = indicatif::ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {eta}") {
            bar.set_style(style);
        }
        let mut tries = 0;
        while have < file.size {
            let from = have;
            match self.part(repo, commit, file, &mut out, &mut have, &bar) {
                Ok(()) => {}
                Err(Broken::File(e)) => return Err(failed(e)),
                Err(Broken::Hub(why)) if have == from && tries + 1 == TRIES => {
                    let what =
                        format!("the download broke off at {have} of {} bytes: {why}; try again to go on", file.size);
                    return Err(broken(&what));
                }
                Err(Broken::Hub(_)) => {
                    tries = if have == from { tries + 1 } else { 0 };
                    std::thread::sleep(Duration::from_millis(200 << tries));
                }
            }
        }
        bar.finish_and_clear();
        out.sync_all().map_err(failed)?;
        let sum = hash(&part, have, file.hash.len() == 64)?;
        if have != file.size || sum != file.hash {
            fs::remove_file(&part).map_err(failed)?;
            let want = format!("{} bytes with the hash {}", file.size, file.hash);
            return Err(broken(&format!(
                "the download has {have} bytes with the hash {sum}, not {want}; it was deleted"
            )));
        }
        fs::rename(&part, blob).map_err(failed)
    }

    /// Appends what the hub gives of a file from byte `have` on.
    fn part(
        &self,
        repo: &str,
        commit: &str,
        file: &Remote,
        out: &mut File,
        have: &mut u64,
        bar: &indicatif::ProgressBar,
    ) -> Result<(), Broken> {
        let url = format!("{}/{repo}/resolve/{commit}/{}", self.endpoint, file.name);
        let hub = |e: &dyn std::fmt::Display| Broken::Hub(e.to_string());
        let request = self.request(&url).header("Range", format!("bytes={have}-"));
        let response = request.call().map_err(|e| hub(&e))?;
        match response.status().as_u16() {
            206 => {}
            // It begins anew.
            200 => {
                out.set_len(0).map_err(Broken::File)?;
                *have = 0;
            }
            status => return Err(Broken::Hub(format!("the hub answers {status}"))),
        }
        // One byte too many reveals a longer file.
        let mut body = response.into_body().into_reader().take(file.size - *have + 1);
        let mut buffer = vec![0; 1 << 16];
        loop {
            bar.set_position(*have);
            match body.read(&mut buffer).map_err(|e| hub(&e))? {
                0 => return Ok(()),
                n => {
                    out.write_all(&buffer[..n]).map_err(Broken::File)?;
                    *have += n as u64;
                }
            }
        }
    }
}

enum Answer {
    /// The commit, and its files.
    Files(String, Vec<Remote>),
    /// Why there is no such model.
    No(String),
}

/// Why a download ended.
enum Broken {
    Hub(String),
    File(io::Error),
}

/// The files of a model to download: the one that is named, the only GGUF file, or what a folder is read with.
fn wanted<'a>(all: &'a [Remote], file: Option<&str>) -> Result<Vec<&'a Remote>, String> {
    if let Some(file) = file {
        return match all.iter().find(|one| one.name == file) {
            Some(one) => Ok(vec![one]),
            None => Err(format!("has no file {file:?}; it has {}", list(all.iter().map(|one| &*one.name)))),
        };
    }
    let tensors = |one: &&Remote| one.name.ends_with(".safetensors") && !one.name.contains('/');
    if all.iter().any(|one| tensors(&one)) && all.iter().any(|one| one.name == "config.json") {
        return Ok(all.iter().filter(|one| tensors(one) || BESIDE.contains(&&*one.name)).collect());
    }
    let gguf: Vec<&Remote> = all.iter().filter(|one| one.name.ends_with(".gguf")).collect();
    match gguf.len() {
        0 => Err("has neither GGUF files nor config.json with *.safetensors".into()),
        1 => Ok(gguf),
        _ => Err(format!(
            "has several GGUF files: name one as hf:owner/name:FILE, of {}",
            list(gguf.iter().map(|f| &*f.name))
        )),
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    let more = if all.len() > 20 { format!(" and {} more", all.len() - 20) } else { String::new() };
    all[..all.len().min(20)].join(", ") + &more
}

/// The path of a model that the cache has whole. The error says what it lacks.
fn cached(dir: &Path, source: &Source) -> Result<PathBuf, String> {
    let commit =
        fs::read_to_string(dir.join("refs").join(&source.revision)).map_err(|_| "does not have it".to_string())?;
    let snapshot = dir.join("snapshots").join(commit.trim());
    if let Some(file) = &source.file {
        let path = snapshot.join(file);
        return if path.is_file() { Ok(path) } else { Err(format!("lacks {file}")) };
    }
    if snapshot.join("config.json").is_file() {
        let index = files::read(&snapshot.join(INDEX), Links::Follow, MAX_ANSWER).ok();
        let index: Option<Json> = index.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let map = index.as_ref().and_then(|json| json["weight_map"].as_object());
        let names: Vec<&str> = match map {
            Some(map) => map.values().filter_map(Json::as_str).collect(),
            None => vec!["model.safetensors"],
        };
        return match names.into_iter().find(|name| !(is_inner(name) && snapshot.join(name).is_file())) {
            Some(name) => Err(format!("lacks {name}")),
            None => Ok(snapshot),
        };
    }
    match &files_of(&snapshot, "gguf")[..] {
        [one] => Ok(one.clone()),
        [] => Err("lacks its files".into()),
        _ => Err("has several GGUF files of it: name one".into()),
    }
}

/// Makes a folder, if it is not there.
fn made(dir: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&dir).map_err(|e| Error::io(&dir, e))?;
    Ok(dir)
}

/// Links a file of a snapshot, in a folder so many below that of its model, to its blob; elsewhere than on Unix as another name of it.
fn link(blob: &Path, path: &Path, below: usize) -> Result<()> {
    if path.is_file() {
        return Ok(());
    }
    made(path.parent().expect("a snapshot is a folder").to_path_buf())?;
    #[cfg(unix)]
    let linked = {
        let up: PathBuf = std::iter::repeat_n("..", below).collect();
        let name = blob.file_name().expect("a blob is named by its hash");
        std::os::unix::fs::symlink(up.join("blobs").join(name), path)
    };
    #[cfg(not(unix))]
    let linked = {
        let _ = below;
        fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(drop))
    };
    linked.map_err(|e| Error::io(path, e))
}

/// The hash of a file in hexadecimal digits: SHA-256, or git's SHA-1.
fn hash(path: &Path, size: u64, sha256: bool) -> Result<String> {
    let mut file = files::open(path, Links::Refuse)?;
    let failed = |e| Error::io(path, e);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect();
    if sha256 {
        let mut sum = sha2::Sha256::new();
        io::copy(&mut file, &mut sum).map_err(failed)?;
        return Ok(hex(&sum.finalize()));
    }
    let mut sum = sha1::Sha1::new();
    sum.update(format!("blob {size}\0"));
    io::copy(&mut file, &mut sum).map_err(failed)?;
    Ok(hex(&sum.finalize()))
}

/// A model that a program left on this machine.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// The program whose folder it is in.
    pub of: &'static str,
    /// What `--model` takes for it: `hf:...`, or its path.
    pub name: String,
    /// A GGUF file, or a folder as Hugging Face has them.
    pub path: PathBuf,
}

/// The models in the cache of Hugging Face, and in the folders of LM Studio and llama.cpp.
pub fn found() -> Vec<Found> {
    let mut all = Vec::new();
    for dir in cache().map(|cache| entries(&cache)).unwrap_or_default() {
        let name = dir.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("models--"));
        let Some(repo) = name.map(|name| name.replacen("--", "/", 1)) else { continue };
        let Ok(commit) = fs::read_to_string(dir.join("refs/main")) else { continue };
        let snapshot = dir.join("snapshots").join(commit.trim());
        let of = "Hugging Face";
        if snapshot.join("config.json").is_file() {
            all.push(Found { of, name: format!("{PREFIX}{repo}"), path: snapshot.clone() });
        }
        for path in files_of(&snapshot, "gguf") {
            let file = path.strip_prefix(&snapshot).unwrap_or(&path).display().to_string();
            all.push(Found { of, name: format!("{PREFIX}{repo}:{file}"), path });
        }
    }
    let home = home();
    let under = |path: &str| home.as_ref().map(|home| home.join(path));
    let own = env::var_os("LLAMA_CACHE").map(PathBuf::from);
    let others = [
        ("LM Studio", under(".lmstudio/models")),
        ("LM Studio", under(".cache/lm-studio/models")),
        (
            "llama.cpp",
            own.or_else(|| {
                under(if cfg!(target_os = "macos") { "Library/Caches/llama.cpp" } else { ".cache/llama.cpp" })
            }),
        ),
    ];
    for (of, dir) in others {
        let paths = dir.map(|dir| files_of(&dir, "gguf")).unwrap_or_default();
        all.extend(paths.into_iter().map(|path| Found { of, name: files::path_text(&path).into_owned(), path }));
    }
    all.sort();
    all
}

/// The cache of Hugging Face.
fn cache() -> Option<PathBuf> {
    let var = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || {
        var("HF_HOME")
            .or_else(|| Some(var("XDG_CACHE_HOME").or_else(|| Some(home()?.join(".cache")))?.join("huggingface")))
    };
    var("HF_HUB_CACHE").or_else(|| Some(home()?.join("hub")))
}

fn home() -> Option<PathBuf> {
    env::home_dir().filter(|home| !home.as_os_str().is_empty())
}

/// What a folder holds, by name; nothing if it cannot be read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    all.sort();
    all
}

/// The files with this extension in a folder and in those within it, four deep.
fn files_of(dir: &Path, extension: &str) -> Vec<PathBuf> {
    fn walk(dir: &Path, extension: &str, depth: usize, all: &mut Vec<PathBuf>) {
        for path in entries(dir) {
            if path.extension().is_some_and(|own| own == extension) && path.is_file() {
                all.push(path);
            } else if depth > 0 && path.is_dir() && !path.is_symlink() {
                walk(&path, extension, depth - 1, all);
            }
        }
    }
    let mut all = Vec::new();
    walk(dir, extension, 4, &mut all);
    all
}
