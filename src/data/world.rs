//! The closed world of the synthetic data set: every fact, all its questions, and its one answer.
//!
//! Its size suits a model of a few million ternary weights and a million training tokens: some 740 facts, each seen about a
//! hundred times. Answers other than code have one or two tokens.

/// A fact: the questions that ask for it, and the answer.
pub(super) struct Fact {
    pub task: &'static str,
    pub questions: Vec<String>,
    pub answer: String,
    pub hold: Hold,
}

/// The questions of a fact that may be held out of training.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// One question; training sees the others.
    Phrasing,
    /// All questions; the answer follows from similar facts.
    Fact,
}

/// Tasks and their fraction of the training questions, in percent.
pub(super) const TASKS: [(&str, u64); 8] = [
    ("animals", 13),
    ("lands", 14),
    ("arithmetic", 27),
    ("comparison", 13),
    ("sequence", 10),
    ("letters", 9),
    ("repeat", 6),
    ("code", 8),
];

/// Courtesies at the start (the first two) or the end of a dialogue. They are never held out.
pub(super) const CHAT: [(&[&str], &str); 4] = [
    (&["Hello!", "Hi!", "Hello there.", "Good morning!"], "Hello! What would you like to know?"),
    (&["Who are you?", "What are you?", "Tell me who you are."], "I am a tiny ternary model."),
    (&["Thank you!", "Thanks.", "Thanks a lot!"], "You are welcome."),
    (&["Goodbye!", "Bye.", "See you later."], "Goodbye!"),
];

// name, sound, home, young, food
const ANIMALS: [[&str; 5]; 16] = [
    ["dog", "bark", "kennel", "puppy", "bones"],
    ["cat", "meow", "house", "kitten", "fish"],
    ["cow", "moo", "barn", "calf", "grass"],
    ["horse", "neigh", "stable", "foal", "hay"],
    ["pig", "oink", "sty", "piglet", "corn"],
    ["sheep", "bleat", "meadow", "lamb", "clover"],
    ["duck", "quack", "pond", "duckling", "bread"],
    ["lion", "roar", "den", "cub", "meat"],
    ["owl", "hoot", "tree", "owlet", "mice"],
    ["bee", "buzz", "hive", "larva", "nectar"],
    ["frog", "croak", "swamp", "tadpole", "flies"],
    ["wolf", "howl", "forest", "pup", "deer"],
    ["snake", "hiss", "desert", "hatchling", "eggs"],
    ["rooster", "crow", "coop", "chick", "grain"],
    ["mouse", "squeak", "hole", "pinkie", "cheese"],
    ["elephant", "trumpet", "savanna", "calf", "leaves"],
];

const ANIMAL_PHRASINGS: [[&str; 6]; 4] = [
    [
        "What sound does the {} make?",
        "Which sound does a {} make?",
        "Tell me the sound of the {}.",
        "How does the {} sound?",
        "What does the {} say?",
        "Name the sound of a {}.",
    ],
    [
        "Where does the {} live?",
        "What is the home of the {}?",
        "Tell me the home of a {}.",
        "In which place does the {} live?",
        "Name the home of the {}.",
        "Where is the {} at home?",
    ],
    [
        "What is a young {} called?",
        "What is the baby of the {}?",
        "Tell me the name of a young {}.",
        "How do you call a baby {}?",
        "Name the baby of a {}.",
        "What do you call a young {}?",
    ],
    [
        "What does the {} eat?",
        "What is the food of the {}?",
        "Tell me the food of a {}.",
        "What food does the {} like?",
        "Name the food of the {}.",
        "What do you feed a {}?",
    ],
];

// name, capital, colour of the flag, river, export
const LANDS: [[&str; 5]; 16] = [
    ["Avaria", "Lumen", "blue", "Sill", "salt"],
    ["Borvia", "Tarnow", "red", "Mora", "iron"],
    ["Celdor", "Pinna", "green", "Ondra", "wool"],
    ["Dorland", "Hask", "white", "Vell", "silk"],
    ["Elmora", "Quist", "black", "Tamar", "gold"],
    ["Fenwick", "Brill", "yellow", "Lune", "tea"],
    ["Galdia", "Sorn", "purple", "Kessa", "rice"],
    ["Hestia", "Merrow", "orange", "Ruhn", "copper"],
    ["Istria", "Calder", "blue", "Dova", "honey"],
    ["Jorvik", "Nesk", "red", "Aller", "timber"],
    ["Kelmar", "Ostra", "green", "Brun", "glass"],
    ["Lorien", "Vanth", "white", "Isar", "pearls"],
    ["Mirova", "Dunmor", "black", "Sorga", "coal"],
    ["Nubia", "Karsa", "yellow", "Teven", "spice"],
    ["Orland", "Welby", "purple", "Ganna", "wine"],
    ["Pellor", "Zirna", "orange", "Hull", "marble"],
];

