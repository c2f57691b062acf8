//! Every op of the table on every available backend, against the scalar CPU kernel that defines it.
//!
//! Outputs are poisoned first, and sentinels follow every tensor. Integers must be equal. Floats may differ by a normalised
//! mean squared error of 1e-7, unless a case has another limit and gives the reason.
#![cfg(feature = "native")]

mod cases;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod sampling;

use compare::{Bench, verdict};
use nanotern::backend::{Backend, Wgpu};
use nanotern::ops::TABLE;
use std::collections::BTreeSet;

#[test]
fn every_op_agrees_with_its_definition() {
    let cases = cases::all();
    let mut reference = Bench::new(&common::scalar(), &cases);
    let expected: Vec<_> = cases.iter().enumerate().map(|(i, case)| reference.run(i, case)).collect();
    let mut failures = Vec::new();
    for (name, backend) in common::backends() {
        let gpu = name == "wgpu";
        let mut bench = Bench::new(&backend, &cases);
        for (i, case) in cases.iter().enumerate() {
            if let Some(what) = verdict(case, gpu, &expected[i], &bench.run(i, case)) {
                failures.push(format!("{} on {name}: {what} ({})", case.op.name, case.args));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

/// On a device with cooperative matrices. Without one, the test fails with NANOTERN_REQUIRE_MATRICES=1 and otherwise prints a
/// note.
#[test]
fn variants_give_the_bits_of_the_definition() {
    let mut device = common::has_adapter().then(|| Wgpu::open(None).unwrap());
    let Some(wgpu) = device.take_if(Wgpu::prefer_variants as fn(&mut Wgpu) -> bool) else {
        let required = std::env::var("NANOTERN_REQUIRE_MATRICES").as_deref() == Ok("1");
        assert!(!required, "no device has cooperative matrices, and they are required");
        return println!("NOT TESTED: no device has cooperative matrices");
    };
    let mut cases = cases::all();
    let nodes = compare::graph(&cases).0.nodes;
    let mut nodes = nodes.iter();
    cases.retain(|_| wgpu.variant_of(nodes.next().unwrap()).is_some());
    assert!(cases.len() >= 3, "variants run {} cases", cases.len());
    let (mut reference, mut bench) = (Bench::new(&common::scalar(), &cases), Bench::new(&Backend::Wgpu(wgpu), &cases));
    for (i, case) in cases.iter().enumerate() {
        let (expected, got) = (reference.run(i, case), bench.run(i, case));
        let differ = expected.iter().flatten().zip(got.iter().flatten()).filter(|(a, b)| a != b).count();
        assert_eq!(differ, 0, "{} ({})", case.op.name, case.args);
        println!("0 bits differ: {} ({})", case.op.name, case.args);
    }
}

#[test]
fn every_op_has_a_case() {
    let tested: BTreeSet<&str> = cases::all().iter().map(|case| case.op.name).collect();
    let missing: Vec<_> = TABLE.iter().map(|op| op.name).filter(|name| !tested.contains(name)).collect();
    assert!(missing.is_empty(), "no case of {missing:?}");
}
