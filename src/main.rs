//! The command line program: flags and output. The library does the work.

#![warn(clippy::print_stdout, clippy::print_stderr)] // they panic where nothing can be written

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    quiet_mesa();
    unset_empty();
    cli::run()
}

/// Makes empty variables of this program unset ones, for every flag that has one.
fn unset_empty() {
    for name in cli::empty_variables() {
        #[expect(unsafe_code, reason = "flags read the environment")]
        // SAFETY: no other thread runs yet.
        unsafe {
            std::env::remove_var(name);
        }
    }
}

/// Disables the Mesa layer that puts a desktop's preferred GPU first: it prints errors when there is no desktop. This program
/// ranks devices itself.
fn quiet_mesa() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        #[expect(unsafe_code, reason = "the layer is controlled by the environment")]
        // SAFETY: no other thread runs yet.
        unsafe {
            std::env::set_var("NODEVICE_SELECT", "1");
        }
    }
}
