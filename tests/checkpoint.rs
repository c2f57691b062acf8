//! Checkpoints survive flipped bits, truncation, kills during a save, full disks and a second trainer.
#![cfg(feature = "native")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nanotern::checkpoint::Array;
use nanotern::checkpoint::{self as ck, Meta, RunLock, RunState};

fn tensor(name: &str, shape: &[usize], data: Vec<f32>) -> Array {
    Array::f32(name, shape, data)
}

fn weights(step: u64) -> Vec<Array> {
    let ramp = |n: usize| (0..n).map(|i| i as f32 * 0.37 - step as f32).collect();
    vec![tensor("blk.0.attn_q", &[4, 8], ramp(32)), tensor("token_embd", &[16, 4], ramp(64))]
}

fn meta(step: u64) -> Meta {
    Meta {
        step,
        tokens: step * 2048,
        config: serde_json::json!({"model": {"dim": 256}, "optim": {"lr": 0.02}}),
        train_loss: Some(0.1 + 0.2),
        seed: u64::MAX,
        state: RunState { logged: step, device: Some("cpu (ü)".to_string()), ..RunState::default() },
        ..Meta::default()
    }
}

fn save(run: &Path, name: &str, step: u64) -> nanotern::Result<PathBuf> {
    ck::save(run, name, &meta(step), &weights(step), &weights(step + 1), Some("{\"tokenizer\": 1}"))
}

/// The step and the number of warnings of the newest valid checkpoint.
fn newest(run: &Path) -> Option<(u64, usize)> {
    ck::newest_valid(run).unwrap().map(|(c, warnings)| (c.meta.step, warnings.len()))
}

fn names(run: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(run).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn bits(tensors: &[Array]) -> Vec<(String, Vec<usize>, Vec<u32>)> {
    let bits = |t: &Array| t.data.iter().map(|v| v.to_bits()).collect();
    let mut all: Vec<_> = tensors.iter().map(|t| (t.name.clone(), t.shape.clone(), bits(t))).collect();
    all.sort();
    all
}

/// A deterministic stream of numbers (SplitMix64).
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % n as u64) as usize
    }
}

#[test]
fn round_trip_is_bit_exact() {
    let dir = tempfile::tempdir().unwrap();
    let odd: Vec<f32> = [0x7f7f_ffff, 0x007f_ffff, 0xff7f_ffff, 0x8000_0000, 0x0000_0001, 0x0080_0000, 0x3f80_0001]
        .map(f32::from_bits)
        .to_vec();
    let model = vec![
        tensor("z.odd", &[7], odd),
        tensor("a.empty", &[0, 5], vec![]),
        tensor("scalar", &[], vec![-0.0]),
        tensor("m \"quoted\" ü", &[2, 1], vec![1.0, 2.0]),
        tensor("z.empty", &[3, 0], vec![]),
    ];
    let path = ck::save(dir.path(), "step_7", &meta(7), &model, &[], Some("{\"ü\":1}")).unwrap();
    assert_eq!(path, dir.path().join("step_7"));
    let loaded = ck::load(&path).unwrap();
    assert_eq!(loaded.meta, meta(7));
    assert_eq!(bits(&loaded.model), bits(&model));
    assert!(loaded.model.is_sorted_by(|a, b| a.name < b.name));
    assert_eq!(loaded.optimizer, []);
    assert_eq!(loaded.tokenizer_json.as_deref(), Some("{\"ü\":1}"));
    ck::verify(&path).unwrap();

    let mut not_finite = meta(8);
    not_finite.train_loss = Some(f64::NAN);
    let path = ck::save(dir.path(), "step_8", &not_finite, &[], &weights(8), None).unwrap();
    let loaded = ck::load(&path).unwrap();
    assert_eq!((loaded.meta.train_loss, loaded.tokenizer_json), (None, None));
    assert_eq!(names(&path), ["manifest.json", "meta.json", "model.safetensors", "optimizer.safetensors"]);
    assert_eq!(names(dir.path()), ["step_7", "step_8"]);
}

