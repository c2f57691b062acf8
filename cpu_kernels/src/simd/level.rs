//! SIMD levels: which instruction sets a kernel may use, detected at run time.

use std::{fmt, str::FromStr};

/// An instruction-set level. `Scalar` is the definition of every op and exists on every target; the others are ordered
/// by rank, which is not a promise about speed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    Scalar,
    /// WebAssembly with 128-bit SIMD, if compiled for it: a module with unknown instructions is refused as a whole.
    Simd128,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// x86-64 with AVX-512 F, BW, VL, DQ and VNNI (and everything `Avx2` asks for).
    Avx512,
}

impl Level {
    /// The levels of this architecture, lowest first.
    pub const ALL: &'static [Self] = if cfg!(target_arch = "x86_64") {
        &[Self::Scalar, Self::Avx2, Self::Avx512]
    } else if cfg!(target_arch = "wasm32") {
        &[Self::Scalar, Self::Simd128]
    } else {
        &[Self::Scalar]
    };

    /// The highest level this machine has.
    pub fn detect() -> Self {
        Self::ALL.iter().rfind(|l| l.is_available()).copied().unwrap_or(Self::Scalar)
    }

    /// Every level this machine has, lowest first.
    pub fn available() -> Vec<Self> {
        Self::ALL.iter().copied().filter(|l| l.is_available()).collect()
    }

    /// Whether kernels of this level can run here. The standard library caches the CPU query.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        let avx2 =
            || is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        let avx512 = || {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vnni")
        };
        match self {
            Self::Scalar => true,
            Self::Simd128 => false,
            Self::Avx2 => avx2(),
            Self::Avx512 => avx2() && avx512(),
        }
    }

    /// Whether kernels of this level can run here.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        self == Self::Scalar || self == Self::Simd128 && cfg!(target_feature = "simd128")
    }

    /// The name used on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Simd128 => "simd128",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    /// Panics where `self` cannot run: every entry point calls it once, and the unsafe blocks behind rely on it.
    #[inline]
    pub(crate) fn require(self) {
        assert!(self.is_available(), "SIMD level {self} is not available on this machine");
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|l| l.name().eq_ignore_ascii_case(s)).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|l| l.name()).collect();
            format!("unknown SIMD level `{s}` ({})", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for level in Level::ALL {
            assert_eq!(level.to_string().parse(), Ok(*level));
        }
        assert!("sse9".parse::<Level>().is_err());
        assert_eq!(Level::available().last(), Some(&Level::detect()));
    }
}
