//! Runs the real program in a temporary directory, with a small text and a model that trains hundreds of steps per second.

use nanotern::checkpoint;
use nanotern::formats::{Format, ModelFile, TensorData};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};

/// A model of 46 thousand parameters, trained on `text.txt`.
const CONFIG: &str = r#"
[model]
dim = 64
layers = 1
heads = 2
kv_heads = 1
ffn = 64
seq_len = 32
group_size = 32

[data]
dataset = "text"
path = "text.txt"
tokenizer = "bytes"

[train]
batch_size = 2
total_steps = 12
log_interval = 1
eval_interval = 0
eval_windows = 4
checkpoint_interval = 0

[optim]
warmup_steps = 2
"#;

/// How a command ended.
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A running `nanotern`.
pub struct Running {
    pub child: Child,
    err: BufReader<ChildStderr>,
    pub seen: String,
}

impl Running {
    /// Reads standard error up to a line that contains `word`.
    pub fn wait_for(&mut self, word: &str) {
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            assert_ne!(self.err.read_line(&mut line).unwrap(), 0, "ended before it said {word:?}:\n{}", self.seen);
            self.seen.push_str(&line);
        }
    }

    /// Kills the process with SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    #[cfg(unix)]
    pub fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; returns all of standard error.
    pub fn end(mut self) -> Ended {
        std::io::Read::read_to_string(&mut self.err, &mut self.seen).unwrap();
        Ended { code: self.child.wait().unwrap().code(), stdout: String::new(), stderr: self.seen }
    }
}

/// A directory to work in, with `text.txt` and `config.toml`.
pub struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    pub fn new() -> Project {
        let project = Project { dir: tempfile::tempdir().unwrap() };
        let line = |i: u64| format!("{i}: {} cats saw {} dogs near {}\n", i * 7 % 13, i * i % 11, i * 7919 % 1009);
        project.write("text.txt", (0..500).map(line).collect::<String>());
        project.write("config.toml", CONFIG);
        project
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// Writes a copy of a model whose last norm overflows.
    pub fn overflowing(&self, from: &str, to: &str) {
        let mut file = ModelFile::open(&self.path(from)).unwrap();
        let norm = file.tensors.iter_mut().find(|t| t.name == "norm.weight").unwrap();
        let TensorData::F32(values) = &mut norm.data else { panic!("the norm is not f32") };
        values.fill(3e38);
        file.save_gguf(&self.path(to), Format::Q1_58).unwrap();
    }

    /// `nanotern` with arguments separated by spaces.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nanotern"));
        for (key, _) in std::env::vars_os().filter(|(k, _)| k.to_string_lossy().starts_with("NANOTERN_")) {
            command.env_remove(key);
        }
        command.current_dir(self.dir.path()).args(words.split_whitespace());
        command
    }

    pub fn nanotern(&self, words: &str) -> Ended {
        let out = self.command(words).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
        let ended = Ended { code: out.status.code(), stdout: text(out.stdout), stderr: text(out.stderr) };
        assert!(!ended.stderr.contains("panicked"), "{words}:\n{}", ended.stderr);
        ended
    }

    /// Runs a command that must succeed; returns its standard output.
    pub fn ok(&self, words: &str) -> String {
        let ended = self.nanotern(words);
        assert_eq!(ended.code, Some(0), "{words}:\n{}", ended.stderr);
        ended.stdout
    }

    /// Trains into `dir` on one thread, which must succeed.
    pub fn train(&self, dir: &str, words: &str) {
        self.ok(&fresh(dir, words));
    }

    /// Starts a command in the background.
    pub fn start(&self, words: &str) -> Running {
        self.spawn(self.command(words))
    }

    /// Starts a command that writes to standard error as `nanotern` does.
    pub fn spawn(&self, mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let err = BufReader::new(child.stderr.take().unwrap());
        Running { child, err, seen: String::new() }
    }

    /// The records of a run's `metrics.jsonl`; every line must be JSON.
    pub fn metrics(&self, dir: &str) -> Vec<Value> {
        let text = String::from_utf8(self.read(&format!("{dir}/metrics.jsonl"))).unwrap();
        text.lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{dir}: {l}: {e}"))).collect()
    }

    /// The records without the speed, which differs from run to run.
    pub fn exact_metrics(&self, dir: &str) -> Vec<Value> {
        let mut records = self.metrics(dir);
        for record in &mut records {
            record.as_object_mut().unwrap().remove("tok_per_s");
        }
        records
    }

    /// Makes a checkpoint of a run finite, but of no use: its last norm overflows.
    pub fn spoil(&self, run: &str, name: &str) {
        let mut saved = checkpoint::load(&self.path(run).join(name)).unwrap();
        saved.model.iter_mut().find(|t| t.name == "norm.weight").unwrap().data.fill(3e38);
        let tokenizer = saved.tokenizer_json.as_deref();
        checkpoint::save(&self.path(run), name, &saved.meta, &saved.model, &saved.optimizer, tokenizer).unwrap();
    }

    /// `meta.json` of a checkpoint.
    pub fn meta(&self, checkpoint: &str) -> Value {
        serde_json::from_slice(&self.read(&format!("{checkpoint}/meta.json"))).unwrap()
    }

    /// Names of the checkpoints of a run.
    pub fn checkpoints(&self, dir: &str) -> Vec<String> {
        let names = fs::read_dir(self.path(dir)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|n| n.starts_with("step_") || n == "final").collect();
        names.sort();
        names
    }

    /// Asserts that two runs ended with the same weights and optimizer state, bit for bit.
    pub fn assert_same(&self, a: &str, b: &str) {
        for file in ["model", "optimizer"] {
            let [a, b] = [a, b].map(|run| format!("{run}/final/{file}.safetensors"));
            assert!(self.read(&a) == self.read(&b), "{a} and {b} differ");
        }
    }
}

/// Arguments that start a new run in `dir`.
pub fn fresh(dir: &str, words: &str) -> String {
    format!("train --config config.toml --backend cpu --threads 1 --checkpoint-dir {dir} {words}")
}

/// Arguments that resume the run in `dir`.
pub fn resume(dir: &str, words: &str) -> String {
    format!("train --backend cpu --resume {dir} {words}")
}
