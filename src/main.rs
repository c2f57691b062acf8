//! The command line. What the commands do is in the library; here are their flags, and how they talk.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    quiet_mesa();
    cli::run()
}

/// Mesa's layer that puts a desktop's preferred GPU first asks the desktop, and prints errors where there is none. Devices are
/// ranked here anyway.
fn quiet_mesa() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        #[expect(unsafe_code, reason = "the layer is told by the environment")]
        // SAFETY: no other thread runs yet.
        unsafe {
            std::env::set_var("NODEVICE_SELECT", "1");
        }
    }
}
