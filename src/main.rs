//! The command line. What the commands do is in the library; here are their flags, and how they talk.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
