//! SIGINT, SIGTERM and SIGHUP. The first signal is recorded, so that the work in progress can be saved; a second one ends the
//! process at once. Exit codes are 128 + signal: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP. A SIGHUP that was ignored
//! when the program started, as under `nohup`, stays ignored.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The process's handler of signals.
#[derive(Clone, Debug)]
pub struct Signals {
    /// The signal that was received, or 0.
    pending: Arc<AtomicUsize>,
}

static INSTALLED: OnceLock<Signals> = OnceLock::new();

impl Signals {
    /// Handles the signals from now on. Further calls return the same state.
    ///
    /// # Panics
    /// If the operating system rejects a handler, for which it has no reason with these signals.
    pub fn install() -> Self {
        INSTALLED.get_or_init(Self::register).clone()
    }

    fn register() -> Self {
        let pending = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM].into_iter().chain(hangup()) {
            // Handlers run in this order. The exit comes before the flag that enables it, so only a second signal exits.
            let installed = flag::register_conditional_shutdown(signal, Self::exit_code(signal), Arc::clone(&seen))
                .and_then(|_| flag::register(signal, Arc::clone(&seen)))
                .and_then(|_| flag::register_usize(signal, Arc::clone(&pending), signal as usize));
            installed.expect("SIGINT, SIGTERM and SIGHUP can be handled");
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

    /// Whether a signal was received since [`Signals::install`].
    pub fn arrived() -> bool {
        INSTALLED.get().is_some_and(|signals| signals.pending().is_some())
    }

    /// The exit code of a process that stops because of `signal`.
    pub fn exit_code(signal: i32) -> i32 {
        128 + signal
    }
}

/// SIGHUP, unless the system has none or it is ignored.
fn hangup() -> Option<i32> {
    #[cfg(unix)]
    {
        use signal_hook::consts::SIGHUP;
        #[expect(unsafe_code, reason = "no crate tells the action of a signal without it")]
        // SAFETY: zeros are a valid `sigaction`, and without a new action the call only writes the present one.
        let ignored = unsafe {
            let mut present: libc::sigaction = std::mem::zeroed();
            libc::sigaction(SIGHUP, std::ptr::null(), &mut present) == 0 && present.sa_sigaction == libc::SIG_IGN
        };
        (!ignored).then_some(SIGHUP)
    }
    #[cfg(not(unix))]
    {
        None
    }
}
