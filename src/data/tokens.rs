//! Token ids in memory or in a file. A token file is little-endian u32 ids without a header; a `.json` file beside it
//! describes them.
//!
//! A file is read window by window, never as a whole, and every id is checked when it is read. A file that was changed since
//! it was opened, as its size and times tell, is read again as a whole: if its checksum is another one, that is an error.

use crate::error::Result;
use std::borrow::Cow;
use std::ops::Range;
#[cfg(feature = "native")]
use {
    crate::error::Error,
    crate::files::{self, Links},
    crate::tokenizer::MAX_VOCAB,
    std::{
        fs::File,
        io::{self, BufWriter, ErrorKind, Write},
        path::{Path, PathBuf},
        sync::{Arc, Mutex, PoisonError},
        time::SystemTime,
    },
};

/// Ids of a block, when all are read.
const BLOCK: usize = 1 << 16;

/// A sequence of token ids, in memory or in a file.
#[derive(Clone, Debug)]
pub struct Tokens {
    store: Store,
}

#[derive(Clone, Debug)]
enum Store {
    Owned(Vec<u32>),
    #[cfg(feature = "native")]
    File {
        file: Arc<TokenFile>,
        range: Range<usize>, // in tokens
    },
}

impl From<Vec<u32>> for Tokens {
    fn from(ids: Vec<u32>) -> Self {
        Self { store: Store::Owned(ids) }
    }
}

impl Tokens {
    /// The ids of a range.
    ///
    /// # Errors
    /// When the file cannot be read, or its tokens are not those that it had when it was opened.
    ///
    /// # Panics
    /// When the range exceeds the tokens.
    pub fn read(&self, range: Range<usize>) -> Result<Cow<'_, [u32]>> {
        match &self.store {
            Store::Owned(ids) => Ok(ids[range].into()),
            #[cfg(feature = "native")]
            Store::File { file, range: part } => {
                assert!(range.end <= part.len(), "tokens {range:?} of {}", part.len());
                Ok(file.read(part.start + range.start..part.start + range.end)?.into())
            }
        }
    }

    /// The ids of a range in blocks, each with its place.
    pub fn blocks(&self, range: Range<usize>) -> impl DoubleEndedIterator<Item = Result<(usize, Cow<'_, [u32]>)>> {
        let end = range.end;
        range.step_by(BLOCK).map(move |at| Ok((at, self.read(at..end.min(at + BLOCK))?)))
    }

    /// Hands all ids to `each`, in order.
    ///
    /// # Errors
    /// As [`Tokens::read`].
    pub fn each(&self, mut each: impl FnMut(&[u32])) -> Result<()> {
        self.blocks(0..self.len()).try_for_each(|block| block.map(|(_, ids)| each(&ids)))
    }

    /// All ids in memory.
    ///
    /// # Errors
    /// As [`Tokens::read`].
    pub fn to_vec(&self) -> Result<Vec<u32>> {
        self.read(0..self.len()).map(Cow::into_owned)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        match &self.store {
            Store::Owned(ids) => ids.len(),
            #[cfg(feature = "native")]
            Store::File { range, .. } => range.len(),
        }
    }

    /// Whether it contains no token.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file of ids that was read once.
#[cfg(feature = "native")]
#[derive(Debug)]
struct TokenFile {
    file: File,
    /// For errors.
    path: PathBuf,
    tokens: usize,
    /// The largest id, and the checksum of all.
    largest: u32,
    crc: u32,
    stamp: Mutex<Stamp>,
}

/// What changes when a file does: its size, the time of the last change of its contents, and that of any change.
#[cfg(feature = "native")]
type Stamp = (u64, Option<SystemTime>, [i64; 2]);

#[cfg(feature = "native")]
fn stamp(file: &File) -> io::Result<Stamp> {
    let meta = file.metadata()?;
    #[cfg(unix)]
    let changed = [std::os::unix::fs::MetadataExt::ctime(&meta), std::os::unix::fs::MetadataExt::ctime_nsec(&meta)];
    #[cfg(not(unix))]
    let changed = [0; 2];
    Ok((meta.len(), meta.modified().ok(), changed))
}

#[cfg(feature = "native")]
impl TokenFile {
    /// Reads all ids once.
    fn new(file: File, path: &Path) -> Result<TokenFile> {
        let failed = |e| Error::io(path, e);
        let stamp = stamp(&file).map_err(failed)?;
        let tokens = usize::try_from(stamp.0 / 4).map_err(|_| failed(ErrorKind::FileTooLarge.into()))?;
        let (path, stamp) = (path.to_path_buf(), Mutex::new(stamp));
        let mut new = TokenFile { file, path, tokens, largest: 0, crc: 0, stamp };
        (new.largest, new.crc) = new.scan()?;
        new.check_stamp().map(|()| new)
    }

