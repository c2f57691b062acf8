//! The wgpu backend (Vulkan, Metal, DirectX 12, or a browser's WebGPU): runs every op by its shader.
//!
//! A device reports some errors asynchronously: out of memory, a rejected call, a lost device. They are kept until the next
//! call that can return an error. Natively they arrive before the faulty call returns, in a browser a little later.

mod fuse;
#[cfg(feature = "native")]
mod kept;
mod program;
mod shader;
#[cfg(feature = "native")]
mod variant;

use crate::error::mib;
use crate::graph::{Node, Op, Plan};
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use fuse::{FUSED, dispatches, fusible};
pub(super) use program::{Staged, WgpuProgram};
pub use shader::shader_source;

/// Error text for a machine without any adapter: what is missing, and what to do.
#[cfg(target_arch = "wasm32")]
pub const NO_ADAPTER: &str = "this browser has no WebGPU adapter; the backend `cpu` works now";
/// Error text for a machine without any adapter: what is missing, and what to do.
#[cfg(not(target_arch = "wasm32"))]
pub const NO_ADAPTER: &str = "no Vulkan, Metal or DirectX 12 driver was found; install the GPU vendor's driver, or on \
    Debian and Ubuntu `apt install mesa-vulkan-drivers` (it includes a software device); --backend cpu works now";

/// Features that are used where a device has them: timestamps for profiles, and pipelines that are kept between runs.
#[cfg(feature = "native")]
const WANTED: wgpu::Features = wgpu::Features::TIMESTAMP_QUERY.union(wgpu::Features::PIPELINE_CACHE);
/// Features that are used where a device has them: none in a browser.
#[cfg(not(feature = "native"))]
const WANTED: wgpu::Features = wgpu::Features::empty();

/// A device that wgpu can open.
#[derive(Clone, Debug)]
pub struct AdapterInfo {
    /// The name that its driver gives; browsers hide it.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, ...
    pub backend: String,
    /// The driver's name and version.
    pub driver: String,
    /// `discrete GPU`, `integrated GPU`, `virtual GPU`, `software` or `unknown`.
    pub kind: &'static str,
    /// Bytes of the largest buffer.
    pub max_buffer: u64,
    /// Bytes of the largest buffer that can be bound to a shader.
    pub max_binding: u64,
    /// Names of the features that are used where a device has them, and that this one has.
    pub features: Vec<&'static str>,
    device_type: wgpu::DeviceType,
}

impl AdapterInfo {
    fn new(adapter: &wgpu::Adapter) -> Self {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        let name = if info.name.is_empty() { "the GPU".to_string() } else { info.name }; // browsers hide it
        AdapterInfo {
            name,
            backend: info.backend.to_string(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
            kind: match info.device_type {
                wgpu::DeviceType::DiscreteGpu => "discrete GPU",
                wgpu::DeviceType::IntegratedGpu => "integrated GPU",
                wgpu::DeviceType::VirtualGpu => "virtual GPU",
                wgpu::DeviceType::Cpu => "software",
                wgpu::DeviceType::Other => "unknown",
            },
            max_buffer: limits.max_buffer_size,
            max_binding: limits.max_storage_buffer_binding_size,
            features: (adapter.features() & WANTED).iter_names().map(|(name, _)| name).collect(),
            device_type: info.device_type,
        }
    }

    /// Whether this is a real GPU and not a software device.
    pub fn is_gpu(&self) -> bool {
        self.device_type != wgpu::DeviceType::Cpu
    }

    /// Whether its memory is that of the processor.
    #[cfg(feature = "native")]
    pub fn shares_memory(&self) -> bool {
        [wgpu::DeviceType::IntegratedGpu, wgpu::DeviceType::Cpu].contains(&self.device_type)
    }

    /// The order in which adapters are preferred, best first.
    #[cfg(feature = "native")]
    fn rank(&self) -> u32 {
        match self.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu => 2,
            wgpu::DeviceType::Other => 3,
            wgpu::DeviceType::Cpu => 4,
        }
    }
}

