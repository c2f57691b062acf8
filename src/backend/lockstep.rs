//! Runs a plan node by node: on two backends with equal inputs, to find the nodes whose outputs differ, or on one, to find the
//! first whose output is not finite.

use super::Program;
use crate::Result;
#[cfg(feature = "native")]
use crate::graph::Kind;
use crate::graph::{Access, DType, TensorId};
use std::ops::Range;

/// One output of one node that differs between two backends.
#[derive(Clone, Debug)]
pub struct Difference {
    /// Index of the node in the graph.
    pub node: usize,
    /// Name of the node's op.
    pub op: &'static str,
    /// Name of the output tensor.
    pub output: String,
    /// Floats: [`float_error`]. Other types: the fraction of bytes that differ.
    pub error: f64,
}

/// The largest error of an op's output that counts as agreement. Division on a GPU may be off by 2.5 ulp, so a few
/// activations in a thousand are rounded to the neighbouring code.
pub fn parity_limit(op: &str) -> f64 {
    match op {
        "quantize_rows" | "rms_norm_quantize" => 1e-2,
        _ => 1e-7,
    }
}

/// Runs `nodes` of one plan on `reference` and `other`. Before each node, `other` gets the reference's inputs. Returns the
/// outputs whose error is above `limit(op)` or not a number, in order of execution.
///
/// # Errors
/// When either device fails.
pub async fn lockstep(
    reference: &mut Program,
    other: &mut Program,
    nodes: Range<usize>,
    limit: impl Fn(&str) -> f64,
) -> Result<Vec<Difference>> {
    let mut found = Vec::new();
    for i in nodes {
        let node = reference.plan().graph.nodes[i].clone();
        for (t, b) in node.tensors.iter().zip(node.op.bindings) {
            if b.access != Access::Write {
                copy(reference, other, *t).await?;
            }
        }
        reference.run(i..i + 1)?;
        other.run(i..i + 1)?;
        for (t, b) in node.tensors.iter().zip(node.op.bindings) {
            if b.access == Access::Read {
                continue;
            }
            let error = match b.dtype {
                DType::F32 => float_error(&reference.fetch(*t).await?, &other.fetch(*t).await?),
                _ => integer_error(&reference.fetch::<u8>(*t).await?, &other.fetch::<u8>(*t).await?),
            };
            if error.is_nan() || error > limit(node.op.name) {
                let output = reference.plan().graph.tensor(*t).name.clone();
                found.push(Difference { node: i, op: node.op.name, output, error });
            }
        }
    }
    Ok(found)
}

/// Runs `nodes` one by one up to the first that writes a float which is not finite to a temporary; `None` if none does. The text
/// names its op, and its weight or its output.
///
/// # Errors
/// When the device fails.
#[cfg(feature = "native")]
pub async fn first_not_finite(program: &mut Program, nodes: Range<usize>) -> Result<Option<String>> {
    for i in nodes {
        program.run(i..i + 1)?;
        let node = program.plan().graph.nodes[i].clone();
        for (t, b) in node.tensors.iter().zip(node.op.bindings) {
            let temporary = program.plan().graph.tensor(*t).kind == Kind::Temp;
            if b.access == Access::Read || b.dtype != DType::F32 || !temporary {
                continue;
            }
            if !program.fetch::<f32>(*t).await?.iter().all(|v| v.is_finite()) {
                let names = || node.tensors.iter().map(|t| program.plan().graph.tensor(*t).name.as_str());
                let weight = names().find_map(|name| Some(&name[..name.find(".weight")? + ".weight".len()]));
                let at = weight.unwrap_or(&program.plan().graph.tensor(*t).name);
                return Ok(Some(format!("the first op whose result is not finite is {} at {at}", node.op.name)));
            }
        }
    }
    Ok(None)
}

async fn copy(from: &mut Program, to: &mut Program, t: TensorId) -> Result<()> {
    let bytes = from.fetch::<u8>(t).await?;
    to.write(t, &bytes);
    Ok(())
}

/// Normalised mean squared error: sum((r - o)^2) / sum(r^2) over the finite elements. Infinite if an element is not finite
/// on either side, unless both hold the same infinity or both a NaN.
pub fn float_error(reference: &[f32], other: &[f32]) -> f64 {
    let (mut diff, mut norm) = (0.0, 0.0);
    for (r, o) in reference.iter().zip(other) {
        let (r, o) = (f64::from(*r), f64::from(*o));
        if r.is_finite() && o.is_finite() {
            diff += (r - o) * (r - o);
            norm += r * r;
        } else if !(r == o || r.is_nan() && o.is_nan()) {
            return f64::INFINITY;
        }
    }
    if diff == 0.0 { 0.0 } else { diff / norm.max(1e-30) }
}

fn integer_error(reference: &[u8], other: &[u8]) -> f64 {
    let differ = reference.iter().zip(other).filter(|(a, b)| a != b).count();
    differ as f64 / reference.len().max(1) as f64
}
