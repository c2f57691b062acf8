//! What the real program shows: `generate`, and the server's answers as a whole and as a stream.

use super::{common, families};
use common::cli::Project;
use common::server::{Server, request};
use nanotern::formats::ModelFile;
use nanotern::infer::{ChatTemplate, Engine, EngineOptions, Message, Sampling};
use nanotern::tokenizer::Tokenizer;
use serde_json::json;
use std::rc::Rc;

const PROMPT: &str = "The quick brown";

#[test]
fn generate_and_the_server_say_what_decoding_at_once_gives() {
    for (name, json) in families::all() {
        if !["Llama 2", "Gemma", "BERT", "Qwen"].contains(&name) {
            continue;
        }
        let project = Rc::new(Project::new());
        project.write("tokenizer.json", &json);
        let tokenizer = Tokenizer::from_json(&json).unwrap();
        let vocab = tokenizer.vocab_size();
        let words = format!("--tokenizer tokenizer.json --set data.vocab_size={vocab} --total-steps 1 --seq-len 512");
        project.train("runs/small", &format!("{words} --batch-size 1 --set train.eval_windows=1"));

        let file = ModelFile::open(&project.path("runs/small")).unwrap();
        let mut engine = Engine::new(&file, &common::fastest(), EngineOptions::default()).unwrap();
        let server = Server::of(&project, "");
        let template = ChatTemplate::new(&file.text, &tokenizer).unwrap().unwrap();
        let messages = [Message { role: "user".into(), content: "hi".into() }];
        let chat = template.encode(&messages, &tokenizer).unwrap();
        let prompt = tokenizer.encode(PROMPT).unwrap();
        if name == "BERT" {
            // One unknown word, of whatever length.
            let long = json!([{"role": "user", "content": "x".repeat(400_000)}]);
            assert_eq!(server.chat(json!({"messages": long, "max_tokens": 1})).status, 200);
        }
        for seed in 1..4 {
            let sampling = Sampling { temperature: 2.0, max_tokens: 200, seed, ..Sampling::default() };
            let all = engine.generate(&prompt, sampling.clone()).unwrap().0;
            let whole = tokenizer.decode(&[&prompt[..], &all].concat());
            let shown = project.command("generate --model runs/small --backend cpu --temperature 2 --max-tokens 200");
            let shown = { shown }.args(["--prompt", PROMPT, "--seed", &seed.to_string()]).output().unwrap().stdout;
            let go_on = whole.strip_prefix(&tokenizer.decode(&prompt)).unwrap();
            assert_eq!(String::from_utf8(shown).unwrap(), format!("{PROMPT}{go_on}\n"), "{name}, seed {seed}");

            let want = tokenizer.decode(&engine.generate(&chat, sampling).unwrap().0);
            let fields = json!({"temperature": 2, "max_tokens": 200, "seed": seed});
            assert_eq!(server.chat(fields.clone()).content(), want, "{name}, seed {seed}");
            let mut body = request(fields);
            body["stream"] = true.into();
            let events = server.post(body.to_string().as_bytes()).events();
            let streamed: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
            assert_eq!(streamed, want, "{name}, seed {seed}");
        }
    }
}
