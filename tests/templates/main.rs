//! Chat templates: 32 with the constructs of public ones, with conversations of every kind, rendered as Hugging Face's own
//! renderer does. `golden.json` holds what that rendered; with NANOTERN_PYTHON it renders again.
#![cfg(feature = "native")]

mod budget;
#[cfg(all(feature = "cli", unix))]
#[path = "../common/mod.rs"]
mod common;
mod hostile;
mod opening;

use nanotern::formats::TextConfig;
use nanotern::infer::{ChatTemplate, Conversation};
use nanotern::tokenizer::Tokenizer;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Its conversations name the day.
const TODAY: &str = "today";

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates")
}

/// A tokenizer of words whose first tokens are the special ones that `render.py` has; the rest are `more` special ones and the
/// bytes.
fn tokenizer(more: &[(&str, bool)]) -> Tokenizer {
    let mut json: Value = serde_json::from_str(&Tokenizer::bytes().to_json()).unwrap();
    let special = [("<s>", true), ("</s>", true), ("<unk>", true), ("<pad>", true)];
    let added = special.iter().chain(more).enumerate().map(|(i, (content, special))| {
        json!({"id": 256 + i, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": special})
    });
    json["added_tokens"] = added.collect();
    Tokenizer::from_json(&json.to_string()).unwrap()
}

fn text(template: &str) -> TextConfig {
    let (bos, eos, unk, pad) = (Some(256), Some(257), Some(258), Some(259));
    TextConfig { bos, eos, unk, pad, chat_template: Some(template.into()), ..TextConfig::default() }
}

fn open(template: &str) -> nanotern::Result<ChatTemplate> {
    ChatTemplate::new(&text(template), &tokenizer(&[])).map(|template| template.unwrap())
}

/// What we render, in the form of `render.py`.
fn ours() -> Map<String, Value> {
    // Objects keep their order only as text.
    let conversations: Map<String, Value> =
        serde_json::from_slice(&fs::read(here().join("conversations.json")).unwrap()).unwrap();
    let whole = fs::read_to_string(here().join("conversations.json")).unwrap();
    let source = |name: &str| {
        let from = whole.find(&format!("\n \"{name}\": ")).unwrap() + name.len() + 6;
        let end = whole[from..].find("\n }").unwrap() + 3;
        Conversation::from_json(&whole[from..from + end]).unwrap()
    };
    let mut all = Map::new();
    for entry in fs::read_dir(here()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "jinja") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_string();
        let template = open(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        // One template has many constructs and no conversation.
        let all_of_them = name != "constructs";
        let chosen = conversations.keys().filter(|c| all_of_them || *c == "one");
        let rendered = chosen.map(|conversation| {
            let text = match template.render(&source(conversation)) {
                Ok(text) => text.into(),
                Err(e) => {
                    let said = e.to_string();
                    let said = said.split_once("refuses this conversation: ").map(|(_, said)| said.to_string());
                    json!({ "refused": said })
                }
            };
            (conversation.clone(), text)
        });
        all.insert(name, Value::Object(rendered.collect()));
    }
    all
}

fn differences(ours: &Map<String, Value>, theirs: &Map<String, Value>, but: &str) -> Vec<String> {
    assert!(ours.len() >= 20 && ours.keys().eq(theirs.keys()), "other templates");
    let mut found = Vec::new();
    for (name, theirs) in theirs {
        for (conversation, theirs) in theirs.as_object().unwrap().iter().filter(|(c, _)| *c != but) {
            let ours = &ours[name][conversation];
            if ours != theirs {
                found.push(format!("{name}, {conversation}:\n  {ours}\n  {theirs}"));
            }
        }
    }
    found
}

#[test]
fn every_template_renders_as_hugging_face_renders_it() {
    let golden = serde_json::from_slice(&fs::read(here().join("golden.json")).unwrap()).unwrap();
    let before = ours();
    let found = differences(&before, &golden, TODAY);
    assert!(found.is_empty(), "{} differ\n{}", found.len(), found.join("\n"));
    let Ok(python) = std::env::var("NANOTERN_PYTHON") else {
        println!("not rendered again: NANOTERN_PYTHON names no Python with transformers");
        return;
    };
    let output = Command::new(python).arg(here().join("render.py")).output().unwrap();
    let theirs = serde_json::from_slice(&output.stdout);
    let theirs = theirs.unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    assert_eq!(differences(&golden, &theirs, TODAY), [""; 0], "golden.json is old");
    // Midnight may pass.
    assert!(differences(&before, &theirs, "").is_empty() || differences(&ours(), &theirs, "").is_empty());
}

#[test]
fn texts_are_split_from_the_right_as_python_does_it() {
    let render = |code: &str| {
        let source = format!("{{{{ {code} }}}}");
        open(&source).unwrap().render(&Conversation::from_json(r#"{"messages": [{"role": "user"}]}"#).unwrap()).unwrap()
    };
    for (code, python) in [
        ("' a b  c '.rsplit()", "['a', 'b', 'c']"),
        ("' a b  c '.rsplit(None, 1)", "[' a b', 'c']"),
        ("' a b  c '.rsplit(maxsplit=2)", "[' a', 'b', 'c']"),
        ("' a b  c '.rsplit(none, 0)", "[' a b  c']"),
        ("'  '.rsplit()", "[]"),
        ("'a-b-c'.rsplit('-', 1)", "['a-b', 'c']"),
        ("'a-b-c'.rsplit(sep='-', maxsplit=1)", "['a-b', 'c']"),
        ("'a-b-c'.rsplit('-', -1)", "['a', 'b', 'c']"),
        ("'a-b-c'.rsplit('-', 9223372036854775807)", "['a', 'b', 'c']"),
        ("'a-b-c'.split('-', 9223372036854775807)", "['a', 'b', 'c']"),
    ] {
        assert_eq!(render(code), python, "{code}");
    }
    assert!(open("{{ 'a-b-c'.rsplit('-', 18446744073709551615) }}").is_err());
}