#[test]
fn tensors_and_names_are_checked() {
    let dir = tempfile::tempdir().unwrap();
    let twice = [tensor("w", &[1], vec![1.0]), tensor("w", &[1], vec![2.0])];
    let message = ck::save(dir.path(), "final", &meta(1), &twice, &[], None).unwrap_err().to_string();
    assert_eq!(message, "two tensors are named \"w\"");
    for name in ["latest", "step_", "step_01", "../final", "step_1/x"] {
        assert!(save(dir.path(), name, 1).is_err(), "{name}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
    assert!(ck::newest_valid(&dir.path().join("nowhere")).unwrap().is_none());
}

fn flipped(whole: &[u8], bit: usize) -> Vec<u8> {
    let mut damaged = whole.to_vec();
    damaged[bit / 8] ^= 1 << (bit % 8);
    damaged
}

#[test]
fn every_flipped_bit_and_every_cut_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "step_1", 1).unwrap();
    let target = save(dir.path(), "step_2", 2).unwrap();
    let files: Vec<_> =
        names(&target).into_iter().map(|n| (target.join(&n), fs::read(target.join(n)).unwrap())).collect();
    assert_eq!(files.len(), 5);
    let mut rng = Rng(1);
    let attack = |path: &Path, damaged: &[u8], whole: &[u8], what: &str| {
        fs::write(path, damaged).unwrap();
        let error = ck::load(&target).expect_err(what).to_string();
        assert!(error.contains(path.file_name().unwrap().to_str().unwrap()), "{what}: {error}");
        assert!(ck::verify(&target).is_err(), "{what}");
        assert_eq!(newest(dir.path()), Some((1, 1)), "{what}");
        fs::write(path, whole).unwrap();
    };
    let flips = (0..1000).map(|_| {
        let (path, whole) = &files[rng.below(files.len())];
        (path, whole, rng.below(whole.len() * 8))
    });
    for (path, whole, bit) in flips.collect::<Vec<_>>() {
        attack(path, &flipped(whole, bit), whole, &format!("{} bit {bit}", path.display()));
    }
    // The manifest protects itself, so all of its bits are tested, not only random ones.
    let (path, whole) = files.iter().find(|(p, _)| p.ends_with("manifest.json")).unwrap();
    for bit in 0..whole.len() * 8 {
        fs::write(path, flipped(whole, bit)).unwrap();
        assert!(ck::verify(&target).is_err(), "manifest bit {bit}");
    }
    fs::write(path, whole).unwrap();
    for _ in 0..100 {
        let (path, whole) = &files[rng.below(files.len())];
        let len = rng.below(whole.len());
        attack(path, &whole[..len], whole, &format!("{} cut to {len}", path.display()));
    }
    assert_eq!(newest(dir.path()), Some((2, 0)));
}

#[test]
fn an_error_names_the_file_and_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let target = save(dir.path(), "step_1", 1).unwrap();
    let model = target.join("model.safetensors");
    let whole = fs::read(&model).unwrap();
    let error = || ck::load(&target).unwrap_err().to_string();

    fs::write(&model, &whole[..whole.len() - 3]).unwrap();
    let (have, want) = (whole.len() - 3, whole.len());
    assert_eq!(error(), format!("{}: truncated: have {have} bytes, want {want}", model.display()));
    fs::write(&model, [&whole[..], b"x"].concat()).unwrap();
    assert!(error().contains("model.safetensors: too long"));
    let mut damaged = whole.clone();
    damaged[want - 1] ^= 1;
    fs::write(&model, &damaged).unwrap();
    assert!(error().contains("model.safetensors: checksum: have "));
    fs::remove_file(&model).unwrap();
    assert!(error().ends_with("model.safetensors: missing"));
    fs::remove_file(target.join("manifest.json")).unwrap();
    assert!(error().contains("manifest.json: missing"));
    let message = ck::newest_valid(dir.path()).unwrap_err().to_string();
    assert!(message.contains("no valid checkpoint"), "{message}");
}

fn copy_files(from: &Path, to: &Path, files: &[impl AsRef<Path>]) {
    fs::create_dir(to).unwrap();
    for file in files {
        fs::copy(from.join(file), to.join(file)).unwrap();
    }
}

fn copy_dir(from: &Path, to: &Path) {
    copy_files(from, to, &names(from));
}

