//! Ranges of rows of a tensor as tensors of their own.
#![cfg(feature = "native")]

mod common;

use common::backends;
use cpu_kernels::ops::copy::CopyArgs;
use nanotern::graph::{DType, Graph, MAX_BINDING, Plan, TensorId};
use nanotern::ops::COPY;
use std::sync::Arc;

/// The rows of each part, and the bytes at which it starts.
fn parts(shape: &[usize], dtype: DType) -> Vec<(usize, usize)> {
    let mut g = Graph::new();
    let t = g.persistent("table", shape, dtype);
    let parts = g.parts(t);
    let plan = Plan::new(g);
    assert!(parts.iter().all(|part| plan.slot(*part) == plan.slot(t)));
    parts.iter().map(|part| (plan.graph.shape(*part)[0], plan.start(*part))).collect()
}

#[test]
fn a_table_is_cut_into_equal_parts_that_can_be_bound() {
    assert_eq!(parts(&[32_768, 1024], DType::F32), [(32_768, 0)]);
    assert_eq!(parts(&[50_257, 768], DType::F32), [(25_152, 0), (25_105, 25_152 * 3072)]);
    for (shape, dtype) in [
        ([50_257, 1280], DType::F32),
        ([151_936, 1000], DType::F32),
        ([300_000, 1000], DType::I8),
        ([1 << 26, 1], DType::F32),
    ] {
        let (found, row) = (parts(&shape, dtype), shape[1] * dtype.bytes());
        let mut end = 0;
        for (rows, start) in &found {
            assert!(*start == end && start.is_multiple_of(256) && rows * row <= MAX_BINDING, "{shape:?}: {found:?}");
            end += rows * row;
        }
        assert!(end == shape[0] * row && found.len() == end.div_ceil(MAX_BINDING), "{shape:?}: {found:?}");
    }
    let mut g = Graph::new();
    let temporary = g.temp("large", &[50_257, 768], DType::F32);
    assert_eq!(g.parts(temporary), [temporary]);
}

#[test]
fn a_range_of_rows_is_one_view() {
    let mut g = Graph::new();
    let t = g.persistent("table", &[192, 5], DType::F32);
    let (view, again) = (g.rows(t, 64..100), g.rows(t, 64..100));
    assert_eq!((view, g.rows(t, 0..192)), (again, t));
    assert_eq!((g.shape(view), g.tensor(view).name.as_str()), (&[36, 5][..], "table[64..100]"));
}

#[test]
fn ops_and_the_host_see_the_rows_of_a_view() {
    for (name, backend) in backends() {
        let mut g = Graph::new();
        let t = g.persistent("table", &[192, 5], DType::F32);
        let y = g.persistent("y", &[64, 5], DType::F32);
        let [first, middle, last] = [0..64, 64..128, 128..192].map(|rows| g.rows(t, rows));
        g.fill(middle, 2.0);
        g.push(&COPY, CopyArgs { n: 320 }, &[last, y]);
        let nodes = 0..g.nodes.len();
        let mut program = backend.prepare(Arc::new(Plan::new(g))).unwrap();
        assert_eq!(program.plan().slots.len(), 2);
        let numbers: Vec<f32> = (0..960).map(|i| i as f32).collect();
        program.write(t, &numbers);
        program.write(first, &[-1f32; 320]);
        program.run(nodes).unwrap();
        let mut read = |t: TensorId| program.read::<f32>(t).unwrap();
        assert_eq!(read(t), [&[-1.0; 320], &[2.0; 320], &numbers[640..]].concat(), "{name}");
        assert_eq!((read(middle), read(y)), (vec![2.0; 320], numbers[640..].to_vec()), "{name}");
        let both = pollster::block_on(program.read_bytes(&[last, first])).unwrap();
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&both[0]), numbers[640..], "{name}");
        assert_eq!(bytemuck::pod_collect_to_vec::<u8, f32>(&both[1]), [-1.0; 320], "{name}");
    }
}

#[test]
#[should_panic(expected = "written and bound twice")]
fn parts_of_one_tensor_are_not_read_and_written_at_once() {
    let mut g = Graph::new();
    let t = g.persistent("table", &[128, 1], DType::F32);
    let (from, to) = (g.rows(t, 0..64), g.rows(t, 64..128));
    g.push(&COPY, CopyArgs { n: 64 }, &[from, to]);
}

#[test]
#[should_panic(expected = "rows 32..64")]
fn a_view_starts_where_every_device_can_bind() {
    let mut g = Graph::new();
    let t = g.persistent("table", &[64, 1], DType::F32);
    g.rows(t, 32..64);
}
