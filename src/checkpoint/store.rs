//! Saving, loading and pruning the checkpoints of a run directory.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::manifest::{self, Manifest};
use super::{Array, tensors};
use crate::error::{Error, Result, mib};
use crate::files::{self, Links, sync_dir};

/// The [`Meta::format_version`] this program writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const TOKENIZER: &str = "tokenizer.json";
const META: &str = "meta.json";

/// Most bytes of `meta.json`.
const MAX_META: u64 = 1 << 20;

/// Every file of a checkpoint besides the manifest, and the most bytes of it.
const FILES: [(&str, u64); 4] =
    [(MODEL, 1 << 36), (OPTIMIZER, 1 << 36), (META, MAX_META), (TOKENIZER, crate::tokenizer::MAX_JSON)];

/// The most bytes of a file of a checkpoint; none if a checkpoint has no such file.
pub(super) fn limit(name: &str) -> Option<u64> {
    FILES.iter().find(|(file, _)| *file == name).map(|(_, limit)| *limit)
}

const TMP: &str = ".tmp-";
const OLD: &str = ".old-";
const DEL: &str = ".del-";

/// `meta.json`: everything in a checkpoint besides its tensors. Losses are in nats per token; one that is not finite is
/// stored as `None`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Meta {
    /// [`FORMAT_VERSION`] of the program that wrote it.
    pub format_version: u32,
    /// Completed optimizer steps.
    pub step: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// The resolved configuration.
    pub config: serde_json::Value,
    /// The run's latest training loss.
    pub train_loss: Option<f64>,
    /// The run's latest validation loss.
    pub val_loss: Option<f64>,
    /// The next sample of the data loader.
    pub data_cursor: u64,
    /// The run's seed.
    pub seed: u64,
    /// Steps that were skipped because of their loss or gradient norm.
    pub skipped_steps: u64,
    /// [`Tokenizer::hash`](crate::tokenizer::Tokenizer::hash), if the run has a tokenizer.
    pub tokenizer_hash: Option<String>,
    /// How ids are spelled besides the tokenizer, if the run began with a model that says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<serde_json::Value>,
    /// Further state that an exact resume needs.
    pub state: RunState,
}

/// The state of a run besides the other fields of [`Meta`]. What an older version did not save is zero or `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunState {
    /// The last steps, as many as were skipped in a row.
    pub skipped_in_a_row: u64,
    /// The last steps in a row whose loss was that of a run that has diverged.
    pub diverged_in_a_row: u64,
    /// Where the run was rolled back to. Older checkpoints are next, until one is saved after `from`.
    pub rolled_back: Option<RolledBack>,
    /// The step of the last record of the log.
    pub logged: u64,
    /// Checksum of the training tokens.
    pub data_crc32c: Option<u32>,
    /// Checksum of the validation tokens.
    pub val_crc32c: Option<u32>,
    /// What computed the steps.
    pub device: Option<String>,
}

/// A rollback of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RolledBack {
    /// The latest step at which it had to be.
    pub from: u64,
    /// The step of the checkpoint.
    pub to: u64,
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
            text: None,
            state: RunState::default(),
        }
    }
}

impl Meta {
    /// Largest number of steps, tokens or samples of a run. Sums of a few of them do not wrap.
    pub const MAX_COUNT: u64 = 1 << 53;

    fn check(&self) -> Result<(), String> {
        let counts = [
            ("step", self.step),
            ("tokens", self.tokens),
            ("data_cursor", self.data_cursor),
            ("skipped_steps", self.skipped_steps),
            ("skipped_in_a_row", self.state.skipped_in_a_row),
            ("diverged_in_a_row", self.state.diverged_in_a_row),
            ("rolled_back.from", self.state.rolled_back.map_or(0, |back| back.from)),
            ("rolled_back.to", self.state.rolled_back.map_or(0, |back| back.to)),
            ("logged", self.state.logged),
        ];
        match counts.into_iter().find(|(_, count)| *count > Self::MAX_COUNT) {
            Some((key, count)) => Err(format!("{key} = {count}: at most {} is possible", Self::MAX_COUNT)),
            None => Ok(()),
        }
    }
}

/// A checkpoint in memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// The directory it was read from.
    pub dir: PathBuf,
    /// The contents of `meta.json`.
    pub meta: Meta,
    /// The latent weights, ordered by name.
    pub model: Vec<Array>,
    /// The optimizer's state, ordered by name; empty if it was not asked for.
    pub optimizer: Vec<Array>,
    /// The contents of `tokenizer.json`, if the checkpoint has one.
    pub tokenizer_json: Option<String>,
}

