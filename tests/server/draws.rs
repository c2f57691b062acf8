//! What the server draws: each field of the sampling table changes the frequencies of tokens as its definition says. Here is
//! the definition once more, in f64. The logits of the model are the same whatever was said before.

use super::common::cli::Project;
use super::common::has_adapter;
use super::common::server::{Answer, Server, post};
use nanotern::checkpoint::Array;
use nanotern::formats::{Format, ModelFile, TextConfig};
use nanotern::model::{Init, ModelConfig, Weight};
use nanotern::tokenizer::Tokenizer;
use serde_json::{Value, json};
use std::io::Write;
use std::net::TcpStream;
use std::rc::Rc;

/// The tokens that are drawn, and their logits: some of each sign, and all exact in f16. All other tokens have `NEVER`.
const LETTERS: [(u8, f32); 12] = [
    (b'a', 1.5),
    (b'b', -0.25),
    (b'c', 0.75),
    (b'd', -1.0),
    (b'e', 1.0),
    (b'f', 0.25),
    (b'g', -0.5),
    (b'h', 1.25),
    (b'i', -1.5),
    (b'j', 0.5),
    (b'k', -0.75),
    (b'l', -2.0),
];
const NEVER: f32 = -60.0;
/// Answers that are drawn side by side, each with a seed of its own. A GPU in software takes as long for many as for few.
const ANSWERS: usize = 100;
/// Tokens of an answer: together they are ten thousand draws.
const TOKENS: usize = 100;
/// Quantile of the normal distribution beyond which lies a millionth.
const Z: f64 = 4.7534;

/// A model whose layers add nothing to the embedding, which is 1 everywhere: its logits are the first column of its head.
fn fixed_logits() -> ModelFile {
    let config = ModelConfig {
        dim: 32,
        layers: 1,
        heads: 1,
        kv_heads: 1,
        ffn: 32,
        seq_len: 160,
        group_size: 32,
        tie_embeddings: false,
        ..ModelConfig::default()
    };
    let tokenizer = Tokenizer::bytes();
    let latent = |weight: &Weight| {
        let ones = weight.init == Init::Ones || weight.name == "embed.weight";
        let mut data = vec![if ones { 1.0 } else { 0.0 }; weight.elements()];
        if weight.name == "head.weight" {
            for (token, row) in data.chunks_exact_mut(config.dim).enumerate() {
                row[0] = LETTERS.iter().find(|(letter, _)| usize::from(*letter) == token).map_or(NEVER, |(_, l)| *l);
            }
        }
        Array::f32(&weight.name, weight.shape.clone(), data)
    };
    let latent: Vec<Array> = config.weights(tokenizer.vocab_size()).iter().map(latent).collect();
    ModelFile::from_latent(config, TextConfig::new(&tokenizer), &latent).unwrap()
}

/// The probabilities of the letters after a text that has the letters `seen`.
fn distribution(fields: &Value, seen: &[u8]) -> [f64; LETTERS.len()] {
    let field = |name: &str, default: f64| fields.get(name).map_or(default, |v| v.as_f64().unwrap());
    let (temperature, penalty) = (field("temperature", 0.8), field("repetition_penalty", 1.0));
    let mut logits = LETTERS.map(|(letter, logit)| {
        let bias =
            fields.get("logit_bias").and_then(|b| b.get(letter.to_string())).map_or(0.0, |v| v.as_f64().unwrap());
        let logit = f64::from(logit) + bias;
        match seen.contains(&letter) {
            true if logit > 0.0 => logit / penalty,
            true => logit * penalty,
            false => logit,
        }
    });
    // The likeliest first.
    let mut order: Vec<usize> = (0..LETTERS.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    let top = logits[order[0]];
    if temperature == 0.0 {
        logits.iter_mut().enumerate().for_each(|(i, l)| *l = f64::from(u8::from(i == order[0])));
        return logits;
    }
    let weights = logits.map(|l| ((l - top) / temperature).exp());
    order.retain(|i| weights[*i] >= field("min_p", 0.0));
    match field("top_k", 0.0) as usize {
        0 => {}
        k => order.truncate(k),
    }
    let enough = field("top_p", 0.95) * order.iter().map(|i| weights[*i]).sum::<f64>();
    let mut held = 0.0;
    order.retain(|i| {
        let keep = held == 0.0 || held < enough;
        held += weights[*i];
        keep
    });
    let total: f64 = order.iter().map(|i| weights[*i]).sum();
    let mut p = [0.0; LETTERS.len()];
    order.iter().for_each(|i| p[*i] = weights[*i] / total);
    p
}

/// Fails if what was counted is not what is expected, at a level of a millionth (Pearson's test). Rare cells count as one.
fn assert_chi_square(case: &str, counted: &[f64], expected: &[f64]) {
    let (mut rare, mut sum, mut cells) = ([0.0; 2], 0.0, 0);
    let mut add = |[counted, expected]: [f64; 2]| {
        sum += (counted - expected).powi(2) / expected;
        cells += 1;
    };
    for (counted, expected) in counted.iter().zip(expected) {
        assert!(*expected > 1e-9 || *counted == 0.0, "{case}: {counted} times what is never drawn");
        if *expected < 5.0 {
            (rare[0], rare[1]) = (rare[0] + counted, rare[1] + expected);
        } else {
            add([*counted, *expected]);
        }
    }
    if rare[1] >= 5.0 {
        add(rare);
    }
    // The quantile of a chi-square distribution (Wilson & Hilferty 1931).
    let free = f64::from(cells) - 1.0;
    let part = 2.0 / (9.0 * free.max(1.0));
    let limit = free.max(1.0) * (1.0 - part + Z * part.sqrt()).powi(3);
    assert!(
        sum <= limit,
        "{case}: chi-square {sum:.1}, at most {limit:.1} of {free} is chance\n{counted:?}\n{expected:?}"
    );
}

/// A server of the model.
fn server(backend: &str) -> Server {
    let project = Project::new();
    fixed_logits().save_gguf(&project.path("fixed.gguf"), Format::Q1_58).unwrap();
    Server::of(&Rc::new(project), &format!("--model fixed.gguf --slots {ANSWERS} {backend}"))
}

/// Answers of `tokens` letters to `said`, with the seeds from `seed` on, drawn side by side.
fn answers(server: &Server, fields: &Value, said: &str, tokens: usize, seed: usize) -> Vec<Vec<u8>> {
    let ask = |seed: usize| {
        let mut body = json!({"messages": [{"role": "user", "content": said}], "max_tokens": tokens, "seed": seed,
            "stream": true});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let mut stream = server.connect();
        stream.write_all(&post(body.to_string().as_bytes())).unwrap();
        stream
    };
    let text = |stream| {
        let events = Answer::read(stream).events();
        let text: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text.len(), tokens, "{fields}");
        text.into_bytes()
    };
    let streams: Vec<TcpStream> = (seed..seed + ANSWERS).map(ask).collect();
    streams.into_iter().map(text).collect()
}

