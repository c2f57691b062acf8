//! Looped layers: a token passes some layers several times (Dehghani et al. 2019, "Universal Transformers"; Saunshi et al.
//! 2025, "Reasoning with Latent Thoughts"). They have one set of weights, but each pass has keys and values of its own.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Most times that a token passes shared layers.
const MOST_TIMES: usize = 64;

/// The `[model.loop]` section: the layers of the model in three parts, of which the second is passed several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopOptions {
    /// Layers before the shared ones.
    pub before: usize,
    /// Layers that are passed several times.
    pub shared: usize,
    /// How often they are passed. A model may be used with fewer passes than it was trained with.
    pub times: usize,
    /// Layers after them.
    pub after: usize,
}

impl LoopOptions {
    /// The layers in the order in which a token passes them.
    pub(super) fn schedule(self) -> impl Iterator<Item = usize> {
        let end = self.before + self.shared;
        let shared = (0..self.times).flat_map(move |_| self.before..end);
        (0..self.before).chain(shared).chain(end..end + self.after)
    }

    /// Refuses a loop that is not one of `layers` layers.
    ///
    /// # Errors
    /// [`Error::Usage`] names the key and the limit.
    pub(super) fn check(self, layers: usize) -> Result<()> {
        let LoopOptions { before, shared, times, after } = self;
        let fail = |what: String| Err(Error::usage(format!("[model.loop] {what}")));
        let sum = [before, shared, after].into_iter().try_fold(0usize, usize::checked_add);
        if sum != Some(layers) {
            return fail(format!(
                "before = {before}, shared = {shared} and after = {after} must be the layers of the model, which has {layers}"
            ));
        }
        if shared == 0 {
            return fail("shared = 0: at least one layer must be passed several times".into());
        }
        if !(1..=MOST_TIMES).contains(&times) {
            return fail(format!("times = {times}: between 1 and {MOST_TIMES} is possible"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_layers_are_passed_several_times() {
        let all = |before, shared, times, after| LoopOptions { before, shared, times, after };
        assert_eq!(all(1, 2, 3, 1).schedule().collect::<Vec<_>>(), [0, 1, 2, 1, 2, 1, 2, 3]);
        assert_eq!(all(0, 1, 2, 0).schedule().collect::<Vec<_>>(), [0, 0]);
        assert_eq!(all(2, 1, 1, 2).schedule().collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_loop_that_is_none_is_refused_with_its_limits() {
        for (before, shared, times, after, said) in [
            (1, 1, 2, 1, "must be the layers of the model, which has 4"),
            (usize::MAX, 5, 2, usize::MAX, "must be the layers"),
            (2, 0, 2, 2, "shared = 0"),
            (1, 2, 0, 1, "times = 0: between 1 and 64"),
            (1, 2, 65, 1, "times = 65"),
        ] {
            let error = LoopOptions { before, shared, times, after }.check(4).unwrap_err().to_string();
            assert!(error.contains("[model.loop]") && error.contains(said), "{error}");
        }
        assert!(LoopOptions { before: 1, shared: 2, times: 64, after: 1 }.check(4).is_ok());
    }
}
