//! Saving, loading and pruning the checkpoints of a run directory.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{self, Manifest};
use super::{Array, tensors};
use crate::error::{Error, Result};
use crate::files::sync_dir;

/// The [`Meta::format_version`] this program writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const META: &str = "meta.json";

const TMP: &str = ".tmp-";
const OLD: &str = ".old-";
const DEL: &str = ".del-";

/// What a checkpoint knows besides its tensors. Losses are nats per token; a loss that is not finite is stored as none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    pub format_version: u32,
    /// Optimizer steps done.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// The resolved configuration.
    pub config: serde_json::Value,
    pub train_loss: Option<f64>,
    pub val_loss: Option<f64>,
    /// Where the data loader goes on.
    pub data_cursor: u64,
    pub seed: u64,
    /// Steps left out because their loss or gradient was not finite.
    pub skipped_steps: u64,
    pub tokenizer_hash: Option<String>,
    /// Whatever else an exact resume needs.
    pub state: serde_json::Value,
}

impl Default for Meta {
    fn default() -> Self {
        Meta {
            format_version: FORMAT_VERSION,
            step: 0,
            tokens: 0,
            config: serde_json::Value::Null,
            train_loss: None,
            val_loss: None,
            data_cursor: 0,
            seed: 0,
            skipped_steps: 0,
            tokenizer_hash: None,
            state: serde_json::Value::Null,
        }
    }
}

/// A checkpoint in memory; tensors are ordered by name.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Where it was read from.
    pub dir: PathBuf,
    pub meta: Meta,
    pub model: Vec<Array>,
    pub optimizer: Vec<Array>,
    pub tokenizer_json: Option<String>,
}

/// The name of the checkpoint after `step` optimizer steps.
pub fn step_name(step: u64) -> String {
    format!("step_{step}")
}

/// Writes the checkpoint `run_dir/name` (`step_N` or `final`) and returns its path; a checkpoint of that name is
/// replaced, and stays readable until the new one is complete. The caller holds the [`RunLock`](super::RunLock).
///
/// # Errors
/// [`Error::Usage`] for another name or for tensors that share one; otherwise [`Error::Checkpoint`], in two lines: what
/// failed (a full disk: bytes needed and free) and which checkpoint is kept. Nothing temporary is left behind.
pub fn save(
    run_dir: &Path,
    name: &str,
    meta: &Meta,
    model: &[Array],
    optimizer: &[Array],
    tokenizer_json: Option<&str>,
) -> Result<PathBuf> {
    if name != "final" && step_of(name).is_none() {
        return Err(Error::usage(format!("a checkpoint is named step_N or final, not {name:?}")));
    }
    let parts = Parts {
        model: tensors::Layout::new(model)?,
        optimizer: tensors::Layout::new(optimizer)?,
        meta: serde_json::to_vec_pretty(meta).expect("a Meta always serialises"),
        tokenizer: tokenizer_json.map(str::as_bytes),
    };
    let tmp = run_dir.join(format!("{TMP}{name}"));
    let target = run_dir.join(name);
    let attempt = || -> Result<()> {
        fs::create_dir_all(run_dir).map_err(|e| Error::io(run_dir, e))?;
        tidy(run_dir)?;
        let free = fs4::available_space(run_dir).map_err(|e| Error::io(run_dir, e))?;
        check_space(run_dir, parts.bytes(), free)?;
        parts.write(&tmp)?;
        publish(run_dir, name)
    };
    attempt().map_err(|e| {
        // Best effort: a left-over is not a checkpoint, and the next save removes it.
        let _ = fs::remove_dir_all(&tmp);
        Error::Checkpoint(format!("checkpoint {} not saved: {e}\n{}", target.display(), kept(run_dir)))
    })?;
    Ok(target)
}

/// Everything a checkpoint will hold, sized before the first byte is written.
struct Parts<'a> {
    model: tensors::Layout<'a>,
    optimizer: tensors::Layout<'a>,
    meta: Vec<u8>,
    tokenizer: Option<&'a [u8]>,
}

impl Parts<'_> {
    /// Bytes needed on disk: the files, rounded up for blocks, directory and manifest.
    fn bytes(&self) -> u64 {
        let files =
            self.model.bytes + self.optimizer.bytes + (self.meta.len() + self.tokenizer.map_or(0, <[u8]>::len)) as u64;
        files + (64 << 10)
    }

    fn write(&self, dir: &Path) -> Result<()> {
        fs::create_dir(dir).map_err(|e| Error::io(dir, e))?;
        let mut files = vec![
            manifest::write_file(dir, MODEL, |out| self.model.write(out))?,
            manifest::write_file(dir, OPTIMIZER, |out| self.optimizer.write(out))?,
            manifest::write_file(dir, META, |out| out.write_all(&self.meta))?,
        ];
        if let Some(json) = self.tokenizer {
            files.push(manifest::write_file(dir, TOKENIZER, |out| out.write_all(json))?);
        }
        let manifest = Manifest::new(files).to_bytes();
        manifest::write_file(dir, manifest::NAME, |out| out.write_all(&manifest))?;
        sync_dir(dir)
    }
}

