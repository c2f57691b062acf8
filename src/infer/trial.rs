//! Chooses the device for decoding by trying it: for a small model a GPU can be slower than the processor, since a token takes
//! many small launches one after the other.

use super::{Engine, EngineOptions, Event, Sampling};
use crate::backend::Backend;
use crate::formats::ModelFile;
use crate::{Error, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of weights above which a model is not loaded only to try it.
pub const LARGE: usize = 2 << 30;
/// Most tokens that are timed.
const TOKENS: usize = 32;
/// Time after which no further token is timed.
const ENOUGH: Duration = Duration::from_millis(500);

/// The device that was chosen, and why.
pub struct Choice {
    /// The device.
    pub backend: Backend,
    /// A sentence for people, with the speed of both.
    pub why: String,
}

/// Decodes a few tokens on a GPU and on the processor and chooses the faster. A model with more than `large` bytes of weights
/// goes to the GPU untried; see [`LARGE`].
pub fn faster(file: &ModelFile, gpu: Backend, cpu: Backend, large: usize) -> Choice {
    let bytes: usize = file.tensors.iter().map(|t| t.data.bytes()).sum();
    let names = [gpu.describe(), cpu.describe()];
    if bytes > large {
        let gb = bytes as f64 * 1e-9;
        let why = format!("auto takes {}: a model of {gb:.1} GB is not loaded twice to try both", names[0]);
        return Choice { backend: gpu, why };
    }
    let [on_gpu, on_cpu] = [&gpu, &cpu].map(|backend| speed(file, backend).map_err(|e| e.to_string()));
    let (takes_gpu, why) = decide([&names[0], &names[1]], on_gpu, on_cpu);
    Choice { backend: if takes_gpu { gpu } else { cpu }, why }
}

/// Whether the GPU is taken, and why; each speed is in tokens per second, or the reason why there is none.
fn decide([gpu, cpu]: [&str; 2], on_gpu: Result<f64, String>, on_cpu: Result<f64, String>) -> (bool, String) {
    match (on_gpu, on_cpu) {
        (Ok(g), Ok(c)) if g > c => (true, format!("auto takes {gpu}: it decodes {g:.0} tok/s, {cpu} {c:.0} tok/s")),
        (Ok(g), Ok(c)) => (false, format!("auto takes {cpu}: it decodes {c:.0} tok/s, {gpu} {g:.0} tok/s")),
        (Ok(g), Err(why)) => (true, format!("auto takes {gpu}: it decodes {g:.0} tok/s, {cpu} none: {why}")),
        (Err(why), _) => (false, format!("auto takes {cpu}: {gpu} cannot run the model: {why}")),
    }
}

/// Tokens per second of one sequence, by the median of the tokens after the first two.
fn speed(file: &ModelFile, backend: &Backend) -> Result<f64> {
    let context = file.config.seq_len.min(TOKENS + 3);
    let mut engine = Engine::new(file, backend, EngineOptions { slots: 1, context })?;
    engine.set_stop(Vec::new());
    engine.start(&[0], Sampling { max_tokens: context, seed: 1, ..Sampling::default() }, Arc::default())?;
    let (begun, mut seconds) = (Instant::now(), Vec::new());
    while engine.free_slots() == 0 && (seconds.len() < 3 || begun.elapsed() < ENOUGH) {
        let start = Instant::now();
        let mut tokens = 0;
        for (_, event) in pollster::block_on(engine.step())? {
            match event {
                Event::Token(_) => tokens += 1,
                Event::Failed(why) => return Err(Error::Model(why)),
                Event::Finished(_) => {}
            }
        }
        seconds.push(start.elapsed().as_secs_f64() / f64::from(tokens.max(1)));
    }
    // The first tokens warm up, if there are enough.
    seconds.drain(..seconds.len().saturating_sub(1).min(2));
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2].recip())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Cpu, Level, Wgpu};
    use crate::bench::random_model;
    use crate::model::ModelConfig;

    #[test]
    fn the_faster_one_is_taken_and_both_speeds_are_said() {
        let choose = |gpu: Result<f64, &str>, cpu: Result<f64, &str>| {
            decide(["the GPU", "the CPU"], gpu.map_err(String::from), cpu.map_err(String::from))
        };
        let (gpu, why) = choose(Ok(900.0), Ok(700.0));
        assert!(gpu && why == "auto takes the GPU: it decodes 900 tok/s, the CPU 700 tok/s", "{why}");
        let (gpu, why) = choose(Ok(300.0), Ok(700.0));
        assert!(!gpu && why == "auto takes the CPU: it decodes 700 tok/s, the GPU 300 tok/s", "{why}");
        let (gpu, why) = choose(Err("out of memory"), Ok(700.0));
        assert!(!gpu && why.ends_with("the GPU cannot run the model: out of memory"), "{why}");
        assert!(choose(Ok(300.0), Err("no memory")).0);
    }

    /// On a software device the outcome is that of the measurement, whichever it is.
    #[test]
    fn two_devices_are_tried() {
        let Ok(wgpu) = Wgpu::open(None) else { return println!("NOT TESTED on wgpu: this machine has no adapter") };
        let file = random_model(ModelConfig { seq_len: 64, ..ModelConfig::self_test() }, 300);
        let cpu = || Backend::Cpu(Cpu::new(Level::Scalar, Some(1)).unwrap());
        let name = wgpu.describe();
        let Choice { backend, why } = faster(&file, Backend::Wgpu(wgpu), cpu(), LARGE);
        assert!(why.starts_with(&format!("auto takes {}: it decodes ", backend.describe())), "{why}");
        assert!(why.contains(&name) && why.contains(&cpu().describe()) && why.matches("tok/s").count() == 2, "{why}");
        let rates: Vec<f64> = why.split(" tok/s").filter_map(|part| part.rsplit(' ').next()?.parse().ok()).collect();
        assert!(rates.len() == 2 && rates[0] >= rates[1] && rates[1] > 0.0, "{why}");
        let untried = faster(&file, backend, cpu(), 1000);
        assert!(untried.why.ends_with("is not loaded twice to try both"), "{}", untried.why);
    }
}
