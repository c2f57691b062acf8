//! What is known about a device from earlier runs, in files of the user's cache folder, and the driver's compiled pipelines,
//! which are kept there.
//!
//! A file begins with a line that names the adapter, its driver and this program's version, and the checksum of what follows.
//! One that is damaged, of another device or driver, or that somebody else may have written is ignored. Nothing here fails: what
//! cannot be kept is made again.

use crate::files::{self, Links};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// The largest file that is read.
const LARGEST: u64 = 256 << 20;

/// The files about one adapter with one driver.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// `None` if the system names no cache folder.
    folder: Option<PathBuf>,
    /// The adapter, for names of files.
    adapter: String,
    /// The first line.
    head: Vec<u8>,
}

impl Kept {
    pub fn new(folder: Option<PathBuf>, info: &wgpu::AdapterInfo) -> Self {
        let wgpu::AdapterInfo { name, vendor, device, backend, driver, driver_info, .. } = info;
        let version = env!("CARGO_PKG_VERSION");
        let head = format!("nanotern {version}: {backend} {vendor:x}:{device:x} {name:?} {driver:?} {driver_info:?}\n");
        let of_name = crc32c::crc32c(name.as_bytes());
        let adapter = format!("{backend}-{vendor:x}-{device:x}-{of_name:08x}");
        Kept { folder, adapter, head: head.into_bytes() }
    }

    fn path(&self, what: &str) -> Option<PathBuf> {
        Some(self.folder.as_ref()?.join(format!("{what}-{}", self.adapter)))
    }

    /// What was last written under this name, by this program on this device.
    pub fn read(&self, what: &str) -> Option<Vec<u8>> {
        let path = self.path(what)?;
        let file = files::open(&path, Links::Refuse).ok().filter(is_ours)?;
        let mut bytes = files::read_all(&path, &file, LARGEST).ok()?;
        let (sum, data) = bytes.strip_prefix(&self.head[..])?.split_first_chunk()?;
        if u32::from_le_bytes(*sum) != crc32c::crc32c(data) {
            return None;
        }
        Some(bytes.split_off(self.head.len() + size_of::<u32>()))
    }

    /// Keeps bytes for later runs. They are lost if the folder cannot be written.
    pub fn write(&self, what: &str, data: &[u8]) {
        if let Some(path) = self.path(what) {
            let sum = crc32c::crc32c(data).to_le_bytes();
            let _ = files::write_atomic(&path, &[&self.head, &sum[..], data].concat());
        }
    }
}

/// Whether nobody but this user and the system's administrator can have written a file.
#[cfg(unix)]
fn is_ours(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    #[expect(unsafe_code, reason = "a call of the C library")]
    // SAFETY: the call has no conditions and always succeeds.
    let user = unsafe { libc::geteuid() };
    file.metadata().is_ok_and(|meta| [user, 0].contains(&meta.uid()) && meta.mode() & 0o022 == 0)
}

/// The cache folder of other systems is in the user's profile.
#[cfg(not(unix))]
fn is_ours(_file: &File) -> bool {
    true
}

/// The driver's compiled pipelines.
#[derive(Debug)]
pub(super) struct Pipelines {
    cache: wgpu::PipelineCache,
    kept: Kept,
    /// Checksum of what the file holds.
    sum: Mutex<Option<u32>>,
}

impl Pipelines {
    const NAME: &str = "pipelines";

    /// Those of earlier runs. `None` if the device does not give them out.
    pub fn open(device: &wgpu::Device, kept: Kept) -> Option<Self> {
        if !device.features().contains(wgpu::Features::PIPELINE_CACHE) {
            return None;
        }
        let data = kept.read(Self::NAME);
        let descriptor =
            wgpu::PipelineCacheDescriptor { label: Some(Self::NAME), data: data.as_deref(), fallback: true };
        #[expect(unsafe_code, reason = "a driver trusts what it is given")]
        // SAFETY: the data came from `get_data` of this program's version for this adapter and driver. The file says so in its
        // first line, its checksum excludes damage, and nobody but the user could write it. wgpu compares the device and the
        // driver again, and starts from nothing if they differ.
        let cache = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Pipelines { cache, kept, sum: Mutex::new(data.as_deref().map(crc32c::crc32c)) })
    }

    pub fn cache(&self) -> &wgpu::PipelineCache {
        &self.cache
    }

    /// Keeps those that were made so far, if the file lacks any.
    pub fn keep(&self) {
        let Some(data) = self.cache.get_data() else { return };
        let (now, mut sum) = (Some(crc32c::crc32c(&data)), self.sum.lock().unwrap_or_else(PoisonError::into_inner));
        if *sum != now {
            self.kept.write(Self::NAME, &data);
            *sum = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn kept(folder: &Path, driver: &str) -> Kept {
        let mut info = wgpu::AdapterInfo::new(wgpu::DeviceType::Other, wgpu::Backend::Vulkan);
        (info.name, info.driver) = ("a card".into(), driver.into());
        Kept::new(Some(folder.to_path_buf()), &info)
    }

    #[test]
    fn only_whole_files_of_the_same_driver_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("not/yet");
        let ours = kept(&folder, "driver 1");
        assert_eq!(ours.read("x"), None);
        ours.write("x", b"compiled");
        assert_eq!(ours.read("x").as_deref(), Some(&b"compiled"[..]));
        assert_eq!((ours.read("y"), kept(&folder, "driver 2").read("x")), (None, None));
        let path = ours.path("x").unwrap();
        let whole = fs::read(&path).unwrap();
        for end in 0..whole.len() {
            fs::write(&path, &whole[..end]).unwrap();
            assert_eq!(ours.read("x"), None, "{end} bytes");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&path, damaged).unwrap();
            assert_eq!(ours.read("x"), None, "byte {at}");
        }
        ours.write("x", b"again");
        assert_eq!(ours.read("x").as_deref(), Some(&b"again"[..]));
    }

    /// Root may write anywhere, so a file takes the folder's place.
    #[test]
    fn a_folder_that_cannot_be_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let nowhere = kept(&dir.path().join("file"), "driver");
        nowhere.write("x", b"compiled");
        assert_eq!(nowhere.read("x"), None);
    }

    #[cfg(unix)]
    #[test]
    fn what_others_may_write_is_not_trusted() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let ours = kept(dir.path(), "driver");
        ours.write("x", b"compiled");
        let path = ours.path("x").unwrap();
        symlink(&path, ours.path("link").unwrap()).unwrap();
        assert_eq!(ours.read("link"), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert_eq!(ours.read("x"), None);
    }
}
