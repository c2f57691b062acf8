//! Models that are served: on several backends, with residual mixing or a tokenizer from a separate file.

use super::common::cli::Project;
use super::common::has_adapter;
use super::common::server::Server;
use nanotern::formats::mhc::MhcFile;
use nanotern::formats::{Format, ModelFile};
use nanotern::tokenizer::Tokenizer;
use serde_json::json;
use std::rc::Rc;

/// A model with two streams, as the files `model.gguf` and `model.mhc`.
fn exported() -> Rc<Project> {
    let p = Project::new();
    p.train("run", "--total-steps 60 --set model.mhc_streams=2 --set train.eval_windows=1");
    p.ok("export --checkpoint run --output model.gguf --mhc model.mhc");
    Rc::new(p)
}

/// The likeliest continuation.
fn greedy(p: &Rc<Project>, words: &str) -> String {
    Server::of(p, words).chat(json!({"temperature": 0, "max_tokens": 12})).content()
}

#[test]
fn wgpu_says_what_the_cpu_says() {
    if !has_adapter() {
        return;
    }
    let p = exported();
    let on_cpu = greedy(&p, "--model model.gguf");
    assert!(!on_cpu.is_empty());
    assert_eq!(greedy(&p, "--model model.gguf --backend wgpu"), on_cpu);
}

#[test]
fn a_model_is_found_by_any_name() {
    let p = exported();
    std::fs::copy(p.path("model.gguf"), p.path("mö%20del.gguf")).unwrap();
    let server = Server::of(&p, "--model mö%20del.gguf");
    assert_eq!(server.get("/v1/models").json()["data"][0]["id"], "mö%20del");
    assert_eq!(server.get("/v1/models/m%C3%B6%2520del").json()["id"], "mö%20del");
    let other = server.get("/v1/models/m%C3%B6%20del");
    assert!(other.status == 404 && other.text().contains("mö del"), "{}", other.text());
}

#[test]
fn mixing_comes_from_its_own_file() {
    let p = exported();
    let words = "generate --backend cpu --threads 1 --model model.gguf --temperature 0 --max-tokens 20 --prompt 7:";
    let text = p.ok(words);
    assert_eq!(p.ok(&format!("{words} --mhc model.mhc")), text);
    let mut mhc = MhcFile::open(&p.path("model.mhc")).unwrap();
    // Every sub-layer reads the other stream and writes nothing.
    for sublayer in &mut mhc.sublayers {
        sublayer[3..5].reverse();
        sublayer[7..9].fill(-30.0);
    }
    mhc.save(&p.path("other.mhc")).unwrap();
    assert_ne!(p.ok(&format!("{words} --mhc other.mhc")), text);
    assert_ne!(greedy(&p, "--model model.gguf --mhc other.mhc"), greedy(&p, "--model model.gguf"));
    mhc.sublayers.extend(mhc.sublayers.clone());
    mhc.save(&p.path("deep.mhc")).unwrap();
    p.write("cut.mhc", &p.read("model.mhc")[..40]);
    for (file, word) in [
        ("deep.mhc", "4 sub-layers of 2 streams, but the model has 2 of 2 streams"),
        ("cut.mhc", "the file has 24"),
        ("text.txt", "not a .mhc file"),
        ("none.mhc", "none.mhc"),
    ] {
        for command in ["serve --port 0", "chat", "generate --prompt x"] {
            let ended = p.nanotern(&format!("{command} --backend cpu --model model.gguf --mhc {file}"));
            assert!(ended.code == Some(1) && ended.stderr.contains(word), "{command} {file}: {}", ended.stderr);
            assert!(ended.stderr.contains(file), "{}", ended.stderr);
        }
    }
}

#[test]
fn the_tokenizer_comes_from_its_own_file() {
    let p = exported();
    let json = Tokenizer::bytes().to_json();
    // The same vocabulary with two letters exchanged.
    let exchanged =
        json.replace("\"a\":97", "\"a\":#").replace("\"s\":115", "\"s\":97").replace("\"a\":#", "\"a\":115");
    assert_ne!(exchanged, json);
    p.write("same.json", &json);
    p.write("other.json", exchanged);
    let words = "generate --backend cpu --threads 1 --model model.gguf --temperature 0 --max-tokens 20 --prompt 7:";
    let text = p.ok(words);
    assert_eq!(p.ok(&format!("{words} --tokenizer same.json")), text);
    let exchange = |c| match c {
        'a' => 's',
        's' => 'a',
        c => c,
    };
    let other: String = text.chars().map(exchange).collect();
    assert!(other != text, "{text} has neither letter");
    assert_eq!(p.ok(&format!("{words} --tokenizer other.json")), other);
    assert_eq!(greedy(&p, "--model model.gguf --tokenizer same.json"), greedy(&p, "--model model.gguf"));
}

