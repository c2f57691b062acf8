//! What a change of the configuration means for a run that goes on.

use super::config::{Aux, Config};
use crate::checkpoint::Checkpoint;
use crate::data::{Corpus, Tokens};
use crate::{Error, Result};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// What a change of a key does to a run that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// The model or what it learns would be another one: refused.
    Function,
    /// Where the corpus comes from and how it is read: refused if it makes other tokens, since the run's cursor is a place
    /// among them. Paths may thus move.
    Corpus,
    /// How the rest of the run trains: allowed, and said with its effect.
    Schedule,
    /// Other windows are validated: allowed, and said, since losses before and after cannot be compared.
    Validation,
    /// No weight depends on it: allowed.
    Free,
}

/// Every key of the configuration.
#[rustfmt::skip]
const CLASSES: &[(Class, &[&str])] = &[
    (Class::Function, &[
        "model.dim", "model.layers", "model.heads", "model.kv_heads", "model.ffn", "model.seq_len", "model.group_size",
        "model.scales", "model.dense", "model.rope_scaling", "model.activation", "model.head_dim",
        "model.qk_norm", "model.biases",
        "model.mhc_streams", "model.sub_norm", "model.tie_embeddings", "model.quantize", "model.embeddings",
        "model.ternary_head", "model.rope_theta", "model.norm_eps", "model.mixers", "model.ffns", "model.mtp",
        "model.delta_net", "model.loop.before", "model.loop.shared", "model.loop.times", "model.loop.after",
        "model.moe.experts", "model.moe.active", "model.moe.width", "model.moe.shared", "model.moe.from",
        "data.separate_documents", "train.seed", "train.seq_len", "optim.aux", "optim.state",
    ]),
    (Class::Corpus, &[
        "data.dataset", "data.path", "data.val_path", "data.field", "data.special_tokens", "data.vocab_size",
        "data.tokenizer", "data.val_fraction", "data.seed",
    ]),
    (Class::Schedule, &[
        "train.batch_size", "train.grad_accum", "train.total_steps", "train.precision", "train.mtp_weight",
        "train.entropy_weight", "train.token_filter",
        "optim.muon_lr", "optim.muon_momentum", "optim.muon_steps", "optim.aux_lr", "optim.weight_decay", "optim.clip",
        "optim.outlier_factor", "optim.warmup_steps", "optim.decay_fraction", "model.moe.bias_rate", "model.moe.balance_loss",
    ]),
    (Class::Validation, &["train.eval_windows"]),
    (Class::Free, &[
        "train.log_interval", "train.eval_interval", "train.checkpoint_interval", "train.keep_last_checkpoints",
        "train.recompute",
    ]),
];

/// The class of a key. One that is not in the table, such as the option of a mixer of the tests, may not change.
fn class(key: &str) -> Class {
    CLASSES.iter().find(|(_, keys)| keys.contains(&key)).map_or(Class::Function, |(class, _)| *class)
}

/// A key that two configurations give different values.
struct Change {
    key: String,
    old: String,
    new: String,
}

/// The changed keys of a class, in the order of their names.
fn changes(of: Class, old: &Config, new: &Config) -> Result<Vec<Change>> {
    let table = |c: &Config| toml::Table::try_from(c).map_err(|e| Error::usage(e.to_string()));
    let [old, new] = [table(old)?, table(new)?].map(|table| {
        let mut keys = BTreeMap::new();
        flatten("", &table, &mut keys);
        keys
    });
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter_map(|key| {
        let [old, new] = [&old, &new].map(|t| t.get(key));
        (class(key) == of && old != new).then(|| Change { key: key.clone(), old: text(old), new: text(new) })
    });
    Ok(changed.collect())
}

/// The keys of a section and of the sections in it.
fn flatten(section: &str, table: &toml::Table, keys: &mut BTreeMap<String, toml::Value>) {
    for (key, value) in table {
        let key = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        match value {
            toml::Value::Table(table) => flatten(&key, table, keys),
            value => drop(keys.insert(key, value.clone())),
        }
    }
}

fn text(value: Option<&toml::Value>) -> String {
    match value {
        None => "unset".to_string(),
        // Most numbers are f32 in the configuration.
        Some(toml::Value::Float(v)) if f64::from(*v as f32) == *v => (*v as f32).to_string(),
        Some(value) => value.to_string(),
    }
}

fn list(changes: &[Change], each: impl Fn(&Change) -> String) -> String {
    changes.iter().map(each).collect::<Vec<_>>().join(", ")
}

/// Checksums of the tokens of a corpus, as a checkpoint keeps them.
pub(super) struct Sums {
    pub train: u32,
    pub val: u32,
}

