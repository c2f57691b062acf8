//! NVRTC, NVIDIA's run-time compiler for CUDA C++.

use super::PRELUDE;
use crate::{Error, Result};
use cudarc::nvrtc::result::{self, NvrtcError};
use cudarc::nvrtc::sys;
use std::ffi::{CStr, CString, c_char};

/// Error text for a machine without NVRTC: what is missing, and what to do.
pub(super) const NO_NVRTC: &str = "NVRTC (libnvrtc) was not found; install NVIDIA's CUDA toolkit, or `pip install \
    nvidia-cuda-nvrtc-cu12` and put the folder of its library into LD_LIBRARY_PATH";

/// Whether NVRTC can be loaded.
pub fn has_nvrtc() -> bool {
    #[expect(unsafe_code, reason = "asking whether NVRTC can be loaded loads it")]
    // SAFETY: NVRTC may be loaded at any time.
    unsafe {
        sys::is_culib_present()
    }
}

struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "a call of NVRTC")]
        // SAFETY: the program was created and is destroyed once, here. An error leaves nothing to do.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Compiles [`PRELUDE`] followed by a translated shader. An `arch` such as `sm_80` gives machine code, `compute_80` PTX.
///
/// # Errors
/// When NVRTC is missing or rejects the source; the error holds its log.
pub fn compile(name: &str, source: &str, arch: &str) -> Result<Vec<u8>> {
    if !has_nvrtc() {
        return Err(Error::Device(NO_NVRTC.into()));
    }
    let refused = |e: NvrtcError| Error::Device(format!("compiling {name} for {arch}: NVRTC says {e}"));
    let whole = CString::new(format!("{PRELUDE}\n{source}")).expect("a translated shader has no zero byte");
    let file = CString::new(format!("{name}.cu")).expect("an op's name has no zero byte");
    let options =
        [format!("--gpu-architecture={arch}"), "--std=c++17".into(), "--device-as-default-execution-space".into()];
    let program = Program(result::create_program(&whole, Some(&file)).map_err(refused)?);
    #[expect(unsafe_code, reason = "calls of NVRTC")]
    // SAFETY: the program, its source and its name live until the end of this function. The image's buffer has the size that
    // NVRTC reports.
    unsafe {
        if let Err(error) = result::compile_program(program.0, &options) {
            let log = result::get_program_log(program.0).map_err(refused)?;
            let log = CStr::from_ptr(log.as_ptr()).to_string_lossy();
            return Err(Error::Device(format!("compiling {name} for {arch}: NVRTC says {error}:\n{}", log.trim())));
        }
        if arch.starts_with("compute_") {
            let ptx = result::get_ptx(program.0).map_err(refused)?;
            return Ok(bytemuck::cast_slice::<c_char, u8>(&ptx).to_vec());
        }
        let mut size = 0;
        sys::nvrtcGetCUBINSize(program.0, &mut size).result().map_err(refused)?;
        let mut image = vec![0u8; size];
        sys::nvrtcGetCUBIN(program.0, image.as_mut_ptr().cast()).result().map_err(refused)?;
        Ok(image)
    }
}
