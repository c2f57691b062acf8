//! A checkpoint with an arbitrary manifest gives an error, and no file outside its directory is touched.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::checkpoint;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(dir.path().join("manifest.json"), bytes).expect("a file in it");
    assert!(checkpoint::load(dir.path()).is_err() && checkpoint::verify(dir.path()).is_err());
});