/// The name of the checkpoint after `step` optimizer steps.
pub fn step_name(step: u64) -> String {
    format!("step_{step}")
}

/// Writes the checkpoint `run_dir/name` (`step_N` or `final`) and returns its path. An existing checkpoint of that name is
/// replaced and stays readable until the new one is complete. The caller must hold the [`RunLock`](super::RunLock). A run
/// directory that is gone is not made again.
///
/// # Errors
/// [`Error::Usage`] for any other name, and for two tensors of one name. [`Error::NotFinite`] names a tensor with a value that
/// is not a finite number. Otherwise [`Error::Checkpoint`] with two lines: the
/// failure (for a full disk with the sizes needed and free), and the checkpoints that are kept. No temporary files remain.
///
/// # Panics
/// When the shape of an array does not match its data.
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
    model.iter().chain(optimizer).try_for_each(|t| t.finite().map_err(Error::NotFinite))?;
    let parts = Parts {
        model: tensors::Layout::new(model)?,
        optimizer: tensors::Layout::new(optimizer)?,
        meta: serde_json::to_vec_pretty(meta).expect("a Meta always serialises"),
        tokenizer: tokenizer_json.map(str::as_bytes),
    };
    let tmp = run_dir.join(format!("{TMP}{name}"));
    let target = run_dir.join(name);
    let attempt = || -> Result<()> {
        tidy(run_dir)?;
        let free = fs4::available_space(run_dir).map_err(|e| Error::io(run_dir, e))?;
        check_space(run_dir, parts.bytes(), free)?;
        parts.write(&tmp)?;
        publish(run_dir, name)
    };
    attempt().map_err(|e| {
        // Best effort: a remaining directory is not a checkpoint, and the next save removes it.
        let _ = fs::remove_dir_all(&tmp);
        Error::Checkpoint(format!("checkpoint {} not saved: {e}\n{}", target.display(), kept(run_dir)))
    })?;
    Ok(target)
}

/// The files of a checkpoint, so that their size is known before the first byte is written.
struct Parts<'a> {
    model: tensors::Layout<'a>,
    optimizer: tensors::Layout<'a>,
    meta: Vec<u8>,
    tokenizer: Option<&'a [u8]>,
}

impl Parts<'_> {
    /// Bytes needed on disk: the files, and 64 KiB for blocks, directory and manifest.
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

/// Renames `.tmp-NAME` to NAME. An existing NAME becomes `.old-NAME` meanwhile, so one of the two is complete at any time.
fn publish(run_dir: &Path, name: &str) -> Result<()> {
    let [tmp, old, target] = [TMP, OLD, ""].map(|prefix| run_dir.join(format!("{prefix}{name}")));
    let replaces = exists(&target);
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
        // The new checkpoint is in place. If the old one cannot be deleted, the next save tries again.
        let _ = remove(run_dir, &format!("{OLD}{name}"));
    }
    Ok(())
}

/// Keeps a `final` that is not of `step` as the `step_N` that it is, before the `final` of a longer run takes its place.
///
/// # Errors
/// [`Error::Io`] if it cannot be renamed.
pub fn keep_final(run_dir: &Path, step: u64) -> Result<()> {
    let fin = run_dir.join("final");
    let Some(old) = peek_step(&fin).filter(|old| *old != step) else { return Ok(()) };
    let kept = run_dir.join(step_name(old));
    if !exists(&kept) {
        rename(&fin, &kept)?;
        sync_dir(run_dir)?;
    }
    Ok(())
}

