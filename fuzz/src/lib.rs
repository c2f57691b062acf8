//! What the fuzz targets share: inputs made from a grammar, and a limit of memory.
//!
//! Changed bytes of a JSON text or a template are rarely another one that has a meaning. So an input that begins with a zero
//! byte is a list of choices in a grammar (`grammars/`). Every other input is the text itself.

use cap::Cap;
use std::alloc::System;
use std::collections::HashMap;

/// What a target may allocate for an input: more than that aborts. SECURITY.md promises memory in proportion to the file, and
/// files here are small.
const MEMORY: usize = 64 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MEMORY);

/// Lets the next input allocate as much as the first, whatever is still held: the expressions that crates keep for all
/// tokenizers have caches that grow with the texts they see, up to a few MiB each.
pub fn next_input() {
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + MEMORY).expect("it is more than what is held");
}

/// Bytes of a text after which a grammar makes only the shortest choices.
const LONGEST: usize = 1 << 14;
/// Depth of rules after which it does, too.
const DEEPEST: usize = 40;

/// Rules, each with its alternatives.
///
/// It is written in lines: the name of a rule, and below it, indented by four blanks, its alternatives. `$name` in one is a
/// rule, `$9name` is the text of a rule nine times, `↵` is a line end, and a lone `ε` is nothing. The first alternative is
/// the one that ends soonest.
pub struct Grammar(HashMap<&'static str, Vec<&'static str>>);

impl Grammar {
    /// Reads a grammar.
    ///
    /// # Panics
    /// When an alternative names a rule that is not there.
    pub fn new(text: &'static str) -> Grammar {
        let (mut rules, mut name) = (HashMap::<_, Vec<_>>::new(), "");
        for line in text.lines() {
            match line.strip_prefix("    ") {
                Some(alternative) => rules.entry(name).or_default().push(alternative),
                None => name = line,
            }
        }
        let grammar = Grammar(rules);
        for (rule, alternatives) in &grammar.0 {
            for choice in 0..alternatives.len() as u8 {
                Maker { grammar: &grammar, choices: &[choice] }.text(rule);
            }
        }
        grammar
    }

    /// A maker for an input that lists choices; none for one that is a text.
    pub fn maker<'a>(&'a self, input: &'a [u8]) -> Option<Maker<'a>> {
        Some(Maker { grammar: self, choices: input.strip_prefix(&[0])? })
    }
}

/// Makes texts from a grammar by the choices of an input.
pub struct Maker<'a> {
    grammar: &'a Grammar,
    choices: &'a [u8],
}

impl Maker<'_> {
    /// The next choice.
    pub fn choice(&mut self) -> u8 {
        self.choices.split_off_first().copied().unwrap_or(0)
    }

    /// The text of a rule.
    pub fn text(&mut self, rule: &str) -> String {
        let mut text = String::new();
        self.add(rule, 0, &mut text);
        text
    }

    fn add(&mut self, rule: &str, depth: usize, out: &mut String) {
        let choice = if depth < DEEPEST && out.len() < LONGEST { self.choice().into() } else { 0 };
        let alternatives = self.grammar.0.get(rule).unwrap_or_else(|| panic!("the grammar has no rule {rule:?}"));
        let mut rest = alternatives[choice % alternatives.len()];
        if rest == "ε" {
            return;
        }
        while let Some((before, after)) = rest.split_once('$') {
            out.push_str(&before.replace('↵', "\n"));
            let named = after.trim_start_matches(|c: char| c.is_ascii_digit());
            let times = &after[..after.len() - named.len()];
            let end = named.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(named.len());
            if end == 0 {
                // A dollar of the text.
                out.push('$');
                rest = after;
                continue;
            }
            let start = out.len();
            self.add(&named[..end], depth + 1, out);
            let once = out[start..].to_string();
            let most = LONGEST / once.len().max(1);
            (1..times.parse().unwrap_or(1).min(most)).for_each(|_| out.push_str(&once));
            rest = &named[end..];
        }
        out.push_str(&rest.replace('↵', "\n"));
    }
}
