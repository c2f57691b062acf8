//! The text of shaders. A browser downloads it with the module, so there it is without comments, indentation and empty lines.

/// The WGSL of a file: `wgsl!(include_str!("..."))`.
#[cfg(not(target_arch = "wasm32"))]
macro_rules! wgsl {
    ($source:expr) => {
        $source
    };
}

/// The WGSL of a file: `wgsl!(include_str!("..."))`.
#[cfg(target_arch = "wasm32")]
macro_rules! wgsl {
    ($source:expr) => {{
        const SOURCE: &[u8] = $source.as_bytes();
        const BYTES: usize = $crate::ops::bare(SOURCE, &mut []);
        const BARE: [u8; BYTES] = {
            let mut bare = [0; BYTES];
            $crate::ops::bare(SOURCE, &mut bare);
            bare
        };
        match std::str::from_utf8(&BARE) {
            Ok(source) => source,
            Err(_) => panic!("a shader is not UTF-8"),
        }
    }};
}

pub(crate) use wgsl;

/// Writes `source` to `to`, as far as there is room, without what is only for readers. Lines that import stay. Returns the bytes
/// of the whole.
#[cfg(any(target_arch = "wasm32", test))]
pub(crate) const fn bare(source: &[u8], to: &mut [u8]) -> usize {
    let (mut bytes, mut at) = (0, 0);
    while at < source.len() {
        while at < source.len() && source[at] == b' ' {
            at += 1;
        }
        let start = at;
        while at < source.len() && source[at] != b'\n' && !is_comment(source, at) {
            if bytes < to.len() {
                to[bytes] = source[at];
            }
            bytes += 1;
            at += 1;
        }
        if at > start {
            if bytes < to.len() {
                to[bytes] = b'\n';
            }
            bytes += 1;
        }
        while at < source.len() && source[at] != b'\n' {
            at += 1;
        }
        at += 1;
    }
    bytes
}

/// Whether a comment begins here that is no import.
#[cfg(any(target_arch = "wasm32", test))]
const fn is_comment(source: &[u8], at: usize) -> bool {
    at + 1 < source.len()
        && source[at] == b'/'
        && source[at + 1] == b'/'
        && !(at + 2 < source.len() && source[at + 2] == b'#')
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn only_comments_and_blanks_go() {
        for source in [
            "",
            "a",
            "a\n",
            "// comment\n\n  a\n  // comment",
            "//#import name KEY=1\n  fn f() { // comment // more\n    return 1 / 2; //\n  }\n//",
        ]
        .into_iter()
        .chain(crate::ops::TABLE.iter().map(|op| op.shader))
        {
            let mut to = vec![0; bare(source.as_bytes(), &mut [])];
            assert_eq!(bare(source.as_bytes(), &mut to), to.len());
            let code = |line: &str| match line.starts_with("//#") {
                true => line.to_string(),
                false => line.split("//").next().unwrap().trim().to_string(),
            };
            let lines = source.lines().map(code).filter(|line| !line.is_empty());
            let kept = String::from_utf8(to).unwrap();
            assert!(lines.eq(kept.lines().map(|line| line.trim_end())), "{source}");
        }
    }
}
