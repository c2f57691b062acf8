//! SIGINT and SIGTERM. The first signal is recorded, so that the training loop stops after a step; a second one ends the
//! process at once. Exit codes are 128 + signal: 130 for SIGINT, 143 for SIGTERM.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The process's handler of SIGINT and SIGTERM.
#[derive(Clone, Debug)]
pub struct Signals {
    /// The signal that was received, or 0.
    pending: Arc<AtomicUsize>,
}

impl Signals {
    /// Handles SIGINT and SIGTERM from now on. Further calls return the same state.
    ///
    /// # Panics
    /// If the operating system rejects a handler, for which it has no reason with these signals.
    pub fn install() -> Self {
        static INSTALLED: OnceLock<Signals> = OnceLock::new();
        INSTALLED.get_or_init(Self::register).clone()
    }

    fn register() -> Self {
        let pending = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // Handlers run in this order. The exit comes before the flag that enables it, so only a second signal exits.
            let installed = flag::register_conditional_shutdown(signal, Self::exit_code(signal), Arc::clone(&seen))
                .and_then(|_| flag::register(signal, Arc::clone(&seen)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&pending), signal as usize));
            installed.expect("SIGINT and SIGTERM can be handled");
        }
        Signals { pending }
    }

    /// The signal that was received, if any. It stays pending.
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
