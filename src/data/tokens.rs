//! Token ids in memory or in a file. A token file is little-endian u32 ids without a header; a `.json` file beside it
//! describes them.

#[cfg(feature = "native")]
use crate::error::{Error, Result};
#[cfg(feature = "native")]
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A sequence of token ids, owned or memory-mapped.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Store,
}

#[derive(Clone, Debug)]
enum Store {
    Owned(Vec<u32>),
    #[cfg(feature = "native")]
    Mapped {
        map: Arc<memmap2::Mmap>,
        range: std::ops::Range<usize>, // in tokens
    },
}

impl From<Vec<u32>> for Tokens {
    fn from(ids: Vec<u32>) -> Self {
        Self { store: Store::Owned(ids) }
    }
}

impl Tokens {
    /// All ids, in order.
    pub fn as_slice(&self) -> &[u32] {
        match &self.store {
            Store::Owned(ids) => ids,
            #[cfg(feature = "native")]
            Store::Mapped { map, range } => &bytemuck::cast_slice(map)[range.clone()],
        }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether it contains no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The description of a token file, in the `.json` beside it.
#[cfg(feature = "native")]
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TokenMeta {
    /// Size of the tokenizer's vocabulary: all ids are below it.
    pub vocab_size: usize,
    /// [`crate::tokenizer::Tokenizer::hash`].
    pub tokenizer_hash: String,
    /// Number of tokens in the file.
    pub tokens: u64,
    /// Bytes of the encoded UTF-8 text.
    pub bytes: u64,
}

#[cfg(feature = "native")]
impl TokenMeta {
    /// The description's path for the token file `bin`.
    pub fn path(bin: &Path) -> PathBuf {
        bin.with_extension("json")
    }

    /// Reads the description of the token file `bin`; `None` if it does not exist.
    ///
    /// # Errors
    /// When it cannot be read or parsed.
    pub fn read(bin: &Path) -> Result<Option<Self>> {
        let path = Self::path(bin);
        if path == bin || !path.exists() {
            return Ok(None);
        }
        let text = crate::files::read_utf8(&path)?;
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|e| Error::invalid(&path, format!("does not describe a token file: {e}")))
    }
}

#[cfg(feature = "native")]
impl Tokens {
    /// Maps a token file into memory.
    ///
    /// # Errors
    /// When it cannot be mapped, is empty, has a size that is not a multiple of 4 bytes, or differs from its description.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        let size = file.metadata().map_err(|e| Error::io(path, e))?.len();
        if size == 0 {
            return Err(Error::invalid(path, "the token file is empty"));
        }
        if size % 4 != 0 {
            let what = format!("has {size} bytes, not a multiple of 4: a token file is little-endian u32 ids");
            return Err(Error::invalid(path, what));
        }
        if let Some(meta) = TokenMeta::read(path)?
            && meta.tokens != size / 4
        {
            let what = format!("has {} tokens, but {} says {}", size / 4, TokenMeta::path(path).display(), meta.tokens);
            return Err(Error::invalid(path, what));
        }
        #[expect(unsafe_code, reason = "a memory map cannot be made without it")]
        // SAFETY: the map is read-only. Token files are replaced by rename, so a mapped one keeps its contents. A user who
        // truncates one in place ends the process.
        let map = unsafe { memmap2::Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
        if cfg!(target_endian = "big") {
            let ids: Vec<u32> = bytemuck::cast_slice(&map).iter().map(|&id: &u32| u32::from_le(id)).collect();
            return Ok(ids.into());
        }
        let range = 0..map.len() / 4;
        Ok(Self { store: Store::Mapped { map: Arc::new(map), range } })
    }

    /// Checks that every id is below `vocab_size`.
    ///
    /// # Errors
    /// Names `path`, and the first larger id with its byte offset.
    pub fn check(&self, vocab_size: usize, path: &Path) -> Result<()> {
        let ids = self.as_slice();
        // Computing the maximum vectorises; searching for the first offender does not.
        let largest = ids.iter().copied().fold(0, u32::max) as usize;
        if largest < vocab_size {
            return Ok(());
        }
        let at = ids.iter().position(|&id| id as usize >= vocab_size).expect("the largest id is one");
        let what = format!("id {} at offset {} is not below the vocabulary size {vocab_size}", ids[at], at * 4);
        Err(Error::invalid(path, what))
    }

    /// The first `at` tokens and the rest, without copying a mapped file.
    ///
    /// # Panics
    /// When `at` exceeds the number of tokens.
    pub fn split_at(self, at: usize) -> (Self, Self) {
        match self.store {
            Store::Owned(mut ids) => {
                let rest = ids.split_off(at);
                (ids.into(), rest.into())
            }
            Store::Mapped { map, range } => {
                let middle = range.start + at;
                assert!(middle <= range.end, "split at {at} of {} tokens", range.len());
                let first = Store::Mapped { map: map.clone(), range: range.start..middle };
                (Self { store: first }, Self { store: Store::Mapped { map, range: middle..range.end } })
            }
        }
    }
}

/// Writes a token file and then its description, each atomically.
///
/// # Errors
/// When a file cannot be written.
#[cfg(feature = "native")]
pub fn write_tokens(path: &Path, ids: &[u32], meta: &TokenMeta) -> Result<()> {
    use crate::files::write_atomic;
    // The old description must not stay beside new contents.
    match std::fs::remove_file(TokenMeta::path(path)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&TokenMeta::path(path), e)),
        _ => {}
    }
    if cfg!(target_endian = "little") {
        write_atomic(path, bytemuck::cast_slice(ids))?;
    } else {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        write_atomic(path, &bytes)?;
    }
    let json = serde_json::to_string_pretty(meta).expect("plain fields");
    write_atomic(&TokenMeta::path(path), json.as_bytes())
}
