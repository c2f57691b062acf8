//! Any text is a configuration that can be built, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::train::Config;
use nanotern_fuzz as _;

fuzz_target!(|text: &str| {
    let Ok(table) = text.parse::<toml::Table>() else { return };
    if let Ok(config) = table.try_into::<Config>() {
        let _ = config.check();
    }
});