/// Renames `.tmp-NAME` to NAME. What NAME was is `.old-NAME` in between, so one of the two is complete at every moment.
fn publish(run_dir: &Path, name: &str) -> Result<()> {
    let [tmp, old, target] = [TMP, OLD, ""].map(|prefix| run_dir.join(format!("{prefix}{name}")));
    let replaces = target.exists();
    if replaces {
        rename(&target, &old)?;
        sync_dir(run_dir)?;
    }
    if let Err(e) = rename(&tmp, &target) {
        if replaces {
            let _ = fs::rename(&old, &target);
        }
        return Err(e);
    }
    sync_dir(run_dir)?;
    if replaces {
        // The new checkpoint is in place: failing to delete the old one is the next save's business.
        let _ = remove(run_dir, &format!("{OLD}{name}"));
    }
    Ok(())
}

/// Finishes what a killed process left: half-written and half-deleted directories go, a replaced checkpoint comes back
/// unless its replacement is complete.
fn tidy(run_dir: &Path) -> Result<()> {
    for entry in names(run_dir)? {
        if entry.starts_with(TMP) || entry.starts_with(DEL) {
            let path = run_dir.join(&entry);
            fs::remove_dir_all(&path).map_err(|e| Error::io(&path, e))?;
        } else if let Some(name) = entry.strip_prefix(OLD) {
            let [target, old] = [name, &entry].map(|n| run_dir.join(n));
            if !target.exists() {
                rename(&old, &target)?;
            } else if verify(&target).is_err() && verify(&old).is_ok() {
                remove(run_dir, name)?;
                rename(&old, &target)?;
            } else {
                remove(run_dir, &entry)?;
            }
            sync_dir(run_dir)?;
        }
    }
    Ok(())
}

/// Deletes a directory of `run_dir` such that a kill half-way leaves no half checkpoint under its name.
fn remove(run_dir: &Path, name: &str) -> Result<()> {
    let gone = run_dir.join(format!("{DEL}{}", name.trim_start_matches('.')));
    if gone.exists() {
        fs::remove_dir_all(&gone).map_err(|e| Error::io(&gone, e))?;
    }
    rename(&run_dir.join(name), &gone)?;
    fs::remove_dir_all(&gone).map_err(|e| Error::io(&gone, e))
}