const LAND_PHRASINGS: [[&str; 6]; 4] = [
    [
        "What is the capital of {}?",
        "Which city is the capital of {}?",
        "Tell me the capital of {}.",
        "Name the capital of {}.",
        "What is the main city of {}?",
        "{} has which capital?",
    ],
    [
        "What colour is the flag of {}?",
        "Which colour does the flag of {} have?",
        "Tell me the colour of the flag of {}.",
        "Name the colour of {}.",
        "What is the colour of {}?",
        "{} has a flag of which colour?",
    ],
    [
        "Which river flows through {}?",
        "What is the river of {}?",
        "Tell me the river of {}.",
        "Name the river of {}.",
        "What river does {} have?",
        "{} has which river?",
    ],
    [
        "What does {} sell?",
        "Which goods does {} export?",
        "Tell me what {} sells.",
        "Name the goods of {}.",
        "What do traders buy in {}?",
        "{} sells which goods?",
    ],
];

const WORDS: [&str; 16] = [
    "apple", "bread", "chair", "door", "engine", "flower", "garden", "hat", "island", "key", "lemon", "moon", "nest",
    "queen", "table", "window",
];

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

// verb, third person, operator, preposition
const OPERATIONS: [[&str; 4]; 4] = [
    ["add", "adds", "+", "to"],
    ["subtract", "subtracts", "-", "from"],
    ["multiply", "multiplies", "*", "by"],
    ["divide", "divides", "/", "by"],
];

// name, what it returns, Python body, Rust body
const FUNCTIONS: [[&str; 4]; 8] = [
    ["square", "the square of x", "x * x", "x * x"],
    ["cube", "the cube of x", "x * x * x", "x * x * x"],
    ["double", "twice x", "x + x", "x + x"],
    ["negate", "minus x", "-x", "-x"],
    ["is_even", "whether x is even", "x % 2 == 0", "x % 2 == 0"],
    ["is_odd", "whether x is odd", "x % 2 == 1", "x % 2 == 1"],
    ["is_zero", "whether x is zero", "x == 0", "x == 0"],
    ["absolute", "the size of x", "abs(x)", "x.abs()"],
];

/// Every fact, in a fixed order.
pub(super) fn facts() -> Vec<Fact> {
    let mut facts = Vec::new();
    table("animals", &ANIMALS, &ANIMAL_PHRASINGS, &mut facts);
    table("lands", &LANDS, &LAND_PHRASINGS, &mut facts);
    arithmetic(&mut facts);
    comparison(&mut facts);
    sequence(&mut facts);
    letters(&mut facts);
    repeat(&mut facts);
    code(&mut facts);
    facts
}

/// A fact whose questions are the phrasings, each `{}` replaced by the next of `slots`.
fn ask(task: &'static str, phrasings: &[&str], slots: &[&str], answer: impl Into<String>, hold: Hold) -> Fact {
    let fill = |phrasing: &&str| slots.iter().fold(phrasing.to_string(), |text, slot| text.replacen("{}", slot, 1));
    Fact { task, questions: phrasings.iter().map(fill).collect(), answer: answer.into(), hold }
}

fn table(task: &'static str, rows: &[[&str; 5]], phrasings: &[[&str; 6]; 4], facts: &mut Vec<Fact>) {
    for row in rows {
        for (value, phrasings) in row[1..].iter().zip(phrasings) {
            facts.push(ask(task, phrasings, &row[..1], *value, Hold::Phrasing));
        }
    }
}

fn arithmetic(facts: &mut Vec<Fact>) {
    let sums = ["What is {} + {}?", "{} + {} =", "Add {} and {}.", "How much is {} plus {}?", "Sum of {} and {}?"];
    let differences =
        ["What is {} - {}?", "{} - {} =", "Start at {}, take away {}.", "How much is {} minus {}?", "{} less {}?"];
    for (a, b) in (0..10).flat_map(|a| (0..10).map(move |b| (a, b))) {
        let slots = [&*a.to_string(), &*b.to_string()];
        facts.push(ask("arithmetic", &sums, &slots, (a + b).to_string(), Hold::Phrasing));
        if b <= a {
            facts.push(ask("arithmetic", &differences, &slots, (a - b).to_string(), Hold::Phrasing));
        }
    }
}

