//! SIMD levels: which instruction sets a kernel may use, detected at run time.

use std::{fmt, str::FromStr};

/// An instruction-set level. `Scalar` is the definition of every op and exists on every target; the others are ordered
/// by rank, which is not a promise about speed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Level {
    /// Plain Rust.
    Scalar,
    /// WebAssembly with 128-bit SIMD, if compiled for it: a module with unknown instructions is refused as a whole.
    Simd128,
    /// 64-bit Arm, all of which has NEON.
    Neon,
    /// `Neon` with products of bytes (`sdot`).
    Dotprod,
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
    } else if cfg!(target_arch = "aarch64") {
        &[Self::Scalar, Self::Neon, Self::Dotprod]
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
            Self::Avx2 => avx2(),
            Self::Avx512 => avx2() && avx512(),
            Self::Simd128 | Self::Neon | Self::Dotprod => false,
        }
    }

    /// Whether kernels of this level can run here. The standard library caches the CPU query.
    #[cfg(target_arch = "aarch64")]
    pub fn is_available(self) -> bool {
        match self {
            Self::Scalar | Self::Neon => true,
            Self::Dotprod => std::arch::is_aarch64_feature_detected!("dotprod"),
            Self::Simd128 | Self::Avx2 | Self::Avx512 => false,
        }
    }

    /// Whether kernels of this level can run here.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub fn is_available(self) -> bool {
        self == Self::Scalar || self == Self::Simd128 && cfg!(target_feature = "simd128")
    }

    /// The name used on command lines and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Scalar => "scalar",
            Self::Simd128 => "simd128",
            Self::Neon => "neon",
            Self::Dotprod => "dotprod",
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

/// Calls a function compiled for a SIMD level: `at_level!(level, f, (a: A, b: B) -> R)`.
///
/// `f` is an `#[inline(always)]` function for all levels; or `[scalar, simd128, avx2, avx512, neon, dotprod]`, each for its
/// level; or four of them, `[scalar, avx2, avx512, neon]`: then `simd128` is as `scalar`, and `dotprod` as `neon`. The
/// arguments are variables. The types of [`isa`](crate::simd::isa) are in scope.
macro_rules! at_level {
    ($level:expr, [$scalar:path, $simd128:path, $avx2:path, $avx512:path, $neon:path, $dotprod:path $(,)?],
        ($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)?) => {{
        #[allow(unused_imports, reason = "not every function names its instructions")]
        use $crate::simd::isa::Plain;
        #[cfg(target_arch = "x86_64")]
        {
            #[allow(unused_imports, reason = "not every function names its instructions")]
            use $crate::simd::x86::{Avx2, Avx512};
            #[target_feature(enable = "avx2,fma,f16c")]
            fn avx2($($arg: $ty),*) $(-> $out)? { $avx2($($arg),*) }
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
            fn avx512($($arg: $ty),*) $(-> $out)? { $avx512($($arg),*) }
            match $level {
                // SAFETY: a level is only used where `Level::is_available` holds.
                $crate::Level::Avx2 => unsafe { avx2($($arg),*) },
                // SAFETY: as above.
                $crate::Level::Avx512 => unsafe { avx512($($arg),*) },
                _ => $scalar($($arg),*),
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            #[allow(unused_imports, reason = "not every function names its instructions")]
            use $crate::simd::arm::{Dotprod, Neon};
            #[target_feature(enable = "dotprod")]
            fn dotprod($($arg: $ty),*) $(-> $out)? { $dotprod($($arg),*) }
            match $level {
                $crate::Level::Neon => $neon($($arg),*),
                // SAFETY: a level is only used where `Level::is_available` holds.
                $crate::Level::Dotprod => unsafe { dotprod($($arg),*) },
                _ => $scalar($($arg),*),
            }
        }
        #[cfg(target_feature = "simd128")]
        {
            #[allow(unused_imports, reason = "not every function names its instructions")]
            use $crate::simd::wasm::Simd128;
            match $level {
                $crate::Level::Simd128 => $simd128($($arg),*),
                _ => $scalar($($arg),*),
            }
        }
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64", target_feature = "simd128")))]
        {
            let _ = $level;
            $scalar($($arg),*)
        }
    }};
    ($level:expr, [$scalar:path, $avx2:path, $avx512:path, $neon:path $(,)?], ($($args:tt)*) $(-> $out:ty)?) => {
        $crate::at_level!($level, [$scalar, $scalar, $avx2, $avx512, $neon, $neon], ($($args)*) $(-> $out)?)
    };
    ($level:expr, $body:path, ($($args:tt)*) $(-> $out:ty)?) => {
        $crate::at_level!($level, [$body, $body, $body, $body, $body, $body], ($($args)*) $(-> $out)?)
    };
}
pub(crate) use at_level;

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

    #[test]
    fn the_machine_has_the_level_that_is_required() {
        if let Ok(level) = std::env::var("NANOTERN_REQUIRE_LEVEL") {
            assert_eq!(level.parse(), Ok(Level::detect()));
        }
    }
}
