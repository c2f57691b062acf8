//! What a template must be to open, what it is given, and what becomes of its refusals.

use super::{open, text, tokenizer};
use nanotern::formats::TextConfig;
use nanotern::infer::{ChatTemplate, Conversation, Message};
use nanotern::tokenizer::Tokenizer;

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

#[test]
fn a_template_is_tried_when_it_opens() {
    for (template, part) in [
        ("{% for m in messages %}", "syntax error"),
        ("{{ messages[0].content | shout }}", "shout"),
        ("{{ messages[0].content.shout() }}", "shout"),
        ("{{ shout(messages) }}", "shout"),
        ("{% if messages | length == 3 %}{{ messages | shout }}{% endif %}", "shout"),
        (
            "{{ raise_exception('never') }}",
            "renders no conversation: the model's chat template refuses this conversation: never",
        ),
        ("{{ messages[0].content[0].text.x }}", "renders no conversation"),
        ("{{ messages[0].content + 1 }}", "renders no conversation"),
        ("{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "fuel"),
        ("{% include 'other' %}", "other"),
        ("{% autoescape true %}x{% endautoescape %}", "autoescape"),
        ("{{ messages[0].content | e }}", "e is unknown"),
        (r"{{ '\N{EM DASH}' }}", r"\N"),
        (r"{{ '\U00110000' }}", r"\U"),
        (r"{{ '\U0001F60' }}", r"\U"),
    ] {
        let error = open(template).err().unwrap_or_else(|| panic!("{template} opens")).to_string();
        assert!(error.contains("the model's chat template") && error.contains(part), "{template}: {error}");
    }
    assert!(ChatTemplate::new(&TextConfig::default(), &Tokenizer::bytes()).unwrap().is_none());
}

/// As Jinja2 renders them.
#[test]
fn strings_have_the_escapes_of_python() {
    for (template, want) in [
        (r"{{ 'a\101b\7c\0d\777e\8\/\.\1234' }}", "aAb\x07c\0d\u{1ff}e\\8\\/\\.S4"),
        (r#"{{ '\a\v\b\f\t\47\x27\"' }}"#, "\x07\x0b\x08\x0c\t''\""),
        (r"{{ '\U0001F600\U00000041é\u00e9\d' }}", "😀Aéé\\d"),
        ("{{ 'x\\\ny' }}", "xy"),
    ] {
        let text = open(template).unwrap().render(&(&[message("user", "x")][..]).into()).unwrap();
        assert_eq!(text, want, "{template}");
    }
}

#[test]
fn what_a_template_refuses_is_known() {
    let template =
        open("{% if messages[0].role == 'system' %}{{ raise_exception('No system!') }}{% endif %}x").unwrap();
    let [(what, why)] = template.refusals() else { panic!("{:?}", template.refusals()) };
    assert_eq!(
        (*what, &**why),
        ("a system message and a question", "the model's chat template refuses this conversation: No system!")
    );
    let error = template.encode(&[message("system", "a"), message("user", "b")], &tokenizer(&[])).unwrap_err();
    assert_eq!(error.to_string(), *why);
    let long =
        open("{% if messages[0].content|length > 99 %}{{ raise_exception(messages[0].content) }}{% endif %}x").unwrap();
    let error = long.encode(&[message("user", &"é".repeat(10_000))], &tokenizer(&[])).unwrap_err().to_string();
    assert!(error.len() < 1200, "{error}");
}

#[test]
fn roles_and_fields_that_a_template_does_not_know_are_refused() {
    let t = tokenizer(&[]);
    let plain = open("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}").unwrap();
    let ids = |role: &str| plain.encode(&[message(role, "x")], &t);
    assert_eq!(ids("developer").unwrap(), t.encode("system:x;").unwrap());
    assert!(ids("tool").unwrap_err().to_string().contains("role = \"tool\""));
    assert!(
        ids("robot").unwrap_err().to_string().contains("\"robot\": must be system, developer, user, assistant or tool")
    );
    let knows =
        open("{% for m in messages %}{% if m.role in ['tool', 'developer'] %}!{% endif %}{{ m.role }}{% endfor %}")
            .unwrap();
    let all = knows.encode(&[message("developer", ""), message("tool", "")], &t).unwrap();
    assert_eq!(all, t.encode("!developer!tool").unwrap());
    let encode = |json: &str| plain.encode_conversation(&Conversation::from_json(json).unwrap(), &t);
    let one = r#""messages": [{"role": "user", "content": "x", "mood": "sad"}]"#;
    assert!(
        encode(&format!("{{{one}}}"))
            .unwrap_err()
            .to_string()
            .contains("mood: the model's chat template does not read it")
    );
    assert!(
        encode(&format!(r#"{{"tools": [], {}}}"#, one.replace(", \"mood\": \"sad\"", "")))
            .unwrap_err()
            .to_string()
            .contains("tools")
    );
    for bad in ["[]", "1", "{\"messages\": 1}", "{\"messages\": [1]}", "{\"messages\": [{\"content\": \"x\"}]}", "{"] {
        assert!(Conversation::from_json(bad).is_err_and(|e| e.to_string().contains("the conversation: ")), "{bad}");
    }
}

#[test]
fn special_tokens_have_names_and_bos_comes_once() {
    let t = tokenizer(&[]);
    let ids = |template: &str, add_bos| {
        let text = TextConfig { add_bos, ..text(template) };
        ChatTemplate::new(&text, &t).unwrap().unwrap().encode(&[message("user", "hi")], &t).unwrap()
    };
    let all = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ unk_token }}{{ pad_token }}{{ sep_token is defined }}";
    let hi = t.encode("hi").unwrap();
    let want = [&[256][..], &hi, &[257, 258, 259], &t.encode("False").unwrap()].concat();
    assert_eq!((ids(all, false), ids(all, true)), (want.clone(), want));
    let none = "{{ messages[0].content }}";
    assert_eq!((ids(none, false), ids(none, true)), (hi.clone(), [&[256][..], &hi].concat()));
    let twice = "{{ bos_token }}{{ bos_token }}";
    assert_eq!(ids(twice, true), [256, 256], "what the template writes stays");
    let text = TextConfig { add_bos: true, ..text(none) };
    assert_eq!(text.prompt(t.encode("hi").unwrap()), [&[256][..], &hi].concat());
    assert_eq!(TextConfig { add_bos: false, ..text }.prompt(t.encode("hi").unwrap()), hi);
}

#[test]
fn json_is_pythons() {
    let t = tokenizer(&[]);
    let json = r#"{"messages": [{"role": "user"}], "x": {"z": [1e20, 1e-7, -0.0, 1.5, 100.0, 12345678901234567890],
        "a": ["\u007f\u0001é\u2028\"\\\n😀</b>&'", true, null, {}, []]}}"#;
    let say = |how: &str| {
        let template = ChatTemplate::new(&text(&format!("{{{{ x | tojson{how} }}}}")), &t);
        // Nothing renders without x.
        assert!(template.err().unwrap().to_string().contains("tojson: the value is undefined"));
        let template = format!("{{{{ x | tojson{how} if x is defined }}}}");
        open(&template).unwrap().render(&Conversation::from_json(json).unwrap()).unwrap()
    };
    let numbers = "[1e+20, 1e-07, -0.0, 1.5, 100.0, 12345678901234567890]";
    let texts = "[\"\u{7f}\\u0001é\u{2028}\\\"\\\\\\n😀</b>&'\", true, null, {}, []]";
    assert_eq!(say(""), format!("{{\"z\": {numbers}, \"a\": {texts}}}"));
    assert_eq!(say("(sort_keys=true)"), format!("{{\"a\": {texts}, \"z\": {numbers}}}"));
    let ascii = "[\"\\u007f\\u0001\\u00e9\\u2028\\\"\\\\\\n\\ud83d\\ude00</b>&'\",true,null,{},[]]";
    assert_eq!(
        say("(true, separators=(',', ':'), sort_keys=true)"),
        format!("{{\"a\":{ascii},\"z\":{}}}", numbers.replace(' ', ""))
    );
    let lines = say("(indent=1)");
    assert!(
        lines.starts_with("{\n \"z\": [\n  1e+20,\n  1e-07") && lines.ends_with(",\n  {},\n  []\n ]\n}"),
        "{lines}"
    );
}