fn comparison(facts: &mut Vec<Fact>) {
    let larger = ["Which is larger, {} or {}?", "Larger: {} or {}?", "Name the larger of {} and {}."];
    let smaller = ["Which is smaller, {} or {}?", "Smaller: {} or {}?", "Name the smaller of {} and {}."];
    for (a, b) in (0..10).flat_map(|a: u32| (0..10).map(move |b: u32| (a, b))).filter(|(a, b)| a != b) {
        let slots = [&*a.to_string(), &*b.to_string()];
        facts.push(ask("comparison", &larger, &slots, a.max(b).to_string(), Hold::Phrasing));
        facts.push(ask("comparison", &smaller, &slots, a.min(b).to_string(), Hold::Phrasing));
    }
}

fn sequence(facts: &mut Vec<Fact>) {
    let numbers: Vec<String> = (0..=20).map(|n| n.to_string()).collect();
    let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
    for (kind, items, circular) in [("number", &numbers[..], false), ("day", &DAYS, true), ("month", &MONTHS, true)] {
        for (i, item) in items.iter().enumerate() {
            let next = items.get(i + 1).or(items.first().filter(|_| circular));
            let previous = i.checked_sub(1).or((items.len() - 1).into()).filter(|_| circular || i > 0);
            if let Some(next) = next {
                let phrasings = ["What comes after {1}?", "Which {0} comes after {1}?", "Name the {0} after {1}."];
                facts.push(ask_about(&phrasings, kind, item, next));
            }
            if let Some(previous) = previous {
                let phrasings = ["What comes before {1}?", "Which {0} comes before {1}?", "Name the {0} before {1}."];
                facts.push(ask_about(&phrasings, kind, item, items[previous]));
            }
        }
    }
}

fn ask_about(phrasings: &[&str], kind: &str, item: &str, answer: &str) -> Fact {
    let questions = phrasings.iter().map(|p| p.replace("{0}", kind).replace("{1}", item)).collect();
    Fact { task: "sequence", questions, answer: answer.to_string(), hold: Hold::Phrasing }
}

fn letters(facts: &mut Vec<Fact>) {
    let first = ["First letter of {}?", "What is the first letter of {}?", "Which letter does {} begin with?"];
    let last = ["Last letter of {}?", "What is the last letter of {}?", "Which letter does {} end with?"];
    let count = ["How many letters has {}?", "Count the letters of {}.", "How long is the word {}?"];
    let upper = ["Write {} in capitals.", "Put {} in capital letters.", "Shout the word {}!"];
    for word in WORDS {
        let mut push = |phrasings: &[&str], answer: String| {
            facts.push(ask("letters", phrasings, &[word], answer, Hold::Phrasing));
        };
        push(&first, word[..1].to_string());
        push(&last, word[word.len() - 1..].to_string());
        push(&count, word.len().to_string());
        push(&upper, word.to_uppercase());
    }
}

fn repeat(facts: &mut Vec<Fact>) {
    for word in WORDS {
        for (times, adverb) in [(1, "once"), (2, "twice"), (3, "three times")] {
            let phrasings = ["Say {} {}.", "Repeat the word {} {}.", "Write {} {}."];
            facts.push(ask("repeat", &phrasings, &[word, adverb], vec![word; times].join(" "), Hold::Fact));
        }
    }
}

fn code(facts: &mut Vec<Fact>) {
    for language in ["Python", "Rust"] {
        for [verb, verbs, operator, preposition] in OPERATIONS {
            for n in 1..10 {
                let n = n.to_string();
                let body = format!("x {operator} {n}");
                let what = match preposition {
                    "by" => format!("x by {n}"),
                    _ => format!("{n} {preposition} x"),
                };
                let phrasings = [
                    format!("Write a {language} function that {verbs} {what}."),
                    format!("{language}: {verb} {what}."),
                    format!("Show me {language} code to {verb} {what}."),
                ];
                let answer = function(language, &format!("{verb}_{n}"), &body, "i32");
                facts.push(Fact { task: "code", questions: phrasings.into(), answer, hold: Hold::Fact });
            }
        }
        for [name, what, python, rust] in FUNCTIONS {
            let body = if language == "Rust" { rust } else { python };
            let kind = if name.starts_with("is_") { "bool" } else { "i32" };
            let phrasings =
                ["Write a {} function that returns {}.", "{}: return {}.", "Show me {} code that computes {}."];
            let answer = function(language, name, body, kind);
            facts.push(ask("code", &phrasings, &[language, what], answer, Hold::Phrasing));
        }
    }
}

fn function(language: &str, name: &str, body: &str, kind: &str) -> String {
    match language {
        "Rust" => format!("fn {name}(x: i32) -> {kind} {{\n    {body}\n}}"),
        _ => format!("def {name}(x):\n    return {body}"),
    }
}