impl Sums {
    /// # Errors
    /// As [`Tokens::read`].
    pub(super) fn new(corpus: &Corpus) -> Result<Sums> {
        let sum = |tokens: &Tokens| {
            let mut crc = 0;
            tokens.each(|ids| crc = crc32c::crc32c_append(crc, bytemuck::cast_slice(ids))).map(|()| crc)
        };
        Ok(Sums { train: sum(&corpus.train)?, val: sum(&corpus.val)? })
    }
}

/// Checks that a run can go on from a checkpoint; returns what is to be said about it.
///
/// # Errors
/// [`Error::Usage`] names the keys that may not change, with both values.
pub(super) fn check(saved: &Checkpoint, new: &Config, corpus: &Corpus, sums: &Sums) -> Result<Vec<String>> {
    let (dir, meta) = (saved.dir.display(), &saved.meta);
    let refuse = |what: String| {
        let fork = "--fork NEWDIR starts a new run from these weights";
        Err(Error::usage(format!("{dir} was trained {what}; {fork}")))
    };
    if new.train.total_steps < meta.step {
        let total = new.train.total_steps;
        return Err(Error::usage(format!(
            "total_steps = {total}, but {dir} has already completed {} steps",
            meta.step
        )));
    }
    let old = Config::saved(saved)?;
    let function = changes(Class::Function, &old, new)?;
    if !function.is_empty() {
        return refuse(list(&function, |c| format!("with {} = {}, not {}", c.key, c.old, c.new)));
    }
    let because = list(&changes(Class::Corpus, &old, new)?, |c| format!("{} was {}, is {}", c.key, c.old, c.new));
    let because = if because.is_empty() { because } else { format!(" ({because})") };
    if meta.tokenizer_hash != corpus.tokenizer.as_ref().map(|t| t.hash()) {
        return refuse(format!("with another tokenizer than that of {}{because}", corpus.name));
    }
    if meta.state.data_crc32c != Some(sums.train) {
        return refuse(format!("on data that differs from {}{because}", corpus.name));
    }
    let rows = saved.model.iter().find(|t| t.name == "embed.weight").and_then(|t| t.shape.first());
    if let Some(rows) = rows.filter(|rows| **rows != corpus.vocab_size) {
        return refuse(format!("with a vocabulary of {rows}, not {}{because}", corpus.vocab_size));
    }
    let mut said = schedule(&old, new, meta.step)?;
    let other_windows = !changes(Class::Validation, &old, new)?.is_empty();
    if other_windows || meta.state.val_crc32c.is_some_and(|crc| crc != sums.val) {
        let step = meta.step;
        said.push(format!("validation losses after step {step} are of other windows than those up to it"));
    }
    Ok(said)
}

/// What is to be said when a new run starts from weights that were trained with another configuration of the model.
pub(super) fn fork(old: &Config, new: &Config) -> Result<Option<String>> {
    let mut changed = changes(Class::Function, old, new)?;
    changed.retain(|c| c.key.starts_with("model."));
    let keys = list(&changed, |c| format!("{} = {} (was {})", c.key, c.new, c.old));
    Ok((!changed.is_empty()).then(|| format!("warning: these weights make another model with {keys}")))
}

