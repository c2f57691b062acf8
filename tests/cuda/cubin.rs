//! What a kernel needs and what its loops consist of, read from the machine code that NVRTC makes: an ELF file.

use std::ops::Range;

/// Tags of the attributes in `.nv.info`, each of a function: a symbol and a value.
const REGISTERS: u8 = 0x2f;
const STACK: u8 = 0x11;
/// The form of an attribute with a size and a payload.
const SIZED: u8 = 4;
const SYMBOL_TABLE: u32 = 2;
const SYMBOL_BYTES: usize = 24;

/// Bytes of an instruction. Its first 12 bits say what it does; the form of its operands is in the upper three.
const INSTRUCTION: usize = 16;
const OPERATION: u64 = 0x1ff;
const BRANCH: u64 = 0x147;
const MULTIPLY_ADD: u64 = 0x023;
/// Products of tiles on tensor cores, of f16 and of int8.
const TENSOR: [u64; 2] = [0x03c, 0x037];

/// A function's needs.
#[derive(Debug, Default)]
pub struct Needs {
    pub name: String,
    /// Of a thread.
    pub registers: u32,
    /// Bytes of a thread's frame; values that found no register lie there.
    pub stack: u32,
}

struct Section {
    name: usize,
    kind: u32,
    at: usize,
    bytes: usize,
    link: usize,
}

/// An image and its sections.
struct Elf<'a> {
    image: &'a [u8],
    sections: Vec<Section>,
    names: usize,
}

impl<'a> Elf<'a> {
    fn new(image: &'a [u8]) -> Self {
        let mut elf = Elf { image, sections: Vec::new(), names: 0 };
        let section = |i: usize| {
            let at = elf.long(0x28) + i * elf.half(0x3a);
            let [name, kind, link] = [at, at + 4, at + 40].map(|at| elf.word(at));
            let [name, link] = [name, link].map(|n| n as usize);
            Section { name, kind, at: elf.long(at + 24), bytes: elf.long(at + 32), link }
        };
        elf.sections = (0..elf.half(0x3c)).map(section).collect();
        elf.names = elf.sections[elf.half(0x3e)].at;
        elf
    }

    fn word(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.image[at..at + 4].try_into().unwrap())
    }

    fn half(&self, at: usize) -> usize {
        u16::from_le_bytes(self.image[at..at + 2].try_into().unwrap()).into()
    }

    fn long(&self, at: usize) -> usize {
        u64::from_le_bytes(self.image[at..at + 8].try_into().unwrap()) as usize
    }

    fn text(&self, at: usize) -> &'a str {
        let end = self.image[at..].iter().position(|b| *b == 0).unwrap();
        std::str::from_utf8(&self.image[at..at + end]).unwrap()
    }

    fn name(&self, section: &Section) -> &'a str {
        self.text(self.names + section.name)
    }
}

/// Reads the needs of every function in an image.
pub fn needs(image: &[u8]) -> Vec<Needs> {
    let elf = Elf::new(image);
    let symbols = elf.sections.iter().find(|s| s.kind == SYMBOL_TABLE).unwrap();
    let info = elf.sections.iter().find(|s| elf.name(s) == ".nv.info").unwrap();
    let mut found: Vec<Needs> = Vec::new();
    let mut at = info.at;
    while at < info.at + info.bytes {
        let (form, tag, size) = (image[at], image[at + 1], elf.half(at + 2));
        at += 4;
        if form != SIZED {
            continue;
        }
        if [REGISTERS, STACK].contains(&tag) {
            let symbol = elf.word(symbols.at + SYMBOL_BYTES * elf.word(at) as usize) as usize;
            let name = elf.text(elf.sections[symbols.link].at + symbol).to_string();
            let i = found.iter().position(|f| f.name == name).unwrap_or_else(|| {
                found.push(Needs { name, ..Needs::default() });
                found.len() - 1
            });
            let value = if tag == REGISTERS { &mut found[i].registers } else { &mut found[i].stack };
            *value = elf.word(at + 4);
        }
        at += size;
    }
    found
}

/// A loop: instructions that end with a branch back to the first.
#[derive(Clone, Debug)]
pub struct Loop {
    pub function: String,
    /// Numbers of its instructions.
    pub code: Range<usize>,
    /// Multiply-adds of f32 among them.
    pub multiply_adds: usize,
    /// Products of tiles on tensor cores among them.
    pub tensor: usize,
}

impl Loop {
    /// Whether it is a part of another loop.
    pub fn is_within(&self, other: &Loop) -> bool {
        let (a, b) = (&self.code, &other.code);
        self.function == other.function && a != b && b.start <= a.start && a.end <= b.end
    }
}

/// The loops of every function in an image for a compute capability.
pub fn loops(image: &[u8], capability: (usize, usize)) -> Vec<Loop> {
    let elf = Elf::new(image);
    let mut found = Vec::new();
    for section in &elf.sections {
        let Some(function) = elf.name(section).strip_prefix(".text.") else { continue };
        let words = |i: usize| [0, 8].map(|half| elf.long(section.at + i * INSTRUCTION + half) as u64);
        let count = section.bytes / INSTRUCTION;
        for (i, [low, high]) in (0..count).map(|i| (i, words(i))).filter(|(_, [low, _])| low & OPERATION == BRANCH) {
            // The distance from the next instruction, in units of four bytes. From 9.0 on, its lowest byte stands apart.
            let upper = ((low >> 34 | (high & 0x3ffff) << 30) as i64) << 16 >> 16;
            let distance = if capability < (9, 0) { upper } else { upper << 8 | (low >> 16 & 0xff) as i64 };
            let to = i as i64 + 1 + distance * 4 / INSTRUCTION as i64;
            // The last instruction of a function branches to itself.
            if !(0..i as i64).contains(&to) {
                continue;
            }
            let code = to as usize..i + 1;
            let count = |wanted: &[u64]| code.clone().filter(|i| wanted.contains(&(words(*i)[0] & OPERATION))).count();
            let (multiply_adds, tensor) = (count(&[MULTIPLY_ADD]), count(&TENSOR));
            found.push(Loop { function: function.to_string(), code, multiply_adds, tensor });
        }
    }
    found
}
