//! The CUDA backend for NVIDIA GPUs: every op's shader is translated to CUDA C++ ([`translate()`]) and compiled by NVRTC when
//! a plan first needs it.
//!
//! Opening a device loads the driver and NVRTC; building needs neither. FMA contraction stays on, as in Vulkan: the limits of
//! `tests/op_parity` allow it, and ops with bit-exact results never add a product.

mod graphs;
mod native;
mod nvrtc;
mod program;
mod tiles;
mod translate;

use crate::error::mib;
use crate::graph::{Node, Plan};
use crate::{Error, Result};
use cudarc::driver::result::{DriverError, device};
use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::sys::{CUdevice_attribute, CUresult};
use cudarc::driver::{CudaContext, CudaFunction, CudaStream};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use native::{Code, Function};
pub use native::{NATIVE, Native, NativePass};
pub use nvrtc::{compile, has_nvrtc};
pub(super) use program::CudaProgram;
pub use translate::{Entry, Kernel, PRELUDE, translate};

/// Error text for a machine without an NVIDIA driver: what is missing, and what to do.
const NO_DRIVER: &str = "no NVIDIA driver (libcuda) was found; install NVIDIA's driver; --backend wgpu works without \
    CUDA, --backend cpu without a GPU";

/// Error text for a driver that finds no device.
pub const NO_DEVICE: &str = "NVIDIA's driver has no device";

/// A device that CUDA can open.
#[derive(Clone, Debug)]
pub struct DeviceInfo {
    /// The name that the driver gives.
    pub name: String,
    /// Compute capability, such as (8, 6).
    pub capability: (usize, usize),
    /// Bytes of its memory.
    pub memory: usize,
}

impl std::fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (major, minor) = self.capability;
        write!(f, "{} (compute capability {major}.{minor}, {} MiB)", self.name, mib(self.memory as u64).floor())
    }
}

/// All CUDA devices of this machine. The index in this list is the number that chooses a device.
///
/// # Errors
/// When no NVIDIA driver is installed, or the driver fails.
pub fn devices() -> Result<Vec<DeviceInfo>> {
    #[expect(unsafe_code, reason = "asking whether the driver can be loaded loads it")]
    // SAFETY: NVIDIA's driver may be loaded at any time.
    let present = unsafe { cudarc::driver::sys::is_culib_present() };
    if !present {
        return Err(Error::Device(NO_DRIVER.into()));
    }
    let refused = |e| failed("CUDA", "looking for devices", e);
    let count = CudaContext::device_count().map_err(refused)?;
    (0..count).map(|i| describe(i).map_err(refused)).collect()
}

fn describe(number: i32) -> Result<DeviceInfo, DriverError> {
    let device = device::get(number)?;
    #[expect(unsafe_code, reason = "calls of the driver")]
    // SAFETY: the driver is initialised and returned this device.
    let [major, minor, memory] = unsafe {
        [
            device::get_attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)? as usize,
            device::get_attribute(device, CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)? as usize,
            device::total_mem(device)?,
        ]
    };
    Ok(DeviceInfo { name: device::get_name(device)?, capability: (major, minor), memory })
}

/// The error for a call of the driver that failed: `what` was done on the device `on`.
fn failed(on: &str, what: &str, error: DriverError) -> Error {
    let text = error.error_string().map_or("an unknown error".into(), |text| text.to_string_lossy());
    match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            Error::OutOfMemory(format!("{on} is out of memory: use a smaller batch or model"))
        }
        // After one of these, every further call in the context fails with the same error.
        CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
        | CUresult::CUDA_ERROR_LAUNCH_FAILED
        | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
        | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
        | CUresult::CUDA_ERROR_INVALID_PC
        | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE => Error::DeviceLost(format!("{on} was lost: {what}: {text}")),
        _ => Error::Device(format!("{on}: {what}: {text}")),
    }
}

/// A function that is loaded on the device.
#[derive(Clone)]
struct Loaded {
    function: CudaFunction,
    block: [u32; 3],
    /// Bytes of shared memory, besides what it declares.
    shared: u32,
}

/// An open device, and the kernels compiled for it so far.
pub struct Cuda {
    info: DeviceInfo,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// The function of each pass, by the name of the code.
    kernels: Mutex<HashMap<&'static str, Vec<Loaded>>>,
}

