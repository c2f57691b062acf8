//! wgpu: to be written.
use crate::graph::Plan;
use crate::{Error, Result};
use std::ops::Range;

pub struct Wgpu;
pub struct AdapterInfo {
    pub name: String,
}
pub const NO_ADAPTER: &str = "";
impl std::fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}
impl AdapterInfo {
    pub fn is_gpu(&self) -> bool {
        false
    }
}
pub fn adapters() -> Vec<AdapterInfo> {
    Vec::new()
}
impl Wgpu {
    pub fn open(_adapter: Option<&str>) -> Result<Self> {
        Err(Error::Device("no adapter".into()))
    }
    pub fn describe(&self) -> String {
        "wgpu".into()
    }
    pub(super) fn prepare(&self, _plan: &Plan) -> Result<WgpuProgram> {
        Ok(WgpuProgram)
    }
}
pub(super) struct WgpuProgram;
impl WgpuProgram {
    pub(super) fn run(&mut self, _nodes: Range<usize>) -> Result<()> {
        Ok(())
    }
    pub(super) fn write(&mut self, _slot: usize, _bytes: &[u8]) {}
    /// (slot, bytes) each.
    pub(super) async fn read(&mut self, _places: &[(usize, usize)]) -> Result<Vec<Vec<u8>>> {
        Ok(Vec::new())
    }
}