fn place(letter: u8) -> usize {
    LETTERS.iter().position(|(known, _)| *known == letter).expect("no other token is drawn")
}

/// Compares the draws for each field, alone and together.
fn each_field_gives_its_distribution(server: &Server) {
    // Tokens are 97 for a to 108 for l.
    let bias = json!({"97": -1.5, "100": 2.2, "101": -100, "108": 3.4});
    for fields in [
        json!({}),
        json!({"temperature": 1, "top_p": 1}),
        json!({"temperature": 0.4, "top_p": 1}),
        json!({"temperature": 2, "top_p": 1}),
        json!({"temperature": 0}),
        json!({"top_p": 0.6}),
        json!({"top_p": 0}),
        json!({"top_p": 1, "top_k": 1}),
        json!({"top_p": 1, "top_k": 5}),
        json!({"top_p": 1, "min_p": 0.35}),
        json!({"top_p": 1, "logit_bias": bias}),
        json!({"temperature": 1.3, "top_k": 9, "top_p": 0.8, "min_p": 0.05, "logit_bias": bias}),
    ] {
        let mut counted = [0.0; LETTERS.len()];
        let drawn = answers(server, &fields, "x", TOKENS, 0);
        drawn.concat().into_iter().for_each(|letter| counted[place(letter)] += 1.0);
        let all = (ANSWERS * TOKENS) as f64;
        assert_chi_square(&fields.to_string(), &counted, &distribution(&fields, b"").map(|p| p * all));
    }
}

/// A token's probability changes once it is in the prompt or in the answer. Answers are short: soon all letters are seen.
fn repetition_gives_its_distribution(server: &Server) {
    for (penalty, said) in [(1.8, "aceh"), (0.6, "bdg")] {
        let fields = json!({"repetition_penalty": penalty, "temperature": 1, "top_p": 1});
        let (mut counted, mut expected) = ([0.0; LETTERS.len()], [0.0; LETTERS.len()]);
        for answer in (0..13).flat_map(|round| answers(server, &fields, said, 8, round * ANSWERS)) {
            let mut seen = said.as_bytes().to_vec();
            for letter in answer {
                let p = distribution(&fields, &seen);
                expected.iter_mut().zip(p).for_each(|(expected, p)| *expected += p);
                counted[place(letter)] += 1.0;
                seen.push(letter);
            }
        }
        assert_chi_square(&fields.to_string(), &counted, &expected);
    }
}

/// No token says anything about the one after it, the one after that, or that of the next seed at its place. The same seed
/// draws the same.
fn draws_are_independent(server: &Server) {
    let fields = json!({"temperature": 2, "top_p": 1});
    let drawn = answers(server, &fields, "x", TOKENS, 0);
    assert!(drawn == answers(server, &fields, "x", TOKENS, 0), "a seed draws one text");
    let p = distribution(&fields, b"");
    for (case, answer, later) in [("the next token", 0, 1), ("the token after that", 0, 2), ("the next seed", 1, 0)] {
        let mut counted = [0.0; LETTERS.len() * LETTERS.len()];
        for (one, other) in drawn.iter().zip(&drawn[answer..]) {
            for (a, b) in one.iter().zip(&other[later..]) {
                counted[place(*a) * LETTERS.len() + place(*b)] += 1.0;
            }
        }
        let all: f64 = counted.iter().sum();
        let expected: Vec<f64> = p.iter().flat_map(|a| p.map(|b| all * a * b)).collect();
        assert_chi_square(case, &counted, &expected);
    }
}

#[test]
fn ten_thousand_draws_for_each_field() {
    each_field_gives_its_distribution(&server(""));
}

#[test]
fn ten_thousand_draws_with_repetition_penalties() {
    repetition_gives_its_distribution(&server(""));
}

#[test]
fn ten_thousand_draws_are_independent() {
    draws_are_independent(&server(""));
}

#[test]
fn a_gpu_draws_from_the_same_distributions() {
    if has_adapter() {
        let server = server("--backend wgpu");
        each_field_gives_its_distribution(&server);
        repetition_gives_its_distribution(&server);
        draws_are_independent(&server);
    }
}
