//! Token ids in memory or in a file. A token file is little-endian u32 ids without a header; a `.json` file beside it
//! describes them.

#[cfg(feature = "native")]
use crate::error::{Error, Result};
#[cfg(feature = "native")]
use std::{
    fs::File,
    io::{BufWriter, Write},
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
    /// Bytes of text alone, without separators and special tokens. In files of older versions, of all that was encoded.
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
        map_ids(&file).map_err(|e| Error::io(path, e))
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
    let mut writer = TokenWriter::create(path)?;
    writer.push(ids)?;
    writer.finish(meta)
}

/// Writes a token file beside its place and moves it there when it is complete.
#[cfg(feature = "native")]
pub(super) struct TokenWriter {
    path: PathBuf,
    out: BufWriter<tempfile::NamedTempFile>,
}

#[cfg(feature = "native")]
impl TokenWriter {
    /// Starts the file that is to be at `path`. Creates missing parent folders.
    pub fn create(path: &Path) -> Result<Self> {
        let file = crate::files::temporary(path)?;
        Ok(TokenWriter { path: path.to_path_buf(), out: BufWriter::with_capacity(1 << 20, file) })
    }

    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        write_ids(&mut self.out, ids).map_err(|e| Error::io(&self.path, e))
    }

    /// Moves the file to its place and writes its description.
    pub fn finish(self, meta: &TokenMeta) -> Result<()> {
        let TokenWriter { path, out } = self;
        let failed = |e| Error::io(&path, e);
        let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
        file.as_file().sync_all().map_err(failed)?;
        // The old description must not stay beside new contents.
        match std::fs::remove_file(TokenMeta::path(&path)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io(&TokenMeta::path(&path), e)),
            _ => {}
        }
        file.persist(&path).map_err(|e| failed(e.error))?;
        let json = serde_json::to_string_pretty(meta).expect("plain fields");
        crate::files::write_atomic(&TokenMeta::path(&path), json.as_bytes())
    }
}

/// Tokens in memory, or when they are many, in a file without a name that vanishes with them.
#[cfg(feature = "native")]
#[derive(Default)]
pub(super) struct TokenStore {
    ids: Vec<u32>,
    file: Option<BufWriter<File>>,
}

#[cfg(feature = "native")]
impl TokenStore {
    /// Most tokens held in memory.
    const IN_MEMORY: usize = 1 << 24;

    pub fn push(&mut self, ids: &[u32]) -> Result<()> {
        self.ids.extend_from_slice(ids);
        if self.ids.len() > Self::IN_MEMORY {
            let failed = |e| Error::io(&std::env::temp_dir(), e);
            if self.file.is_none() {
                self.file = Some(BufWriter::new(tempfile::tempfile().map_err(failed)?));
            }
            self.file.iter_mut().try_for_each(|file| write_ids(file, &self.ids)).map_err(failed)?;
            self.ids.clear();
        }
        Ok(())
    }

    /// All tokens pushed.
    pub fn finish(mut self) -> Result<Tokens> {
        let Some(mut file) = self.file.take() else { return Ok(self.ids.into()) };
        let failed = |e| Error::io(&std::env::temp_dir(), e);
        write_ids(&mut file, &self.ids).map_err(failed)?;
        map_ids(&file.into_inner().map_err(|e| failed(e.into_error()))?).map_err(failed)
    }
}

#[cfg(feature = "native")]
fn write_ids(out: &mut impl Write, ids: &[u32]) -> std::io::Result<()> {
    if cfg!(target_endian = "little") {
        return out.write_all(bytemuck::cast_slice(ids));
    }
    ids.iter().try_for_each(|id| out.write_all(&id.to_le_bytes()))
}

/// Maps a file of ids.
#[cfg(feature = "native")]
fn map_ids(file: &File) -> std::io::Result<Tokens> {
    #[expect(unsafe_code, reason = "a memory map cannot be made without it")]
    // SAFETY: the map is read-only. Token files are replaced by rename, so a mapped one keeps its contents, and a file
    // without a name has no other writer. A user who truncates a token file in place ends the process.
    let map = unsafe { memmap2::Mmap::map(file) }?;
    if cfg!(target_endian = "big") {
        let ids: Vec<u32> = bytemuck::cast_slice(&map).iter().map(|&id: &u32| u32::from_le(id)).collect();
        return Ok(ids.into());
    }
    let range = 0..map.len() / 4;
    Ok(Tokens { store: Store::Mapped { map: Arc::new(map), range } })
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn many_tokens_are_kept_in_a_file() {
        let part: Vec<u32> = (0..1 << 20).collect();
        let mut store = TokenStore::default();
        (0..17).for_each(|_| store.push(&part).unwrap());
        store.push(&[7]).unwrap();
        let tokens = store.finish().unwrap();
        assert!(matches!(tokens.store, Store::Mapped { .. }));
        assert_eq!((tokens.len(), tokens.as_slice()[17 << 20]), ((17 << 20) + 1, 7));
        assert!(tokens.as_slice()[16 << 20..17 << 20] == part);
    }

    #[test]
    fn a_writer_that_does_not_finish_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        let meta = TokenMeta { vocab_size: 9, tokenizer_hash: String::new(), tokens: 2, bytes: 2 };
        write_tokens(&path, &[1, 2], &meta).unwrap();
        let mut writer = TokenWriter::create(&path).unwrap();
        writer.push(&[3]).unwrap();
        drop(writer);
        assert_eq!(Tokens::open(&path).unwrap().as_slice(), [1, 2]);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
