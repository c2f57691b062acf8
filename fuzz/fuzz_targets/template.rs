//! Any text is a chat template or an error. A template renders a conversation or says why not.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nanotern::formats::TextConfig;
use nanotern::infer::{ChatTemplate, Conversation};
use nanotern::tokenizer::Tokenizer;
use nanotern_fuzz::Grammar;
use std::sync::LazyLock;

static GRAMMAR: LazyLock<Grammar> = LazyLock::new(|| Grammar::new(include_str!("../grammars/template.txt")));
static TOKENIZER: LazyLock<Tokenizer> = LazyLock::new(Tokenizer::bytes);
static TEXT: LazyLock<TextConfig> = LazyLock::new(|| TextConfig::new(&TOKENIZER));
static CONVERSATION: LazyLock<Conversation> = LazyLock::new(|| {
    let json = r#"{"messages": [{"role": "system", "content": "é"}, {"role": "user", "content": "<|end|> a\nb"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": [1, 1.5, null]}}}]}"#;
    Conversation::from_json(json).expect("it is a conversation")
});

fuzz_target!(|input: &[u8]| {
    nanotern_fuzz::next_input();
    let made = GRAMMAR.maker(input).map(|mut maker| maker.text("template"));
    let Some(source) = made.or_else(|| String::from_utf8(input.to_vec()).ok()) else { return };
    let text = TextConfig { chat_template: Some(source), ..TEXT.clone() };
    let Ok(Some(template)) = ChatTemplate::new(&text, &TOKENIZER) else { return };
    // One that does not read all fields of the conversation is not rendered to be encoded.
    if template.encode_conversation(&CONVERSATION, &TOKENIZER).is_err() {
        let _ = template.render(&CONVERSATION);
    }
});
