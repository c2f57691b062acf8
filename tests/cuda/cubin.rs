//! What a kernel needs and does, read from the machine code that NVRTC makes: an ELF file.

/// Tags of the attributes in `.nv.info`, each of a function: a symbol and a value.
const REGISTERS: u8 = 0x2f;
const STACK: u8 = 0x11;
/// The form of an attribute with a size and a payload.
const SIZED: u8 = 4;
const SYMBOL_TABLE: u32 = 2;
const SYMBOL_BYTES: usize = 24;
/// The section of a function's code is named after it.
const CODE: &str = ".text.";

/// The operation of an instruction: the lowest bits of its first word.
const OPERATION: u64 = 0xfff;
const HMMA: u64 = 0x23c;
const IMMA: u64 = 0x237;
const BRANCH: u64 = 0x947;
const EXIT: u64 = 0x94d;

/// A function's needs.
#[derive(Debug, Default)]
pub struct Needs {
    pub name: String,
    /// Of a thread.
    pub registers: u32,
    /// Bytes of a thread's frame; values that found no register lie there.
    pub stack: u32,
}

/// A loop that multiplies on tensor cores.
#[derive(Debug)]
pub struct TensorLoop {
    /// Of its function.
    pub name: String,
    /// Instructions of the shortest way through it that multiplies most.
    pub instructions: usize,
    /// Of these, products of tiles.
    pub products: usize,
}

struct Section {
    name: usize,
    kind: u32,
    at: usize,
    bytes: usize,
    link: usize,
}

/// An image, read at any place.
struct Image<'a>(&'a [u8]);

impl Image<'_> {
    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().unwrap())
    }

    fn half(&self, at: usize) -> usize {
        usize::from(u16::from_le_bytes(self.0[at..at + 2].try_into().unwrap()))
    }

    fn long(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    fn text(&self, at: usize) -> String {
        let end = self.0[at..].iter().position(|b| *b == 0).unwrap();
        String::from_utf8(self.0[at..at + end].to_vec()).unwrap()
    }

    /// Sections with their names.
    fn sections(&self) -> Vec<(String, Section)> {
        let section = |i: usize| {
            let at = self.long(0x28) as usize + i * self.half(0x3a);
            Section {
                name: self.word(at) as usize,
                kind: self.word(at + 4),
                at: self.long(at + 24) as usize,
                bytes: self.long(at + 32) as usize,
                link: self.word(at + 40) as usize,
            }
        };
        let names = section(self.half(0x3e)).at;
        (0..self.half(0x3c)).map(section).map(|s| (self.text(names + s.name), s)).collect()
    }
}

/// Reads the needs of every function in an image.
pub fn needs(image: &[u8]) -> Vec<Needs> {
    let image = Image(image);
    let sections = image.sections();
    let (_, symbols) = sections.iter().find(|(_, s)| s.kind == SYMBOL_TABLE).unwrap();
    let (_, info) = sections.iter().find(|(name, _)| name == ".nv.info").unwrap();
    let mut found: Vec<Needs> = Vec::new();
    let mut at = info.at;
    while at < info.at + info.bytes {
        let (form, tag, size) = (image.0[at], image.0[at + 1], image.half(at + 2));
        at += 4;
        if form != SIZED {
            continue;
        }
        if [REGISTERS, STACK].contains(&tag) {
            let symbol = symbols.at + SYMBOL_BYTES * image.word(at) as usize;
            let name = image.text(sections[symbols.link].1.at + image.word(symbol) as usize);
            let i = found.iter().position(|f| f.name == name).unwrap_or_else(|| {
                found.push(Needs { name, ..Needs::default() });
                found.len() - 1
            });
            let value = if tag == REGISTERS { &mut found[i].registers } else { &mut found[i].stack };
            *value = image.word(at + 4);
        }
        at += size;
    }
    found
}

/// The instructions of a function, for a compute capability.
struct Code {
    words: Vec<[u64; 2]>,
    /// From 9.0 on, a branch has another form.
    capability: (usize, usize),
}

impl Code {
    fn is_product(&self, i: usize) -> bool {
        [HMMA, IMMA].contains(&(self.words[i][0] & OPERATION))
    }

    /// Where a branch goes. One that is taken where threads of a warp have diverged goes nowhere.
    fn target(&self, i: usize) -> Option<usize> {
        let [low, high] = self.words[i];
        if low & OPERATION != BRANCH || high & 1 << 27 != 0 {
            return None;
        }
        // A signed number of 48 or 56 bits, of four bytes each.
        let upper = low >> 34 | (high & 0x3_ffff) << 30;
        let signed = if self.capability < (9, 0) { upper << 16 } else { (upper << 8 | low >> 16 & 0xff) << 8 } as i64;
        let distance = if self.capability < (9, 0) { signed >> 16 } else { signed >> 8 };
        Some((i as i64 + 1 + distance / 4) as usize)
    }

    /// Whether the instruction behind it may be next: not behind a branch or an exit without a condition.
    fn falls_through(&self, i: usize) -> bool {
        let [low, high] = self.words[i];
        let leaves = self.target(i).is_some() && high >> 23 & 15 == 7 || low & OPERATION == EXIT;
        !(leaves && low >> 12 & 15 == 7)
    }

    /// Products and instructions on the best way from `first` to `last`, which goes forward.
    fn way(&self, first: usize, last: usize) -> Option<(usize, usize)> {
        // Most products, then fewest instructions, up to each instruction.
        let mut best: Vec<Option<(usize, isize)>> = vec![None; last + 1 - first];
        best[0] = Some((0, 0));
        for i in first..last {
            let Some((products, length)) = best[i - first] else { continue };
            let here = (products + usize::from(self.is_product(i)), length - 1);
            let next = self.falls_through(i).then_some(i + 1);
            for j in next.into_iter().chain(self.target(i).filter(|j| (i + 1..=last).contains(j))) {
                let there = &mut best[j - first];
                *there = (*there).max(Some(here));
            }
        }
        best[last - first].map(|(products, length)| (products, (1 - length) as usize))
    }
}

/// The innermost loops of an image that multiply on tensor cores.
pub fn tensor_loops(image: &[u8], capability: (usize, usize)) -> Vec<TensorLoop> {
    let image = Image(image);
    let mut found = Vec::new();
    for (name, section) in image.sections() {
        let Some(name) = name.strip_prefix(CODE) else { continue };
        let words = (0..section.bytes / 16).map(|i| [0, 8].map(|j| image.long(section.at + 16 * i + j))).collect();
        let code = Code { words, capability };
        let back = |last: usize| code.target(last).filter(|first| *first <= last).map(|first| (first, last));
        let ways = (0..code.words.len()).filter_map(back).filter_map(|at| Some((at, code.way(at.0, at.1)?)));
        let mut ways: Vec<_> = ways.filter(|(_, (products, _))| *products > 0).collect();
        ways.sort_by_key(|((first, last), _)| last - first);
        let mut inner: Vec<(usize, usize)> = Vec::new();
        for ((first, last), (products, instructions)) in ways {
            if inner.iter().all(|(other, end)| last < *other || *end < first) {
                inner.push((first, last));
                found.push(TensorLoop { name: name.into(), instructions, products });
            }
        }
    }
    found
}