#[test]
fn a_kill_during_a_save_costs_only_that_save() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    let whole = save(run, "step_1", 1).unwrap();
    // After each number of complete files, while the next one is half written.
    let order = ["model.safetensors", "optimizer.safetensors", "meta.json", "tokenizer.json", "manifest.json"];
    for done in 0..=order.len() {
        let tmp = run.join(".tmp-step_2");
        copy_files(&whole, &tmp, &order[..done]);
        if let Some(next) = order.get(done) {
            fs::write(tmp.join(next), &fs::read(whole.join(next)).unwrap()[..10]).unwrap();
        }
        assert_eq!(newest(run), Some((1, 0)), "{done} files");
        save(run, "step_2", 2).unwrap();
        assert_eq!(names(run), ["step_1", "step_2"]);
        assert_eq!(newest(run), Some((2, 0)));
        fs::remove_dir_all(run.join("step_2")).unwrap();
    }
    // A directory without a manifest, as other programs might leave it.
    fs::create_dir(run.join("step_9")).unwrap();
    fs::copy(whole.join("model.safetensors"), run.join("step_9/model.safetensors")).unwrap();
    assert_eq!(newest(run), Some((1, 1)));
}

#[test]
fn a_kill_while_replacing_final_leaves_one_valid_copy() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    let [fin, old, tmp] = ["final", ".old-final", ".tmp-final"].map(|n| run.join(n));
    save(run, "step_1", 1).unwrap();
    save(run, "final", 5).unwrap();
    save(run, "final", 6).unwrap();
    assert_eq!((newest(run), names(run)), (Some((6, 0)), vec!["final".to_string(), "step_1".to_string()]));

    // Killed between the two renames: the old one is valid and is restored by the next save.
    copy_dir(&fin, &tmp);
    fs::rename(&fin, &old).unwrap();
    assert_eq!(newest(run), Some((6, 0)));
    save(run, "step_2", 2).unwrap();
    assert_eq!((newest(run), names(run)), (Some((6, 0)), ["final", "step_1", "step_2"].map(String::from).to_vec()));

    // Killed before the old one is deleted: the new one is valid.
    copy_dir(&fin, &old);
    save(run, "step_7", 7).unwrap();
    fs::remove_dir_all(&fin).unwrap();
    fs::rename(run.join("step_7"), &fin).unwrap();
    assert_eq!(newest(run), Some((7, 0)));

    // The same, but the new one is damaged: the old one is valid and is restored.
    copy_dir(&fin, &old);
    fs::write(fin.join("meta.json"), "{").unwrap();
    assert_eq!(newest(run), Some((7, 1)));
    save(run, "step_3", 3).unwrap();
    assert_eq!(newest(run), Some((7, 0)));

    // Killed during a deletion.
    copy_dir(&run.join("step_1"), &run.join(".del-step_0"));
    save(run, "final", 8).unwrap();
    let left = ["final", "step_1", "step_2", "step_3"].map(String::from).to_vec();
    assert_eq!((newest(run), names(run)), (Some((8, 0)), left));
}

#[test]
fn a_final_is_kept_before_one_of_another_step_replaces_it() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    ck::keep_final(run, 5).unwrap();
    save(run, "final", 5).unwrap();
    ck::keep_final(run, 5).unwrap();
    assert_eq!(names(run), ["final"]);
    ck::keep_final(run, 9).unwrap();
    assert_eq!((newest(run), names(run)), (Some((5, 0)), vec!["step_5".to_string()]));
    save(run, "final", 5).unwrap();
    ck::keep_final(run, 9).unwrap();
    assert_eq!(names(run), ["final", "step_5"]);
}

#[test]
fn prune_keeps_the_last_and_the_newest_valid() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    for step in [1, 2, 3, 10, 11] {
        save(run, &ck::step_name(step), step).unwrap();
    }
    save(run, "final", 2).unwrap();
    fs::write(run.join("notes.txt"), "mine").unwrap();
    assert_eq!(newest(run), Some((11, 0)));
    assert_eq!(ck::prune(run, 4).unwrap(), ["step_1"]);
    assert_eq!(ck::prune(run, 4).unwrap(), [""; 0]);
    for step in [10, 11] {
        fs::write(run.join(ck::step_name(step)).join("meta.json"), "damaged").unwrap();
    }
    assert_eq!(ck::prune(run, 2).unwrap(), ["step_2"]);
    assert_eq!(names(run), ["final", "notes.txt", "step_10", "step_11", "step_3"]);
    assert_eq!(newest(run), Some((3, 2)));
    assert_eq!(ck::prune(run, 0).unwrap(), ["step_11", "step_10"]);
    assert_eq!(names(run), ["final", "notes.txt", "step_3"]);
    assert_eq!(ck::prune(&run.join("nowhere"), 0).unwrap(), [""; 0]);
}

