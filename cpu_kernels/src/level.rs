//! Instruction-set levels.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Level {
    Scalar,
    Avx2,
    Avx512,
}
impl Level {
    pub fn is_available(self) -> bool {
        true
    }
    pub fn detect() -> Self {
        Level::Scalar
    }
}
impl std::fmt::Display for Level {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}