impl std::fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let AdapterInfo { name, backend, driver, kind, max_buffer, max_binding, .. } = self;
        write!(f, "{name} ({kind}, {backend}, {driver}; buffers to {} MiB,", mib(*max_buffer).floor())?;
        write!(f, " {} MiB a binding)", mib(*max_binding).floor())
    }
}

/// All adapters of this machine. The index in this list is the number that chooses an adapter.
#[cfg(feature = "native")]
pub fn adapters() -> Vec<AdapterInfo> {
    enumerate(&instance()).iter().map(AdapterInfo::new).collect()
}

/// Without validation layers: most machines lack them, and wgpu would warn about it.
fn instance() -> wgpu::Instance {
    let flags = wgpu::InstanceFlags::empty();
    wgpu::Instance::new(wgpu::InstanceDescriptor { flags, ..wgpu::InstanceDescriptor::new_without_display_handle() })
}

#[cfg(feature = "native")]
fn enumerate(instance: &wgpu::Instance) -> Vec<wgpu::Adapter> {
    pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
}

/// The adapter with the wanted number or part of a name; without `wanted`, the best one.
#[cfg(feature = "native")]
fn choose(instance: &wgpu::Instance, wanted: Option<&str>) -> Result<wgpu::Adapter> {
    let mut adapters = enumerate(instance);
    if adapters.is_empty() {
        return Err(Error::Device(format!("--backend wgpu: {NO_ADAPTER}")));
    }
    let infos: Vec<AdapterInfo> = adapters.iter().map(AdapterInfo::new).collect();
    let Some(wanted) = wanted else {
        let best = (0..infos.len()).min_by_key(|i| infos[*i].rank()).expect("there are adapters");
        return Ok(adapters.swap_remove(best));
    };
    let named = |info: &&AdapterInfo| info.name.to_lowercase().contains(&wanted.to_lowercase());
    let found = match wanted.parse::<usize>() {
        Ok(i) if i < infos.len() => Some(i),
        _ => infos
            .iter()
            .filter(named)
            .min_by_key(|info| info.rank())
            .map(|best| infos.iter().position(|info| std::ptr::eq(info, best)).expect("it is one of them")),
    };
    let Some(found) = found else {
        let list: Vec<String> = infos.iter().enumerate().map(|(i, info)| format!("{i}: {}", info.name)).collect();
        return Err(Error::usage(format!("--adapter {wanted}: there is {}", list.join(", "))));
    };
    Ok(adapters.swap_remove(found))
}

/// Errors that the device reported asynchronously.
#[derive(Clone, Debug, Default)]
struct Faults(Arc<Mutex<Reports>>);

#[derive(Debug, Default)]
struct Reports {
    /// The first error that no call has returned yet.
    error: Option<Error>,
    /// Why the device was lost. Every later call fails with it.
    lost: Option<String>,
}

impl Faults {
    fn reports(&self) -> MutexGuard<'_, Reports> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> Result<()> {
        let mut reports = self.reports();
        if let Some(why) = &reports.lost {
            return Err(Error::DeviceLost(why.clone()));
        }
        reports.error.take().map_or(Ok(()), Err)
    }

    /// Keeps the errors that `device` reports from now on.
    fn watch(&self, device: &wgpu::Device, name: &str) {
        let (faults, on) = (self.clone(), name.to_string());
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            faults.reports().error.get_or_insert(match error {
                wgpu::Error::OutOfMemory { .. } => {
                    Error::OutOfMemory(format!("{on} is out of memory: use a smaller batch or model"))
                }
                error => Error::Device(format!("{on}: {error}")),
            });
        }));
        let (faults, on) = (self.clone(), name.to_string());
        device.set_device_lost_callback(move |_, message| {
            faults.reports().lost = Some(format!("{on} was lost: {message}"));
        });
    }
}

/// The entry points of an op's shader.
fn entries(op: &Op) -> Vec<&'static str> {
    op.passes.iter().map(|pass| pass.entry).collect()
}