    /// The largest id and the checksum.
    fn scan(&self) -> Result<(u32, u32)> {
        let (mut largest, mut crc) = (0, 0);
        for at in (0..self.tokens).step_by(BLOCK) {
            let ids = self.ids(at..self.tokens.min(at + BLOCK))?;
            largest = ids.iter().copied().fold(largest, u32::max);
            crc = crc32c::crc32c_append(crc, bytemuck::cast_slice(&ids));
        }
        Ok((largest, crc))
    }

    fn ids(&self, range: Range<usize>) -> Result<Vec<u32>> {
        let mut ids = vec![0; range.len()];
        match files::read_at(&self.file, bytemuck::cast_slice_mut(&mut ids), 4 * range.start as u64) {
            Ok(()) => {
                ids.iter_mut().for_each(|id| *id = u32::from_le(*id));
                Ok(ids)
            }
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(self.changed()),
            Err(e) => Err(Error::io(&self.path, e)),
        }
    }

    /// The ids of a range, which are those that the file had at first.
    fn read(&self, range: Range<usize>) -> Result<Vec<u32>> {
        let ids = self.ids(range)?;
        self.check_stamp()?;
        // When a file is written through a map, its stamp changes late.
        if ids.iter().copied().fold(0, u32::max) > self.largest { Err(self.changed()) } else { Ok(ids) }
    }

    /// After reading: a change before it would show.
    fn check_stamp(&self) -> Result<()> {
        let now = stamp(&self.file).map_err(|e| Error::io(&self.path, e))?;
        let mut then = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
        if now == *then {
            return Ok(());
        }
        // A new name or a new time alone changes nothing.
        if now.0 != then.0 || self.scan()? != (self.largest, self.crc) {
            return Err(self.changed());
        }
        *then = now;
        Ok(())
    }

    fn changed(&self) -> Error {
        Error::invalid(&self.path, "was changed while its tokens were in use")
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
    /// When it cannot be read or parsed, or says what cannot be.
    pub fn read(bin: &Path) -> Result<Option<Self>> {
        /// Most bytes of a description.
        const MAX_BYTES: u64 = 1 << 16;
        let path = Self::path(bin);
        if path == bin || path.symlink_metadata().is_err() {
            return Ok(None);
        }
        let text = files::read_utf8(&path, Links::Follow, MAX_BYTES)?;
        let meta: TokenMeta = serde_json::from_str(&text)
            .map_err(|e| Error::invalid(&path, format!("does not describe a token file: {e}")))?;
        if !(1..=MAX_VOCAB).contains(&meta.vocab_size) {
            let what = format!("vocab_size = {}: between 1 and {MAX_VOCAB} is possible", meta.vocab_size);
            return Err(Error::invalid(&path, what));
        }
        Ok(Some(meta))
    }
}

#[cfg(feature = "native")]
impl Tokens {
    /// Opens a token file and reads it once. Also returns its description, if there is one.
    ///
    /// # Errors
    /// When it cannot be read, is no regular file, is empty, has a size that is not a multiple of 4 bytes, or differs from its
    /// description.
    pub fn open(path: &Path) -> Result<(Self, Option<TokenMeta>)> {
        let file = files::open(path, Links::Follow)?;
        let size = file.metadata().map_err(|e| Error::io(path, e))?.len();
        if size == 0 {
            return Err(Error::invalid(path, "the token file is empty"));
        }
        if size % 4 != 0 {
            let what = format!("has {size} bytes, not a multiple of 4: a token file is little-endian u32 ids");
            return Err(Error::invalid(path, what));
        }
        let meta = TokenMeta::read(path)?;
        if let Some(meta) = &meta
            && meta.tokens != size / 4
        {
            let what = format!("has {} tokens, but {} says {}", size / 4, TokenMeta::path(path).display(), meta.tokens);
            return Err(Error::invalid(path, what));
        }
        Ok((Tokens::of_file(file, path)?, meta))
    }

    fn of_file(file: File, path: &Path) -> Result<Self> {
        let file = TokenFile::new(file, path)?;
        Ok(Tokens { store: Store::File { range: 0..file.tokens, file: Arc::new(file) } })
    }

    /// The largest id.
    ///
    /// # Errors
    /// As [`Tokens::read`].
    pub fn largest(&self) -> Result<u32> {
        if let Store::File { file, range } = &self.store
            && range.len() == file.tokens
        {
            return Ok(file.largest);
        }
        let mut largest = 0;
        self.each(|ids| largest = ids.iter().copied().fold(largest, u32::max)).map(|()| largest)
    }