impl Cuda {
    /// Opens the device with that number or part of a name; without `wanted`, the first.
    ///
    /// # Errors
    /// When the driver or NVRTC is missing, no device matches, or it cannot be opened.
    pub fn open(wanted: Option<&str>) -> Result<Self> {
        let infos = devices().map_err(|e| Error::Device(format!("--backend cuda: {e}")))?;
        if infos.is_empty() {
            return Err(Error::Device(format!("--backend cuda: {NO_DEVICE}")));
        }
        if !has_nvrtc() {
            return Err(Error::Device(format!("--backend cuda: {}", nvrtc::NO_NVRTC)));
        }
        let found = wanted.map_or(Some(0), |wanted| match wanted.parse::<usize>() {
            Ok(i) if i < infos.len() => Some(i),
            _ => infos.iter().position(|info| info.name.to_lowercase().contains(&wanted.to_lowercase())),
        });
        let Some(found) = found else {
            let list: Vec<String> = infos.iter().enumerate().map(|(i, info)| format!("{i}: {}", info.name)).collect();
            let wanted = wanted.unwrap_or_default();
            return Err(Error::usage(format!("--adapter {wanted}: there is {}", list.join(", "))));
        };
        let opened = CudaContext::new(found);
        let context = opened.map_err(|e| failed(&infos[found].name, "opening the device", e))?;
        #[expect(unsafe_code, reason = "cudarc asks who orders the work of several streams")]
        // SAFETY: there is one stream. Its work runs in order.
        unsafe {
            context.disable_event_tracking();
        }
        // Not the default stream, which cannot be captured.
        let stream = context.new_stream().map_err(|e| failed(&infos[found].name, "making a stream", e))?;
        Ok(Cuda { info: infos[found].clone(), context, stream, kernels: Mutex::default() })
    }

    /// The device that was opened.
    pub fn info(&self) -> &DeviceInfo {
        &self.info
    }

    /// Whether it has kernels that multiply matrices of f16.
    pub fn has_matrices(&self) -> bool {
        self.info.capability >= native::PAIRS
    }

    /// One line for people: name, compute capability and memory.
    pub fn describe(&self) -> String {
        format!("cuda ({})", self.info)
    }

    pub(super) fn prepare(&self, plan: &Plan) -> Result<CudaProgram> {
        CudaProgram::new(self, plan)
    }

    /// Compiles the plan's kernels that are not compiled yet, in parallel: NVRTC takes most of a second for some.
    fn compile(&self, plan: &Plan) -> Result<()> {
        let mut kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<Code> = plan.graph.nodes.iter().map(|node| self.code(node)).collect();
        missing.sort_by_key(|code| code.name());
        missing.dedup_by_key(|code| code.name());
        missing.retain(|code| !kernels.contains_key(code.name()));
        let (major, minor) = self.info.capability;
        let arch = format!("sm_{major}{minor}");
        let build = |code: &Code| {
            let (source, functions) = code.source()?;
            Ok((compile(code.name(), &source, &arch)?, functions))
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        let built: Vec<_> = std::thread::scope(|scope| {
            let chunk = missing.len().div_ceil(threads).max(1);
            let jobs =
                missing.chunks(chunk).map(|codes| scope.spawn(|| codes.iter().map(build).collect::<Vec<Result<_>>>()));
            let jobs: Vec<_> = jobs.collect();
            jobs.into_iter().flat_map(|job| job.join().expect("compiling does not panic")).collect()
        });
        for (code, built) in missing.iter().zip(built) {
            let (image, functions) = built?;
            let refused = |e| failed(&self.info.name, &format!("loading {}", code.name()), e);
            let module = self.context.load_module(Ptx::from_binary(image)).map_err(refused)?;
            let load = |(name, block, shared): &Function| {
                let function = module.load_function(name)?;
                if *shared > 0 {
                    function.set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, *shared as i32)?;
                }
                Ok(Loaded { function, block: *block, shared: *shared })
            };
            let loaded = functions.iter().map(load).collect::<Result<_, DriverError>>();
            kernels.insert(code.name(), loaded.map_err(refused)?);
        }
        Ok(())
    }

    /// What computes a node on this device.
    fn code(&self, node: &Node) -> Code {
        Code::of(node, self.info.capability)
    }

    /// The function of each pass.
    fn kernel(&self, code: Code) -> Vec<Loaded> {
        let kernels = self.kernels.lock().unwrap_or_else(PoisonError::into_inner);
        kernels.get(code.name()).expect("the plan's kernels are compiled first").clone()
    }
}
