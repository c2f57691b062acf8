//! Errors of the wgpu backend when a device is missing or too small: one message that names the thing and the limit.
#![cfg(feature = "native")]

use cpu_kernels::ops::fill::FillArgs;
use nanotern::Error;
use nanotern::backend::{Backend, NO_ADAPTER, Wgpu, adapters};
use nanotern::graph::{DType, Graph, MAX_BINDING, Plan};
use nanotern::ops::FILL;
use std::io::Write;
use std::sync::Arc;

/// The device, or `None` if this machine has no adapter, which is noted, or fails if an adapter is required.
fn device() -> Option<Wgpu> {
    if adapters().is_empty() {
        assert!(std::env::var("NANOTERN_REQUIRE_GPU").as_deref() != Ok("1"), "no wgpu adapter, and one is required");
        let _ = writeln!(std::io::stderr(), "NOT TESTED on wgpu: this machine has no adapter");
        let error = Wgpu::open(None).err().unwrap().to_string();
        assert!(error.contains(NO_ADAPTER), "{error}");
        return None;
    }
    Some(Wgpu::open(None).unwrap())
}

/// A plan that fills one tensor of `n` elements.
fn filling(n: usize) -> Arc<Plan> {
    let mut g = Graph::new();
    let y = g.persistent("giant", &[n], DType::F32);
    g.push(&FILL, FillArgs { n: n as u32, value: 1.0 }, &[y]);
    Arc::new(Plan::new(g))
}

#[test]
fn an_unknown_adapter_is_refused_with_a_list() {
    if device().is_some() {
        let error = Wgpu::open(Some("no such adapter")).err().unwrap();
        assert!(matches!(error, Error::Usage(_)), "{error}");
        assert!(error.to_string().contains(&adapters()[0].name), "{error}");
    }
}

#[test]
fn an_adapter_is_found_by_number_and_by_part_of_its_name() {
    if device().is_some() {
        let name = adapters()[0].name.to_uppercase();
        assert_eq!(Wgpu::open(Some("0")).unwrap().info().name, adapters()[0].name);
        assert!(Wgpu::open(Some(&name[1..name.len() / 2])).is_ok());
    }
}

#[test]
fn a_tensor_beyond_the_limits_is_named() {
    if let Some(device) = device() {
        let n = device.info().max_binding as usize / 4 + 1;
        let error = Backend::Wgpu(device).prepare(filling(n)).err().unwrap().to_string();
        assert!(error.contains("giant") && error.contains("MiB for a binding: use a smaller"), "{error}");
    }
}

/// A tensor that is larger than what browsers and software devices allow for a binding, used in parts.
#[test]
fn a_tensor_beyond_a_binding_is_used_in_parts() {
    if let Some(device) = device() {
        let mut g = Graph::new();
        let y = g.persistent("giant", &[MAX_BINDING / 4 + 64], DType::F32);
        g.fill(y, 1.5);
        let nodes = 0..g.nodes.len();
        let parts = g.parts(y);
        let mut program = Backend::Wgpu(device).prepare(Arc::new(Plan::new(g))).unwrap();
        program.run(nodes).unwrap();
        for part in parts {
            assert!(program.read::<f32>(part).unwrap().iter().all(|y| *y == 1.5));
        }
    }
}

#[test]
fn sizes_that_are_no_whole_words_are_written_and_read() {
    if let Some(device) = device() {
        let mut g = Graph::new();
        let bytes = g.persistent("bytes", &[7], DType::I8);
        let y = g.persistent("y", &[3], DType::F32);
        g.push(&FILL, FillArgs { n: 3, value: 0.5 }, &[y]);
        let mut program = Backend::Wgpu(device).prepare(Arc::new(Plan::new(g))).unwrap();
        program.write(bytes, &[1i8, -2, 3, -4, 5, -6, 7]);
        program.run(0..1).unwrap();
        let read = pollster::block_on(program.read_bytes(&[bytes, y])).unwrap();
        assert_eq!(bytemuck::cast_slice::<u8, i8>(&read[0]), [1, -2, 3, -4, 5, -6, 7]);
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&read[1]), [0.5; 3]);
    }
}
