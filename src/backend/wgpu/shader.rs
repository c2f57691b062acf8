//! Makes a compute pipeline from an entry of the op table.

use crate::graph::{Access, Op, Pass};

/// Snippets that shaders import, by name.
const SHARED: &[(&str, &str)] = &[
    ("elements", include_str!("../../../shaders/shared/elements.wgsl")),
    ("gemm", include_str!("../../../shaders/shared/gemm.wgsl")),
    ("groups", include_str!("../../../shaders/shared/groups.wgsl")),
    ("permutations", include_str!("../../../shaders/shared/permutations.wgsl")),
    ("reduce", include_str!("../../../shaders/shared/reduce.wgsl")),
];

/// The WGSL of an op, each line `//#import name` replaced by that snippet of `shaders/shared`.
///
/// # Panics
/// When a shader imports an unknown snippet.
pub fn shader_source(op: &Op) -> String {
    let expand = |line: &'static str| match line.strip_prefix("//#import ") {
        Some(name) => {
            let found = SHARED.iter().find(|(shared, _)| *shared == name.trim());
            found.unwrap_or_else(|| panic!("{}.wgsl imports {name}", op.name)).1
        }
        None => line,
    };
    op.shader.lines().flat_map(|line| [expand(line), "\n"]).collect()
}

/// Makes the pipeline of each pass of an op. Errors go to the device's error handler.
pub(super) fn pipelines(device: &wgpu::Device, op: &Op) -> Vec<wgpu::ComputePipeline> {
    let module = module(device, op);
    let bind_group_layout = layout(device, op);
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(op.name),
        bind_group_layouts: &[Some(&bind_group_layout)],
        immediate_size: 0,
    });
    let pipeline = |pass: &Pass| {
        device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(op.name),
            layout: Some(&pipeline_layout),
            module: &module,
            entry_point: Some(pass.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                // Every shader writes its workgroup memory before it reads it.
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        })
    };
    op.passes.iter().map(pipeline).collect()
}

fn module(device: &wgpu::Device, op: &Op) -> wgpu::ShaderModule {
    let source = wgpu::ShaderSource::Wgsl(shader_source(op).into());
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(op.name), source };
    if cfg!(debug_assertions) {
        return device.create_shader_module(descriptor);
    }
    let checks = wgpu::ShaderRuntimeChecks::unchecked();
    #[expect(unsafe_code, reason = "run-time checks prevent loop unrolling, so release builds omit them")]
    // SAFETY: the shaders are this crate's own. Every index follows from `Args` that the graph's builders checked against
    // the tensors' shapes, or is bounded in the shader if it comes from data. No loop is endless. Debug builds keep the checks.
    unsafe {
        device.create_shader_module_trusted(descriptor, checks)
    }
}

/// The layout of binding group 0: the uniform `Args`, then the op's buffers, then its scratch memory.
fn layout(device: &wgpu::Device, op: &Op) -> wgpu::BindGroupLayout {
    let types = std::iter::once(wgpu::BufferBindingType::Uniform)
        .chain(op.bindings.iter().map(|b| wgpu::BufferBindingType::Storage { read_only: b.access == Access::Read }))
        .chain(op.scratch.map(|_| wgpu::BufferBindingType::Storage { read_only: false }));
    let entry = |(binding, ty)| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let entries: Vec<_> = (0..).zip(types).map(entry).collect();
    device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(op.name), entries: &entries })
}