/// An open device, and the pipelines made on it so far.
pub struct Wgpu {
    info: Box<AdapterInfo>,
    device: wgpu::Device,
    queue: wgpu::Queue,
    faults: Faults,
    /// Those of each op and of each variant, by its name.
    pipelines: Mutex<HashMap<&'static str, Vec<wgpu::ComputePipeline>>>,
    #[cfg(feature = "native")]
    variants: Box<variant::Choice>,
    /// Compiled pipelines of this and of earlier runs.
    #[cfg(feature = "native")]
    kept: Option<Box<kept::Pipelines>>,
    fuses: bool,
}

impl Wgpu {
    /// Opens the adapter with that number or part of a name. Without `adapter`, the environment variables `NANOTERN_ADAPTER`
    /// and `WGPU_ADAPTER_NAME` are tried; without those, the best adapter is opened, be it a software device.
    ///
    /// # Errors
    /// When no adapter exists or none matches, or the device cannot be opened.
    #[cfg(feature = "native")]
    pub fn open(adapter: Option<&str>) -> Result<Self> {
        let env = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let wanted =
            adapter.map(str::to_string).or_else(|| env("NANOTERN_ADAPTER").or_else(|| env("WGPU_ADAPTER_NAME")));
        let adapter = choose(&instance(), wanted.as_deref())?;
        pollster::block_on(Self::from_adapter(&adapter))
    }

    /// Opens the adapter that the system or the browser prefers for speed.
    ///
    /// # Errors
    /// When no adapter exists, or the device cannot be opened.
    pub async fn open_default() -> Result<Self> {
        let power_preference = wgpu::PowerPreference::HighPerformance;
        let options = wgpu::RequestAdapterOptions { power_preference, ..Default::default() };
        match instance().request_adapter(&options).await {
            Ok(adapter) => Self::from_adapter(&adapter).await,
            Err(_) => Err(Error::Device(NO_ADAPTER.into())),
        }
    }