fn check_space(run_dir: &Path, needed: u64, free: u64) -> Result<()> {
    if needed <= free {
        return Ok(());
    }
    let what = format!("the disk is full: a checkpoint needs {}, {} are free", mib(needed), mib(free));
    Err(Error::invalid(run_dir, what))
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

/// The second line of a failed save.
fn kept(run_dir: &Path) -> String {
    let mut found = candidates(run_dir).unwrap_or_default();
    found.retain(|c| !c.name.starts_with(OLD));
    match found.as_slice() {
        [] => "kept: nothing, there is no earlier checkpoint".to_string(),
        [one] => format!("kept: {}", one.name),
        [newest, rest @ ..] => format!("kept: {} and {} earlier", newest.name, rest.len()),
    }
}

/// Reads the checkpoint in `dir` after verifying its manifest and every checksum.
///
/// # Errors
/// [`Error::Invalid`] names the file and what is wrong with it: missing, truncated (bytes have and want), checksum.
pub fn load(dir: &Path) -> Result<Checkpoint> {
    let manifest = Manifest::read(dir)?;
    let read = |name: &str| manifest.entry(dir, name)?.read(dir);
    let path = dir.join(META);
    let meta: Meta = serde_json::from_slice(&read(META)?).map_err(|e| Error::invalid(&path, e.to_string()))?;
    if meta.format_version > FORMAT_VERSION {
        let what = format!("format {} is newer than this program reads ({FORMAT_VERSION})", meta.format_version);
        return Err(Error::invalid(&path, what));
    }
    let tokenizer_json = if manifest.files.iter().any(|e| e.name == TOKENIZER) {
        let text = String::from_utf8(read(TOKENIZER)?);
        Some(text.map_err(|_| Error::invalid(&dir.join(TOKENIZER), "not UTF-8"))?)
    } else {
        None
    };
    let model = tensors::parse(&dir.join(MODEL), &read(MODEL)?)?;
    let optimizer = tensors::parse(&dir.join(OPTIMIZER), &read(OPTIMIZER)?)?;
    Ok(Checkpoint { dir: dir.to_path_buf(), meta, model, optimizer, tokenizer_json })
}

/// Checks every checksum of the checkpoint in `dir` in constant memory; errors as [`load`].
pub fn verify(dir: &Path) -> Result<()> {
    let manifest = Manifest::read(dir)?;
    for name in [MODEL, OPTIMIZER, META] {
        manifest.entry(dir, name)?;
    }
    manifest.files.iter().try_for_each(|entry| entry.verify(dir))
}

/// The valid checkpoint with the highest step (`final` counts by the step in its `meta.json`), with one line for each
/// newer one that had to be passed over; none if `run_dir` has no checkpoint at all or does not exist.
///
/// # Errors
/// [`Error::Io`] if `run_dir` cannot be read; [`Error::Training`] if there are checkpoints but not one is valid.
pub fn newest_valid(run_dir: &Path) -> Result<Option<(Checkpoint, Vec<String>)>> {
    let (mut found, mut warnings) = first_valid(run_dir)?;
    if !warnings.is_empty() {
        // Damaged, or replaced by a trainer between being listed and being read: only the first is there twice.
        (found, warnings) = first_valid(run_dir)?;
    }
    match found {
        Some(checkpoint) => Ok(Some((checkpoint, warnings))),
        None if warnings.is_empty() => Ok(None),
        None => Err(Error::Training(format!("{}: no valid checkpoint\n{}", run_dir.display(), warnings.join("\n")))),
    }
}

fn first_valid(run_dir: &Path) -> Result<(Option<Checkpoint>, Vec<String>)> {
    let mut warnings = Vec::new();
    for candidate in candidates(run_dir)? {
        match load(&run_dir.join(&candidate.name)) {
            Ok(checkpoint) => return Ok((Some(checkpoint), warnings)),
            Err(e) => warnings.push(format!("skipped checkpoint {}: {e}", candidate.name)),
        }
    }
    Ok((None, warnings))
}

/// Deletes all `step_N` but the `keep` with the highest steps, and returns the names deleted. The newest valid one
/// stays whatever its rank (so `keep` 0 acts as 1 on a healthy directory), and `final` always stays.
///
/// # Errors
/// [`Error::Io`] if a directory cannot be read or deleted.
pub fn prune(run_dir: &Path, keep: usize) -> Result<Vec<String>> {
    let mut steps: Vec<(u64, String)> =
        names(run_dir)?.into_iter().filter_map(|name| step_of(&name).map(|step| (step, name))).collect();
    steps.sort_unstable_by(|a, b| b.cmp(a));
    if steps.len() <= keep {
        return Ok(Vec::new());
    }
    let newest_valid = steps.iter().position(|(_, name)| verify(&run_dir.join(name)).is_ok());
    let doomed = steps.into_iter().enumerate().filter(|(rank, _)| *rank >= keep && Some(*rank) != newest_valid);
    let mut deleted = Vec::new();
    for (_, (_, name)) in doomed {
        remove(run_dir, &name)?;
        deleted.push(name);
    }
    Ok(deleted)
}

struct Candidate {
    name: String,
    step: u64,
}

/// Every name in `run_dir` that may be a checkpoint, the most wanted first.
fn candidates(run_dir: &Path) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for name in names(run_dir)? {
        let visible = name.strip_prefix(OLD).unwrap_or(&name);
        let step = match step_of(visible) {
            Some(step) => step,
            // Damaged, it comes first, to be reported as passed over.
            None if visible == "final" => peek_step(&run_dir.join(&name)).unwrap_or(u64::MAX),
            None => continue,
        };
        found.push(Candidate { name, step });
    }
    // Of equal steps, `final` before `step_N`, and what replaces before what was replaced.
    let rank = |c: &Candidate| (c.step, !c.name.starts_with(OLD), !c.name.contains("step_"));
    found.sort_by_key(|c| std::cmp::Reverse(rank(c)));
    Ok(found)
}

/// The step in a `meta.json` that is not verified yet: good enough to order candidates.
fn peek_step(dir: &Path) -> Option<u64> {
    let bytes = fs::read(dir.join(META)).ok()?;
    serde_json::from_slice::<serde_json::Value>(&bytes).ok()?.get("step")?.as_u64()
}

/// N of `step_N`, in the spelling of [`step_name`] only.
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step_")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

/// The directories in `run_dir`; none if it does not exist.
fn names(run_dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(run_dir, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(run_dir, e))?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|e| Error::io(from, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_checked_before_writing() {
        let dir = Path::new("runs/x");
        assert!(check_space(dir, 10, 10).is_ok());
        let message = check_space(dir, 3 << 20, 1 << 20).unwrap_err().to_string();
        assert_eq!(message, "runs/x: the disk is full: a checkpoint needs 3.0 MiB, 1.0 MiB are free");
    }

    #[test]
    fn only_canonical_names_are_checkpoints() {
        assert_eq!(step_of("step_120"), Some(120));
        for name in ["step_", "step_+1", "step_01", "step_1x", "final", ".tmp-step_1", "step_-1"] {
            assert_eq!(step_of(name), None, "{name}");
        }
    }
}
