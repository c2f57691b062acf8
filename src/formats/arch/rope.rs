//! The keys of files of llama.cpp that say how rotary frequencies are scaled.

use super::super::gguf::keys::{KeyWriter, Keys, required};
use crate::model::RopeScaling;

/// How they are scaled, and by what.
const TYPE: &str = "rope.scaling.type";
const FACTOR: &str = "rope.scaling.factor";
/// The numbers of YaRN.
const CONTEXT: &str = "rope.scaling.original_context_length";
const ATTENTION: &str = "rope.scaling.attn_factor";
const FAST: &str = "rope.scaling.yarn_beta_fast";
const SLOW: &str = "rope.scaling.yarn_beta_slow";
/// How much of YaRN counts; llama.cpp takes all of it unless a file says otherwise.
const EXTRAPOLATION: &str = "rope.scaling.yarn_ext_factor";
/// Whether the model was trained with the scaling. It says nothing of what is computed.
const TUNED: &str = "rope.scaling.finetuned";

/// Writes how frequencies are scaled, which other programs read where it is linear.
pub(super) fn write(scaling: Option<&RopeScaling>, arch: &str, out: &mut KeyWriter) {
    if let Some(RopeScaling::Linear { factor }) = scaling {
        out.str(&format!("{arch}.{TYPE}"), "linear");
        out.f32(&format!("{arch}.{FACTOR}"), *factor as f32);
    }
}

/// How frequencies are scaled, if they are, and the keys that say so.
pub(super) fn scaling(
    keys: &Keys<'_, '_>,
    arch: &str,
) -> Result<(Option<RopeScaling>, &'static [&'static str]), String> {
    let key = |name: &str| format!("{arch}.{name}");
    let number = |name: &str| keys.finite(&key(name)).map(|number| number.map(f64::from));
    let (kind, factor) = (key(TYPE), key(FACTOR));
    // Files say "none" with a factor of 0 or 1.
    let by = number(FACTOR)?.filter(|by| ![0.0, 1.0].contains(by));
    let plain: &[&str] = &[TYPE, FACTOR, TUNED];
    match (keys.str(&kind)?, by) {
        (Some("yarn"), _) => {
            let factor = required(number(FACTOR), &factor)?;
            let context = required(keys.size(&key(CONTEXT)), &key(CONTEXT))?;
            if let Some(other) = number(EXTRAPOLATION)?.filter(|part| *part != 1.0) {
                return Err(format!("key {:?} is {other}: this program does not honour it", key(EXTRAPOLATION)));
            }
            let scaling = RopeScaling::Yarn {
                factor,
                beta_fast: number(FAST)?.unwrap_or(32.0),
                beta_slow: number(SLOW)?.unwrap_or(1.0),
                original_context: context as f64,
                attention_factor: RopeScaling::recommended(factor) * number(ATTENTION)?.unwrap_or(1.0),
            };
            Ok((Some(scaling), &[TYPE, FACTOR, TUNED, CONTEXT, ATTENTION, FAST, SLOW, EXTRAPOLATION]))
        }
        (Some("none" | "linear") | None, None) => Ok((None, plain)),
        // Where no key names the kind, it is this one.
        (Some("linear") | None, Some(factor)) => Ok((Some(RopeScaling::Linear { factor }), plain)),
        (Some("none"), Some(by)) => Err(format!("key {factor:?} is {by}, but {kind:?} is \"none\"")),
        (Some(other), _) => Err(format!("key {kind:?} is {other:?}: this program does not honour it")),
    }
}
