//! Progress of long reading on standard error: a bar on a terminal, otherwise one line for each pass.

use std::cell::Cell;
use std::io::Write;

/// A corpus of fewer bytes on the disk than this is read without a word.
const LONG: u64 = 64 << 20;

/// Counts the bytes of a pass over a corpus.
#[derive(Debug)]
pub(super) struct Meter {
    done: Cell<u64>,
    #[cfg(feature = "cli")]
    bar: indicatif::ProgressBar,
}

impl Meter {
    /// A meter of `total` bytes that shows `what` is done.
    pub fn new(what: &'static str, total: u64) -> Meter {
        if total < LONG {
            return Meter::silent();
        }
        #[cfg(feature = "cli")]
        if std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var("TERM").as_deref() != Ok("dumb") {
            let style = indicatif::ProgressStyle::with_template("{msg} {bar:24} {bytes}/{total_bytes}  {eta}");
            let bar = indicatif::ProgressBar::new(total).with_message(what);
            bar.set_style(style.expect("the template is well-formed").progress_chars("━╸─"));
            return Meter { done: Cell::new(0), bar };
        }
        let _ = writeln!(std::io::stderr(), "{what} {} MiB", total >> 20); // a closed terminal is no error
        Meter::silent()
    }

    /// A meter that shows nothing.
    pub fn silent() -> Meter {
        Meter {
            done: Cell::new(0),
            #[cfg(feature = "cli")]
            bar: indicatif::ProgressBar::hidden(),
        }
    }

    /// Counts bytes read.
    pub fn add(&self, bytes: u64) {
        self.done.set(self.done.get() + bytes);
        #[cfg(feature = "cli")]
        self.bar.set_position(self.done.get());
    }
}

#[cfg(feature = "cli")]
impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