    /// Checks that every id is below `vocab_size`.
    ///
    /// # Errors
    /// Names `path`, and the first larger id with its byte offset.
    pub fn check(&self, vocab_size: usize, path: &Path) -> Result<()> {
        let beyond = |id: &u32| *id as usize >= vocab_size;
        // Computing the maximum vectorises; searching for the first offender does not.
        if !beyond(&self.largest()?) {
            return Ok(());
        }
        for block in self.blocks(0..self.len()) {
            let (at, ids) = block?;
            if let Some(i) = ids.iter().position(beyond) {
                let offset = (at + i) * 4;
                let what = format!("id {} at offset {offset} is not below the vocabulary size {vocab_size}", ids[i]);
                return Err(Error::invalid(path, what));
            }
        }
        Ok(())
    }

    /// The first `at` tokens and the rest, without copying a file.
    ///
    /// # Panics
    /// When `at` exceeds the number of tokens.
    pub fn split_at(self, at: usize) -> (Self, Self) {
        match self.store {
            Store::Owned(mut ids) => {
                let rest = ids.split_off(at);
                (ids.into(), rest.into())
            }
            Store::File { file, range } => {
                let middle = range.start + at;
                assert!(middle <= range.end, "split at {at} of {} tokens", range.len());
                let first = Store::File { file: file.clone(), range: range.start..middle };
                (Self { store: first }, Self { store: Store::File { file, range: middle..range.end } })
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
        let folder = files::folder_of(path);
        std::fs::create_dir_all(folder).map_err(|e| Error::io(folder, e))?;
        let file = files::temporary(path)?;
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
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io(&TokenMeta::path(&path), e)),
            _ => {}
        }
        file.persist(&path).map_err(|e| failed(e.error))?;
        let json = serde_json::to_string_pretty(meta).expect("plain fields");
        files::write_atomic(&TokenMeta::path(&path), json.as_bytes())
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
        let folder = std::env::temp_dir();
        let failed = |e| Error::io(&folder, e);
        write_ids(&mut file, &self.ids).map_err(failed)?;
        Tokens::of_file(file.into_inner().map_err(|e| failed(e.into_error()))?, &folder)
    }
}

#[cfg(feature = "native")]
fn write_ids(out: &mut impl Write, ids: &[u32]) -> io::Result<()> {
    if cfg!(target_endian = "little") {
        return out.write_all(bytemuck::cast_slice(ids));
    }
    ids.iter().try_for_each(|id| out.write_all(&id.to_le_bytes()))
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
        assert!(matches!(tokens.store, Store::File { .. }));
        assert_eq!((tokens.len(), tokens.read(17 << 20..(17 << 20) + 1).unwrap()[0]), ((17 << 20) + 1, 7));
        assert!(tokens.read(16 << 20..17 << 20).unwrap() == part);
    }

    #[test]
    fn a_file_that_was_changed_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.bin");
        let edit = || File::options().write(true).open(&path).unwrap();
        let ids: Vec<u32> = (0..9).collect();
        let write = |ids: &[u32]| std::fs::write(&path, bytemuck::cast_slice(ids)).unwrap();
        write(&ids);
        let written = edit().metadata().unwrap().modified().unwrap();
        let good: [&dyn Fn(); 3] = [
            &|| edit().set_modified(SystemTime::UNIX_EPOCH).unwrap(),
            &|| std::fs::rename(&path, dir.path().join("other")).unwrap(),
            &|| std::fs::remove_file(dir.path().join("other")).unwrap(),
        ];
        let (tokens, none) = Tokens::open(&path).unwrap();
        assert_eq!(none, None);
        for change in good {
            change();
            assert_eq!((&*tokens.read(2..4).unwrap(), tokens.to_vec().unwrap()), (&[2, 3][..], ids.clone()));
        }
        let bad: [&dyn Fn(); 5] = [
            &|| edit().set_len(8).unwrap(),
            &|| edit().set_len(40).unwrap(),
            &|| write(&[7; 9]),
            &|| write(&[u32::MAX; 9]),
            &|| {
                write(&[7; 9]);
                edit().set_modified(written).unwrap();
            },
        ];
        for (i, change) in bad.iter().enumerate().take(if cfg!(unix) { 5 } else { 4 }) {
            write(&ids);
            edit().set_modified(written).unwrap();
            let (tokens, _) = Tokens::open(&path).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(20)); // longer than a tick of the clock of files
            change();
            let message = tokens.read(0..1).unwrap_err().to_string();
            assert!(message.contains("a.bin: was changed while"), "{i}: {message}");
        }
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
        let (tokens, described) = Tokens::open(&path).unwrap();
        assert_eq!((tokens.to_vec().unwrap(), described), (vec![1, 2], Some(meta)));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