/// Runs one of the `child_` tests of this file in a separate process.
fn child(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env("NANOTERN_TEST_CHILD", dir);
    command
}

/// The directory that [`child`] passed; `None` when the whole file is tested.
fn child_dir() -> Option<PathBuf> {
    std::env::var_os("NANOTERN_TEST_CHILD").map(PathBuf::from)
}

#[test]
fn a_lock_notices_that_its_directory_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    let lock = RunLock::acquire(&run).unwrap();
    lock.check().unwrap();
    if cfg!(unix) {
        // A copy with the same contents.
        let [copy, aside] = ["copy", "aside"].map(|name| dir.path().join(name));
        fs::create_dir(&copy).unwrap();
        fs::copy(run.join(".lock"), copy.join(".lock")).unwrap();
        fs::rename(&run, &aside).unwrap();
        fs::rename(&copy, &run).unwrap();
        let message = lock.check().unwrap_err().to_string();
        assert!(message.contains("run: the directory of the run was removed or replaced"), "{message}");
        fs::remove_dir_all(&run).unwrap();
        fs::rename(&aside, &run).unwrap();
        lock.check().unwrap();
    }
    fs::remove_dir_all(&run).unwrap();
    assert!(lock.check().is_err() && save(&run, "step_1", 1).is_err() && !run.exists());
}

#[test]
fn a_run_directory_has_one_trainer() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("runs/a");
    let lock = RunLock::acquire(&run).unwrap();
    let message = RunLock::acquire(&run).unwrap_err().to_string();
    assert!(message.starts_with(&run.display().to_string()), "{message}");
    if cfg!(unix) {
        assert!(message.contains(&format!("process {} ", std::process::id())), "{message}");
    }
    drop(lock);
    drop(RunLock::acquire(&run).unwrap());

    // The lock of a killed process is free, although the file still contains its pid.
    let mut holder = child("child_holds_the_lock", &run).spawn().unwrap();
    let ready = run.join("ready");
    while !ready.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let message = RunLock::acquire(&run).unwrap_err().to_string();
    if cfg!(unix) {
        assert!(message.contains(&format!("process {} ", holder.id())), "{message}");
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    RunLock::acquire(&run).unwrap();
}

#[test]
fn child_holds_the_lock() {
    let Some(run) = child_dir() else { return };
    let _lock = RunLock::acquire(&run).unwrap();
    fs::write(run.join("ready"), "").unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

/// Kills a process that saves without pause, after its first save and `moment`. Nothing that it saved may be lost or damaged.
fn kill_and_check(run: &Path, last: &mut u64, moment: impl FnOnce()) {
    let mut saver = child("child_saves_without_pause", run).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(saver.stdout.take().unwrap()).lines();
    assert!(out.any(|line| line.unwrap().starts_with("saved")));
    moment();
    saver.kill().unwrap();
    saver.wait().unwrap();
    let said = out.map_while(Result::ok).filter_map(|line| line.strip_prefix("saved ")?.parse::<u64>().ok());
    let saved = said.max().unwrap_or(*last);
    let (step, warnings) = newest(run).expect("a checkpoint was saved");
    assert!(step >= saved && step >= *last && warnings == 0, "{step} after {saved} and {last}, {warnings} warnings");
    *last = step;
}

#[test]
fn kills_at_any_moment_lose_nothing_that_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path();
    let mut rng = Rng(2);
    let mut last = 0;
    for _ in 0..20 {
        kill_and_check(run, &mut last, || std::thread::sleep(Duration::from_micros(rng.below(20_000) as u64)));
    }
}

/// Kills at the critical time when the only checkpoint is being replaced: shortly after the new one is complete.
#[test]
fn kills_while_the_only_checkpoint_is_replaced_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("final_only");
    let complete = run.join(".tmp-final/manifest.json");
    let mut rng = Rng(3);
    let mut last = 0;
    for _ in 0..40 {
        kill_and_check(&run, &mut last, || {
            while !complete.exists() {}
            let wait = Duration::from_micros(rng.below(500) as u64);
            let seen = Instant::now();
            while seen.elapsed() < wait {}
        });
    }
}

#[test]
fn child_saves_without_pause() {
    let Some(run) = child_dir() else { return };
    let _lock = RunLock::acquire(&run).unwrap();
    for step in newest(&run).map_or(1, |n| n.0 + 1)..u64::MAX {
        save(&run, "final", step).unwrap();
        println!("\nsaved {step}");
        if !run.ends_with("final_only") {
            save(&run, &ck::step_name(step), step).unwrap();
            ck::prune(&run, 2).unwrap();
        }
    }
}

