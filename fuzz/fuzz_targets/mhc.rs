//! Any bytes are a .mhc file or an error. Writing the file again gives the same bytes, except for the version.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::formats::mhc::MhcFile;
use nanotern_fuzz as _;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(file) = MhcFile::parse(bytes) {
        assert_eq!(file.to_bytes()[8..], bytes[8..]);
    }
});
