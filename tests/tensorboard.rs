//! Reads event files with TensorBoard itself, if NANOTERN_PYTHON names a Python that has tensorboard.
#![cfg(feature = "native")]

use std::io::Write;
use std::process::Command;

use nanotern::train::tensorboard::EventWriter;

const READER: &str = r#"
import math, sys
from tensorboard.backend.event_processing import event_accumulator, event_file_loader
acc = event_accumulator.EventAccumulator(sys.argv[1], size_guidance={"scalars": 0})
acc.Reload()
assert sorted(acc.Tags()["scalars"]) == ["loss", "train/lr", "val_loss"], acc.Tags()
points = lambda tag: [(e.step, e.value) for e in acc.Scalars(tag)]
assert points("train/lr") == [(s, s / 1024) for s in range(1, 401)], points("train/lr")
loss = points("loss")
assert [s for s, _ in loss] == list(range(1, 401))
assert all(v == (0.5 if s <= 200 else 0.25) for s, v in loss if s != 7) and math.isnan(loss[6][1])
assert points("val_loss") == [(2**40, 3.5)], points("val_loss")
print("tensorboard agrees")
"#;

#[test]
fn tensorboard_reads_the_events() {
    let dir = tempfile::tempdir().unwrap();
    let mut events = EventWriter::open(dir.path(), 0).0;
    for step in 1..=300u16 {
        let loss = if step == 7 { f32::NAN } else { 0.5 };
        events.scalars(step.into(), &[("loss", loss), ("train/lr", f32::from(step) / 1024.0)]);
    }
    let path = events.path().to_path_buf();
    drop(events);
    // Killed within a record.
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    // Resumed at step 200, so the points after it must be replaced.
    let (mut events, said) = EventWriter::open(dir.path(), 200);
    assert_eq!((events.path(), said), (&*path, None), "a run has one event file");
    for step in 201..=400u16 {
        events.scalars(step.into(), &[("loss", 0.25), ("train/lr", f32::from(step) / 1024.0)]);
    }
    events.scalars(1 << 40, &[("val_loss", 3.5)]);
    assert!(events.path().file_name().unwrap().to_str().unwrap().starts_with("events.out.tfevents."));

    let Ok(python) = std::env::var("NANOTERN_PYTHON") else {
        let _ = writeln!(
            std::io::stderr(),
            "not checked by the real reader: NANOTERN_PYTHON names no Python with tensorboard"
        );
        return;
    };
    let output = Command::new(python).args(["-c", READER]).arg(dir.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("tensorboard agrees"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
