//! SIGINT and SIGTERM: the first one is noted for the training loop to stop at a good moment, the second ends the
//! process at once. Exit codes are 128 + signal: 130 for SIGINT, 143 for SIGTERM.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The signals the process was asked to stop with.
#[derive(Clone, Debug)]
pub struct Signals {
    /// 0, or the signal that came.
    pending: Arc<AtomicUsize>,
}

impl Signals {
    /// Takes over SIGINT and SIGTERM for the rest of the process; a second call returns the same state.
    ///
    /// # Panics
    /// If the operating system refuses a handler, which it has no reason to for these signals.
    pub fn install() -> Self {
        static INSTALLED: OnceLock<Signals> = OnceLock::new();
        INSTALLED.get_or_init(Self::register).clone()
    }

    fn register() -> Self {
        let pending = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in this order: exit comes before the flag that arms it, so only a second signal exits.
            let installed = flag::register_conditional_shutdown(signal, Self::exit_code(signal), Arc::clone(&seen))
                .and_then(|_| flag::register(signal, Arc::clone(&seen)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&pending), signal as usize));
            installed.expect("SIGINT and SIGTERM can be handled");
        }
        Signals { pending }
    }

    /// The signal that came, if one did; it stays pending.
    pub fn pending(&self) -> Option<i32> {
        match self.pending.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal as i32),
        }
    }

    /// The exit code of a process that stops because of `signal`.
    pub fn exit_code(signal: i32) -> i32 {
        128 + signal
    }
}
