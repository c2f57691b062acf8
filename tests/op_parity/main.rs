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
mod variants;

use compare::{Bench, verdict};
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

#[test]
fn every_op_has_a_case() {
    let tested: BTreeSet<&str> = cases::all().iter().map(|case| case.op.name).collect();
    let missing: Vec<_> = TABLE.iter().map(|op| op.name).filter(|name| !tested.contains(name)).collect();
    assert!(missing.is_empty(), "no case of {missing:?}");
}