/// What changes in the schedule after `step` steps, and what that does.
fn schedule(old: &Config, new: &Config, step: u64) -> Result<Vec<String>> {
    let changed = changes(Class::Schedule, old, new)?;
    if changed.is_empty() {
        return Ok(Vec::new());
    }
    let keys = list(&changed, |c| format!("{} = {} (was {})", c.key, c.new, c.old));
    let mut said = vec![format!("after step {step}: {keys}")];
    let tokens = |c: &Config| c.train.batch_size * c.train.grad_accum * c.seq_len();
    if tokens(old) != tokens(new) {
        said.push(format!("a step has {} tokens, not {} as before", tokens(new), tokens(old)));
    }
    let rates = |c: &Config, step: u64| {
        let factor = c.optim.schedule(step, c.train.total_steps);
        [c.optim.muon_lr, c.optim.aux_lr].map(|lr| factor * f64::from(lr))
    };
    let (planned, next) = (rates(old, step), rates(new, step));
    let last = rates(old, step.saturating_sub(1));
    let aux = if new.optim.aux == Aux::Lion { "Lion" } else { "AdamW" };
    for (i, name) in ["Muon", aux].into_iter().enumerate().filter(|(i, _)| planned[*i] != next[*i] && step > 0) {
        said.push(match next[i].total_cmp(&last[i]) {
            Ordering::Equal => format!("the learning rate of {name} stays at {:.1e} after step {step}", next[i]),
            change => {
                let verb = if change == Ordering::Greater { "rises" } else { "falls" };
                format!("the learning rate of {name} {verb} from {:.1e} to {:.1e} after step {step}", last[i], next[i])
            }
        });
    }
    let decay = |c: &Config| {
        let total = c.train.total_steps;
        format!("from step {} to step {total}", total - c.optim.decay_steps(total))
    };
    if decay(old) != decay(new) {
        said.push(format!("it then falls to 0 {}, not {} as planned before", decay(new), decay(old)));
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of a section: an unknown one is refused with a list of those that exist.
    fn keys(section: &str) -> Vec<String> {
        let message = toml::from_str::<Config>(&format!("{section}.x = 0")).unwrap_err().message().to_string();
        let names = message.split('`').skip(1).step_by(2).filter(|name| *name != "x");
        names.map(|name| format!("{section}.{name}")).collect()
    }

    #[test]
    fn every_key_has_one_class() {
        let sections = ["model", "model.loop", "model.moe", "data", "train", "optim"];
        let all: Vec<String> = sections.iter().flat_map(|section| keys(section)).collect();
        assert!(all.len() > 40, "{all:?}");
        let sections = ["model.running_mean", "model.loop", "model.moe"];
        for key in all.iter().filter(|key| !sections.contains(&key.as_str())) {
            let classes = CLASSES.iter().flat_map(|(_, keys)| *keys).filter(|k| *k == key).count();
            assert_eq!(classes, 1, "classes of {key}");
        }
        let sections = toml::from_str::<Config>("x = 0").unwrap_err().message().matches('`').count() / 2 - 1;
        assert_eq!(sections, 4, "sections of the configuration");
    }

    #[test]
    fn a_fork_says_what_makes_another_model_of_the_weights() {
        let (old, mut new) = (Config::default(), Config::default());
        new.train.seed += 1;
        new.optim.clip = 0.5;
        assert_eq!(fork(&old, &new).unwrap(), None);
        (new.model.rope_theta, new.model.kv_heads) = (500.0, 1);
        let said = fork(&old, &new).unwrap().unwrap();
        let kv_heads = old.model.kv_heads;
        assert!(
            said.ends_with(&format!("model.kv_heads = 1 (was {kv_heads}), model.rope_theta = 500 (was 10000)")),
            "{said}"
        );
    }

    #[test]
    fn a_change_of_the_schedule_is_said_with_its_effect() {
        let mut old = Config::default();
        (old.train.total_steps, old.optim.warmup_steps, old.optim.muon_lr) = (30, 2, 0.01);
        let longer = |steps: u64| Config {
            train: crate::train::TrainConfig { total_steps: steps, ..old.train.clone() },
            ..old.clone()
        };
        assert_eq!(
            schedule(&old, &longer(60), 30).unwrap(),
            [
                "after step 30: train.total_steps = 60 (was 30)",
                "the learning rate of Muon rises from 6.7e-4 to 1.0e-2 after step 30",
                "the learning rate of AdamW rises from 2.0e-4 to 3.0e-3 after step 30",
                "it then falls to 0 from step 30 to step 60, not from step 15 to step 30 as planned before",
            ]
        );
        // The decay that had begun does not go on.
        assert!(schedule(&old, &longer(60), 16).unwrap()[1].ends_with("Muon stays at 1.0e-2 after step 16"));
        // Before the decay, a longer run changes only when it begins.
        assert_eq!(schedule(&old, &longer(60), 10).unwrap().len(), 2);
        assert!(schedule(&old, &old, 10).unwrap().is_empty());
        let with_rate = |bias_rate: f32| {
            let mut config = old.clone();
            config.model.moe = Some(crate::model::MoeOptions { bias_rate, ..Default::default() });
            config
        };
        assert_eq!(
            schedule(&with_rate(0.001), &with_rate(0.01), 10).unwrap(),
            ["after step 10: model.moe.bias_rate = 0.01 (was 0.001)"]
        );
        let mut other = old.clone();
        (other.train.batch_size, other.optim.clip, other.optim.aux_lr) = (16, 0.5, 1e-3);
        assert_eq!(
            schedule(&old, &other, 10).unwrap(),
            [
                "after step 10: optim.aux_lr = 0.001 (was 0.003), optim.clip = 0.5 (was 1), train.batch_size = 16 (was 8)",
                "a step has 4096 tokens, not 2048 as before",
                "the learning rate of AdamW falls from 3.0e-3 to 1.0e-3 after step 10",
            ]
        );
    }
}