/// Cleans up after a killed process: deletes half-written and half-deleted directories, and restores a replaced checkpoint
/// unless its replacement is complete.
fn tidy(run_dir: &Path) -> Result<()> {
    for entry in names(run_dir)? {
        let old = entry.strip_prefix(OLD).filter(|name| is_checkpoint(name));
        if entry.starts_with(TMP) || entry.starts_with(DEL) {
            delete(&run_dir.join(&entry))?;
        } else if let Some(name) = old {
            let [target, old] = [name, &entry].map(|n| run_dir.join(n));
            if !exists(&target) {
                rename(&old, &target)?;
            } else if verify_within(&target).is_err() && verify_within(&old).is_ok() {
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

/// Deletes a directory of `run_dir`. It is renamed first, so a process killed meanwhile leaves no partial checkpoint under
/// the name.
fn remove(run_dir: &Path, name: &str) -> Result<()> {
    let gone = run_dir.join(format!("{DEL}{}", name.trim_start_matches('.')));
    if exists(&gone) {
        delete(&gone)?;
    }
    rename(&run_dir.join(name), &gone)?;
    delete(&gone)
}

/// Deletes a directory with its contents, or what else has its name.
fn delete(path: &Path) -> Result<()> {
    let directory = files::kind_at(path, Links::Refuse)?.is_dir();
    if directory { fs::remove_dir_all(path) } else { fs::remove_file(path) }.map_err(|e| Error::io(path, e))
}

/// Whether there is anything of that name, be it a link to nowhere.
fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// Whether a name in a run directory is that of a checkpoint, or of one that is being written, replaced or deleted.
pub(crate) fn is_own(name: &str) -> bool {
    let hidden = [TMP, OLD, DEL].iter().any(|prefix| name.starts_with(prefix));
    hidden || is_checkpoint(name)
}

fn is_checkpoint(name: &str) -> bool {
    name == "final" || step_of(name).is_some()
}

/// Checks that what has the name of a checkpoint is a directory: a link could lead anywhere.
///
/// # Errors
/// [`Error::Invalid`] says what else it is.
pub(crate) fn check_within(path: &Path) -> Result<()> {
    let kind = files::kind_at(path, Links::Refuse)?;
    if kind.is_dir() {
        return Ok(());
    }
    Err(Error::invalid(path, format!("is a {}: in a run, it must be a folder", files::kind(kind))))
}

/// [`verify`] of a checkpoint in a run.
fn verify_within(dir: &Path) -> Result<()> {
    check_within(dir).and_then(|()| verify(dir))
}

fn check_space(run_dir: &Path, needed: u64, free: u64) -> Result<()> {
    if needed <= free {
        return Ok(());
    }
    let (needed, free) = (mib(needed), mib(free));
    let what = format!("the disk is full: a checkpoint needs {needed:.1} MiB, {free:.1} MiB are free");
    Err(Error::invalid(run_dir, what))
}

/// The second line of the error of a failed save: the checkpoints that are kept.
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
/// [`Error::Invalid`] names the file and what is wrong with it, such as missing, truncated (with both sizes), checksum, or a
/// tensor with a value that is not a finite number.
pub fn load(dir: &Path) -> Result<Checkpoint> {
    load_parts(dir, Optimizer::Read)
}

/// [`load`] without the state of the optimizer, whose file is verified in constant memory: for what only needs the weights.
///
/// # Errors
/// As [`load`].
pub fn load_model(dir: &Path) -> Result<Checkpoint> {
    load_parts(dir, Optimizer::Verify)
}

/// What is done with the state of the optimizer, which may be twice as large as the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Optimizer {
    Read,
    Verify,
}

fn load_parts(dir: &Path, optimizer: Optimizer) -> Result<Checkpoint> {
    let manifest = Manifest::read(dir)?;
    let read = |name: &str| manifest.entry(dir, name)?.read(dir);
    let path = dir.join(META);
    let meta: Meta = serde_json::from_slice(&read(META)?).map_err(|e| Error::invalid(&path, e.to_string()))?;
    if meta.format_version > FORMAT_VERSION {
        let what = format!("format {} is newer than this program supports ({FORMAT_VERSION})", meta.format_version);
        return Err(Error::invalid(&path, what));
    }
    meta.check().map_err(|what| Error::invalid(&path, what))?;
    let tokenizer_json = if manifest.files.iter().any(|e| e.name == TOKENIZER) {
        let text = String::from_utf8(read(TOKENIZER)?);
        Some(text.map_err(|_| Error::invalid(&dir.join(TOKENIZER), "not UTF-8"))?)
    } else {
        None
    };
    let tensors = |name: &str| {
        let (path, bytes) = (dir.join(name), read(name)?);
        let tensors = tensors::parse(&path, &bytes)?;
        tensors.iter().try_for_each(Array::finite).map_err(|what| Error::invalid(&path, what))?;
        Ok(tensors)
    };
    let model = tensors(MODEL)?;
    let optimizer = match optimizer {
        Optimizer::Read => tensors(OPTIMIZER)?,
        Optimizer::Verify => manifest.entry(dir, OPTIMIZER)?.verify(dir).map(|()| Vec::new())?,
    };
    Ok(Checkpoint { dir: dir.to_path_buf(), meta, model, optimizer, tokenizer_json })
}

/// Checks every checksum of the checkpoint in `dir`, in constant memory.
///
/// # Errors
/// As [`load`].
pub fn verify(dir: &Path) -> Result<()> {
    let manifest = Manifest::read(dir)?;
    for name in [MODEL, OPTIMIZER, META] {
        manifest.entry(dir, name)?;
    }
    manifest.files.iter().try_for_each(|entry| entry.verify(dir))
}

/// The valid checkpoint with the highest step (for `final`, the step in its `meta.json`), and a warning for each newer one
/// that is invalid. `None` if `run_dir` has no checkpoint or does not exist.
///
/// # Errors
/// [`Error::Io`] if `run_dir` cannot be read; [`Error::Training`] if checkpoints exist but none is valid.
pub fn newest_valid(run_dir: &Path) -> Result<Option<(Checkpoint, Vec<String>)>> {
    newest(run_dir, Optimizer::Read)
}

/// [`newest_valid`], as [`load_model`] loads it.
///
/// # Errors
/// As [`newest_valid`].
pub fn newest_model(run_dir: &Path) -> Result<Option<(Checkpoint, Vec<String>)>> {
    newest(run_dir, Optimizer::Verify)
}

fn newest(run_dir: &Path, optimizer: Optimizer) -> Result<Option<(Checkpoint, Vec<String>)>> {
    let (mut found, mut warnings) = first_valid(run_dir, u64::MAX, optimizer)?;
    if !warnings.is_empty() {
        // Either it is damaged, or a trainer replaced it between listing and reading: only the former repeats.
        (found, warnings) = first_valid(run_dir, u64::MAX, optimizer)?;
    }
    match found {
        Some(checkpoint) => Ok(Some((checkpoint, warnings))),
        None if warnings.is_empty() => Ok(None),
        None => Err(Error::Training(format!("{}: no valid checkpoint\n{}", run_dir.display(), warnings.join("\n")))),
    }
}

/// The valid checkpoint with the highest step up to `most`, and a warning for each newer one up to it that is invalid.
///
/// # Errors
/// [`Error::Io`] if `run_dir` cannot be read.
pub fn newest_up_to(run_dir: &Path, most: u64) -> Result<(Option<Checkpoint>, Vec<String>)> {
    first_valid(run_dir, most, Optimizer::Read)
}

fn first_valid(run_dir: &Path, most: u64, optimizer: Optimizer) -> Result<(Option<Checkpoint>, Vec<String>)> {
    let mut warnings = Vec::new();
    for candidate in candidates(run_dir)?.into_iter().filter(|c| c.step <= most) {
        let dir = run_dir.join(&candidate.name);
        match check_within(&dir).and_then(|()| load_parts(&dir, optimizer)) {
            Ok(checkpoint) => return Ok((Some(checkpoint), warnings)),
            Err(e) => warnings.push(format!("skipped checkpoint {}: {e}", candidate.name)),
        }
    }
    Ok((None, warnings))
}

/// Deletes all `step_N` except the `keep` with the highest steps, and returns the deleted names. The newest valid one is
/// always kept (so `keep` 0 acts as 1 if all are valid), and `final` too.
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
    let newest_valid = steps.iter().position(|(_, name)| verify_within(&run_dir.join(name)).is_ok());
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

/// Every name in `run_dir` that may be a checkpoint, in the order of preference.
fn candidates(run_dir: &Path) -> Result<Vec<Candidate>> {
    let mut found = Vec::new();
    for name in names(run_dir)? {
        let visible = name.strip_prefix(OLD).unwrap_or(&name);
        let step = match step_of(visible) {
            Some(step) => step,
            // If damaged, it comes first, so that it is reported as skipped.
            None if visible == "final" => peek_step(&run_dir.join(&name)).unwrap_or(u64::MAX),
            None => continue,
        };
        found.push(Candidate { name, step });
    }
    // At equal steps, current names come before `.old-` ones, then `final` before `step_N`.
    let rank = |c: &Candidate| (c.step, !c.name.starts_with(OLD), !c.name.contains("step_"));
    found.sort_by_key(|c| std::cmp::Reverse(rank(c)));
    Ok(found)
}

/// The step in an unverified `meta.json`, which suffices to order candidates.
fn peek_step(dir: &Path) -> Option<u64> {
    check_within(dir).ok()?;
    let bytes = files::read(&dir.join(META), Links::Refuse, MAX_META).ok()?;
    serde_json::from_slice::<serde_json::Value>(&bytes).ok()?.get("step")?.as_u64()
}

/// N of `step_N`; only in the spelling of [`step_name`].
fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix("step_")?.parse().ok()?;
    (step_name(step) == name).then_some(step)
}

/// All names in `run_dir`, sorted; none if it does not exist.
fn names(run_dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io(run_dir, e)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| Error::io(run_dir, e))?;
        names.extend(entry.file_name().into_string().ok());
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