    async fn from_adapter(adapter: &wgpu::Adapter) -> Result<Self> {
        let info = AdapterInfo::new(adapter);
        let features = adapter.features() & WANTED;
        #[cfg(feature = "native")]
        let kept = kept::Kept::new(crate::files::cache_folder(), &adapter.get_info());
        #[cfg(feature = "native")]
        let variants = Box::new(variant::Choice::new(adapter, kept.clone()));
        #[cfg(feature = "native")]
        let features = features | variants.features();
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("nanotern"),
            required_features: features,
            required_limits: adapter.limits(),
            memory_hints: wgpu::MemoryHints::Performance,
            #[cfg(feature = "native")]
            experimental_features: variants.experimental(),
            ..Default::default()
        };
        let opened = adapter.request_device(&descriptor).await;
        let (device, queue) = opened.map_err(|e| Error::Device(format!("{} cannot be opened: {e}", info.name)))?;
        let faults = Faults::default();
        faults.watch(&device, &info.name);
        Ok(Wgpu {
            #[cfg(feature = "native")]
            variants,
            #[cfg(feature = "native")]
            kept: kept::Pipelines::open(&device, kept).map(Box::new),
            info: Box::new(info),
            device,
            queue,
            faults,
            pipelines: Mutex::default(),
            fuses: true,
        })
    }

    /// The same device, whose programs run every node by itself.
    pub fn unfused(self) -> Self {
        Wgpu { fuses: false, ..self }
    }

    /// The adapter that was opened.
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// One line for people: name, kind and API of the adapter.
    pub fn describe(&self) -> String {
        format!("wgpu ({}, {}, {})", self.info.name, self.info.kind, self.info.backend)
    }

    /// The limits that kernels meet, by name.
    #[cfg(feature = "native")]
    pub fn limits(&self) -> [(&'static str, u64); 6] {
        let limits = self.device.limits();
        [
            ("max_buffer_size", limits.max_buffer_size),
            ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
            ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into()),
            ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
            ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup.into()),
            ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension.into()),
        ]
    }

    pub(super) fn prepare(&self, plan: &Plan) -> Result<WgpuProgram> {
        let program = WgpuProgram::new(self, plan)?;
        #[cfg(feature = "native")]
        self.kept.iter().for_each(|kept| kept.keep());
        Ok(program)
    }

    #[cfg(feature = "native")]
    fn cache(&self) -> Option<&wgpu::PipelineCache> {
        self.kept.as_ref().map(|kept| kept.cache())
    }

    #[cfg(not(feature = "native"))]
    fn cache(&self) -> Option<&wgpu::PipelineCache> {
        None
    }

    /// A function that loses the device, for tests: drivers do so when they crash, reset the card or time out.
    #[cfg(feature = "native")]
    #[doc(hidden)]
    pub fn loser(&self) -> impl Fn() + Send + 'static {
        let device = self.device.clone();
        move || {
            device.destroy();
            // The loss is reported once the device is idle.
            let _ = device.poll(wgpu::PollType::wait_indefinitely());
        }
    }

    /// The ops whose shaders programs on this device may run: those of the table, and fused ones that do not need more buffers
    /// than the device allows.
    pub fn shaders(&self) -> Vec<&'static Op> {
        crate::ops::TABLE.iter().chain(FUSED.iter().filter(|op| self.has_buffers(op))).copied().collect()
    }

    fn has_buffers(&self, op: &Op) -> bool {
        let count = op.bindings.len() + usize::from(op.scratch.is_some());
        count <= self.device.limits().max_storage_buffers_per_shader_stage as usize
    }

    /// Makes the pipeline of each op. Returns the names of the ops that the device rejects, with its reasons.
    pub async fn check_shaders(&self, ops: &[&'static Op]) -> Vec<(&'static str, String)> {
        let mut refused = Vec::new();
        for op in ops {
            let scope = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
            shader::pipelines(&self.device, self.cache(), op, &shader_source(op), &entries(op));
            if let Some(error) = scope.pop().await {
                refused.push((op.name, error.to_string()));
            }
        }
        refused
    }

    /// What a node runs: pipelines, each with its number of workgroups.
    fn passes(&self, node: &Node) -> Result<Vec<(wgpu::ComputePipeline, [u32; 3])>> {
        #[cfg(feature = "native")]
        if let Some(variant) = self.variant(node) {
            let matrices = self.variants.matrices;
            let pipelines = self.pipelines(variant.name, node.op, || variant.source(matrices), &variant.entries())?;
            return Ok(pipelines.into_iter().zip(variant.grids(&node.args, matrices)).collect());
        }
        let pipelines = self.pipelines(node.op.name, node.op, || shader_source(node.op), &entries(node.op))?;
        Ok(pipelines
            .into_iter()
            .zip(node.op.passes)
            .map(|(pipeline, pass)| (pipeline, (pass.grid)(&node.args)))
            .collect())
    }

    /// The pipeline of each entry point of a shader for an op, made at its first use.
    fn pipelines(
        &self,
        name: &'static str,
        op: &Op,
        source: impl Fn() -> String,
        entries: &[&str],
    ) -> Result<Vec<wgpu::ComputePipeline>> {
        let mut made = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pipelines) = made.get(name) {
            return Ok(pipelines.clone());
        }
        let pipelines = shader::pipelines(&self.device, self.cache(), op, &source(), entries);
        self.faults.check()?;
        made.insert(name, pipelines.clone());
        Ok(pipelines)
    }
}

#[cfg(all(test, feature = "native"))]
mod tests {
    use super::*;

    #[test]
    fn what_the_device_refuses_becomes_an_error_once() {
        let Ok(on) = Wgpu::open(None) else { return println!("NOT TESTED on wgpu: this machine has no adapter") };
        on.faults.check().unwrap();
        let size = on.device.limits().max_buffer_size + 4;
        let (usage, mapped_at_creation) = (wgpu::BufferUsages::STORAGE, false);
        let giant = wgpu::BufferDescriptor { label: Some("giant"), size, usage, mapped_at_creation };
        drop(on.device.create_buffer(&giant));
        let error = on.faults.check().unwrap_err().to_string();
        assert!(error.contains(&on.info.name) && error.contains("giant"), "{error}");
        on.faults.check().unwrap();
    }
}
