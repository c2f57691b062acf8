//! The progress bar of a run: with the feature `cli`, if standard error is a terminal and not a dumb one.

#[cfg(feature = "cli")]
mod shown {
    use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
    use std::io::IsTerminal;

    #[derive(Debug)]
    pub struct Bar(ProgressBar);

    impl Bar {
        /// A bar of `total` steps of which `first` are completed; `None` without a terminal.
        pub fn new(total: u64, first: u64) -> Option<Bar> {
            let terminal = std::io::stderr().is_terminal() && std::env::var("TERM").as_deref() != Ok("dumb");
            terminal.then(|| {
                let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
                bar.set_style(style());
                Bar(bar.with_position(first))
            })
        }

        pub fn set_position(&self, step: u64) {
            self.0.set_position(step);
        }

        pub fn set_message(&self, text: String) {
            self.0.set_message(text);
        }

        /// Runs `write` while the bar is hidden.
        pub fn suspend(&self, write: impl FnOnce()) {
            self.0.suspend(write);
        }

        /// Leaves the bar as it is and moves to the line below it.
        pub fn abandon(&self) {
            self.0.abandon();
        }
    }

    fn style() -> ProgressStyle {
        let color = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let template =
            if color { "{bar:24.cyan/blue} {pos}/{len}  {wide_msg}" } else { "{bar:24} {pos}/{len}  {wide_msg}" };
        ProgressStyle::with_template(template).expect("the template is well-formed").progress_chars("━╸─")
    }
}

#[cfg(not(feature = "cli"))]
mod absent {
    #[derive(Debug)]
    pub enum Bar {}

    impl Bar {
        pub fn new(_total: u64, _first: u64) -> Option<Bar> {
            None
        }

        pub fn set_position(&self, _step: u64) {
            match *self {}
        }

        pub fn set_message(&self, _text: String) {
            match *self {}
        }

        pub fn suspend(&self, _write: impl FnOnce()) {
            match *self {}
        }

        pub fn abandon(&self) {
            match *self {}
        }
    }
}

#[cfg(not(feature = "cli"))]
pub use absent::Bar;
#[cfg(feature = "cli")]
pub use shown::Bar;
