//! Any text is a configuration that can be built, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::train::Config;

fuzz_target!(|text: &str| {
    if let Ok(config) = toml::from_str::<Config>(text) {
        let _ = config.check();
    }
});