#[test]
fn a_wrong_tokenizer_is_refused() {
    let p = exported();
    p.ok("tokenizer train --input text.txt --vocab-size 300 --output larger.json");
    for (file, word) in
        [("larger.json", "tokens, but the model has 262"), ("text.txt", "tokenizer.json"), ("no.json", "no.json")]
    {
        let ended = p.nanotern(&format!("serve --port 0 --backend cpu --model model.gguf --tokenizer {file}"));
        assert!(ended.code == Some(1) && ended.stderr.contains(word), "{file}: {}", ended.stderr);
    }
}

/// The model `model.gguf` with another chat template, as `other.gguf`.
fn with_template(p: &Project, template: &str) {
    let mut file = ModelFile::open(&p.path("model.gguf")).unwrap();
    file.text.chat_template = Some(template.into());
    file.save_gguf(&p.path("other.gguf"), Format::Q1_58).unwrap();
}

#[test]
fn a_template_of_others_is_served_or_refused_at_the_start() {
    let p = exported();
    with_template(
        &p,
        "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('No system here!') }}{% endif %}\
         {% for m in messages %}{{ m.role }}: {{ m.content.strip() }} ({{ m.name | default('nobody') }})\n{% endfor %}\
         {% if messages[-1].role == 'tool' %}{{ messages[-1].tool_call_id }}{% endif %}",
    );
    let inspected = p.ok("inspect other.gguf");
    assert!(
        inspected.contains("chats       yes; not a system message and a question")
            && inspected.contains("No system here!")
    );
    let server = Server::of(&p, "--model other.gguf");
    let ask = |messages: serde_json::Value| server.chat(json!({"messages": messages, "max_tokens": 1}));
    let refused = ask(json!([{"role": "system", "content": "x"}]));
    assert!(refused.text().contains("No system here!"), "{}", refused.text());
    assert_eq!(refused.refused(400, "a refusal of the template").0, "messages");
    let tokens = |messages| ask(messages).json()["usage"]["prompt_tokens"].as_u64().unwrap() as usize;
    assert_eq!(tokens(json!([{"role": "user", "content": "  hi "}])), 1 + "user: hi (nobody)\n".len());
    let called = json!([{"role": "tool", "name": "f", "tool_call_id": "12", "content": "<|bos|>"}]);
    assert_eq!(tokens(called), 1 + "tool: <|bos|> (f)\n12".len());
    drop(server);
    for (template, part) in
        [("{{ messages | shout }}", "shout"), ("{% if %}", "syntax error"), ("{{ raise_exception('no') }}", "no")]
    {
        with_template(&p, template);
        for words in ["serve --port 0", "chat"] {
            let ended = p.nanotern(&format!("{words} --backend cpu --threads 1 --model other.gguf"));
            assert_eq!(ended.code, Some(2), "{template}: {}", ended.stderr);
            assert!(
                ended.stderr.contains("the model's chat template") && ended.stderr.contains(part),
                "{}",
                ended.stderr
            );
        }
        let inspected = p.ok("inspect other.gguf");
        assert!(
            inspected.contains("serves      yes") && inspected.contains("chats       no: the model's chat template"),
            "{inspected}"
        );
    }
}

/// A request whose logits are not finite ends with an error that says why, and the server goes on.
#[test]
fn a_model_that_overflows_answers_with_an_error() {
    let p = exported();
    p.overflowing("model.gguf", "overflow.gguf");
    let server = Server::of(&p, "--model overflow.gguf");
    for _ in 0..3 {
        let answer = server.chat(json!({}));
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["type"], &error["code"]),
            (500, &json!("server_error"), &json!("model_error"))
        );
        assert!(error["message"].as_str().unwrap().contains("rms_norm at norm.weight"), "{error}");
        let events = server.chat(json!({"stream": true})).events();
        assert_eq!(events.last().unwrap()["error"], *error);
    }
    assert_eq!(server.get("/health").json()["status"], "ok");
}
