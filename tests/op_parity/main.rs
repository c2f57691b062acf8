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
use std::collections::{BTreeMap, BTreeSet};

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

/// Where the device has no cooperative matrices, those that need them are not tested; with NANOTERN_REQUIRE_MATRICES=1 this is a
/// failure.
#[test]
fn variants_give_the_bits_of_the_definition() {
    if !common::has_adapter() {
        return;
    }
    let mut wgpu = Wgpu::open(None).unwrap();
    wgpu.prefer_variants();
    let mut cases = cases::all();
    let nodes = compare::graph(&cases).0.nodes;
    let mut names = nodes.iter().map(|node| wgpu.variant_of(node));
    let mut taken: BTreeMap<&str, usize> = BTreeMap::new();
    cases.retain(|_| names.next().unwrap().map(|name| *taken.entry(name).or_default() += 1).is_some());
    assert!(taken.values().all(|count| *count >= 3) && taken.contains_key("ternary_matmul_float"), "{taken:?}");
    if !taken.contains_key("ternary_matmul_matrices") {
        let required = std::env::var("NANOTERN_REQUIRE_MATRICES").as_deref() == Ok("1");
        assert!(!required, "the device has no cooperative matrices, and they are required");
        println!("NOT TESTED: the device has no cooperative matrices");
    }
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