/// A server may look for the newest checkpoint while a trainer replaces it.
#[test]
fn readers_find_a_checkpoint_while_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("final_only");
    let mut saver = child("child_saves_without_pause", &run).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(saver.stdout.take().unwrap()).lines();
    assert!(out.any(|line| line.unwrap().starts_with("saved")));
    let drain = std::thread::spawn(move || out.map_while(Result::ok).count());
    let found = (0..200).filter(|_| ck::newest_valid(&run).is_ok_and(|c| c.is_some())).count();
    saver.kill().unwrap();
    saver.wait().unwrap();
    drain.join().unwrap();
    // A reader may lose the race twice in a row against a trainer that saves without pause.
    assert!(found >= 150, "{found} of 200");
}

/// Checks the run directory after a failed save of step 2 beside a valid step 1.
#[cfg(unix)]
fn assert_failed_cleanly(run: &Path, error: &nanotern::Error, cause: &str) {
    let message = error.to_string();
    assert!(matches!(error, nanotern::Error::Checkpoint(_)), "{error:?}");
    assert!(message.contains(cause) && message.contains("step_2 not saved"), "{message}");
    assert!(message.ends_with("\nkept: step_1") && message.lines().count() < 3, "{message}");
    assert_eq!(names(run), ["step_1"]);
    assert_eq!(newest(run), Some((1, 0)));
}

/// Writes fail half-way through a file because the process limits files to 64 KiB. This works without any privilege.
#[cfg(unix)]
#[test]
fn a_write_that_fails_half_way_leaves_the_earlier_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "step_1", 1).unwrap();
    let output = child("child_saves_under_a_file_size_limit", dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("the limited save failed"), "{text}");
}

#[cfg(unix)]
#[test]
fn child_saves_under_a_file_size_limit() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let Some(run) = child_dir() else { return };
    // With a handler the limit becomes an error of write(2); without one it kills the process.
    const SIGXFSZ: i32 = 25;
    let seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    signal_hook::flag::register(SIGXFSZ, seen).unwrap();
    setrlimit(Resource::Fsize, Rlimit { current: Some(64 << 10), maximum: None }).unwrap();
    let large = [tensor("w", &[1 << 16], vec![1.0; 1 << 16])];
    for (model, optimizer) in [(&large[..], &[][..]), (&[], &large)] {
        let error = ck::save(&run, "step_2", &meta(2), model, optimizer, None).unwrap_err();
        let file = if model.is_empty() { "optimizer.safetensors" } else { "model.safetensors" };
        assert_failed_cleanly(&run, &error, file);
    }
    println!("the limited save failed");
}

/// A small file system, if this process may mount one.
#[cfg(target_os = "linux")]
struct Tmpfs(tempfile::TempDir);

#[cfg(target_os = "linux")]
impl Tmpfs {
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(dir.path()).output();
        mount.is_ok_and(|o| o.status.success()).then_some(Tmpfs(dir))
    }
}

#[cfg(target_os = "linux")]
impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

/// Needs the privilege to mount. Without it, the file-size limit above still exercises the error path.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_earlier_checkpoint() {
    let (Some(small), Some(few)) = (Tmpfs::mount("size=512k"), Tmpfs::mount("size=512k,nr_inodes=12")) else {
        let _ = writeln!(std::io::stderr(), "not checked on a full file system: this process may not mount one");
        return;
    };
    // Rejected before writing.
    let run = small.0.path();
    save(run, "step_1", 1).unwrap();
    let large = [tensor("w", &[1 << 17], vec![1.0; 1 << 17])];
    let error = ck::save(run, "step_2", &meta(2), &large, &[], None).unwrap_err();
    assert_failed_cleanly(run, &error, "the disk is full: a checkpoint needs 0.6 MiB");

    // ENOSPC in the middle: bytes are free, but only four more files and directories fit.
    let run = few.0.path();
    save(run, "step_1", 1).unwrap();
    let error = save(run, "step_2", 2).unwrap_err();
    assert_failed_cleanly(run, &error, "No space left on device");

    // The failed save freed its space.
    fs::remove_dir_all(run.join("step_1")).unwrap();
    save(run, "step_2", 2).unwrap();
    assert_eq!(newest(run), Some((2, 0)));
}
