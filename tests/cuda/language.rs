//! The parts of WGSL whose meaning differs in C++, each with its value in WGSL, translated and run on the CPU.

use crate::emulator::{Buffer, Call, Emulator};
use nanotern::backend::cuda::translate;

/// Values that are unknown to the compiler.
const INPUTS: [(&str, u32); 9] = [
    ("zero", 0),
    ("one", 1),
    ("two", 2),
    ("seven", 7),
    ("shift", 35),
    ("big", 0xffff_fff0),
    ("least", 0x8000_0000),
    ("bytes", 0x80ff_017f),
    ("nan", 0x7fc0_0000),
];

const DECLARATIONS: &str = "
struct Pair { low: u32, high: vec2<u32> }
const TABLE = array<u32, 4>(3u, 1u, 4u, 1u);
var<private> calls: u32 = 5u;
var<private> unset: vec3<u32>;
var<workgroup> shared_: array<u32, 4>;
fn called(value: u32) -> u32 { calls += 1u; return value * 10u + calls; }
fn summed(values: array<u32, 4>, from_: u32) -> u32 {
    var copy = values;
    copy[0] = 100u;
    var sum = 0u;
    for (var i = from_; i < 4u; i++) { sum += copy[i] + values[i]; }
    return sum;
}
fn signed(double: u32) -> u32 { let int = double; if int > 3u { return 1u; } return 2u; }
fn pair(low: u32) -> Pair { return Pair(low, vec2<u32>(low + 1u, low + 2u)); }";

/// Expressions of type u32.
const EXPRESSIONS: &[(&str, u32)] = &[
    ("seven / zero", 7),
    ("seven % zero", 0),
    ("seven / two", 3),
    ("bitcast<u32>(i32(least) / -i32(one))", 0x8000_0000),
    ("bitcast<u32>(i32(least) % -i32(one))", 0),
    ("bitcast<u32>(-i32(seven) / i32(two))", -3i32 as u32),
    ("bitcast<u32>(-i32(seven) % i32(two))", -1i32 as u32),
    ("bitcast<u32>(i32(seven) / i32(zero))", 7),
    ("bitcast<u32>(i32(0x7fffffffu * one) + i32(one))", 0x8000_0000),
    ("bitcast<u32>(i32(least) * i32(seven))", 0x8000_0000),
    ("bitcast<u32>(-i32(least))", 0x8000_0000),
    ("bitcast<u32>(abs(i32(least)))", 0x8000_0000),
    ("big + big", 0xffff_ffe0),
    ("one << shift", 8),
    ("big >> shift", 0x1fff_fffe),
    ("bitcast<u32>(i32(least) >> shift)", 0xf000_0000),
    ("bitcast<u32>(i32(-1.5e10 * f32(one)))", 0x8000_0000),
    ("bitcast<u32>(i32(3.0e9 * f32(one)))", 0x7fff_ffff),
    ("bitcast<u32>(i32(-2.75 * f32(one)))", -2i32 as u32),
    ("u32(-1.0 * f32(one))", 0),
    ("u32(1.0e20 * f32(one))", 0xffff_ffff),
    ("u32(2.75 * f32(one))", 2),
    ("u32(bitcast<f32>(nan)) * zero", 0),
    ("u32(round(2.5 * f32(one))) + u32(round(3.5 * f32(one))) * 16u", 0x42),
    ("bitcast<u32>(i32(floor(-0.5 * f32(one))))", -1i32 as u32),
    ("bitcast<u32>(i32(ceil(1.25 * f32(one)) + trunc(-1.75 * f32(one))))", 1),
    ("bitcast<u32>(-7.5 * f32(one) % 2.0)", (-1.5f32).to_bits()),
    ("u32(min(bitcast<f32>(nan), 3.0))", 3),
    ("u32(max(2.0 * f32(one), bitcast<f32>(nan)))", 2),
    ("u32(clamp(9.0 * f32(one), 1.0, 4.0))", 4),
    ("bitcast<u32>(i32(sign(-0.25 * f32(one))) + sign(i32(seven)) + sign(i32(zero)))", 0),
    ("u32(fma(2.0 * f32(one), 3.0, 4.0) + inverseSqrt(4.0 * f32(one)) * 2.0)", 11),
    ("u32(f32(one == 1u) + f32(bool(two)) + f32(bool(zero)))", 2),
    ("countLeadingZeros(zero) + countLeadingZeros(seven) * 100u", 2932),
    ("extractBits(bytes, 8u * one, 8u)", 1),
    ("bitcast<u32>(extractBits(bitcast<i32>(bytes), 16u * one, 8u))", -1i32 as u32),
    ("extractBits(bytes, 24u * one, 32u)", 0x80),
    ("extractBits(bytes, 40u * one, 8u) + extractBits(bytes, one, zero)", 0),
    ("bitcast<u32>(dot4I8Packed(bytes, bytes))", 127 * 127 + 1 + 1 + 128 * 128),
    ("bitcast<u32>(dot(unpack4xI8(bytes), vec4<i32>(1, 2, 3, 4)))", (127 + 2 - 3 - 4 * 128) as u32),
    ("dot(unpack4xU8(bytes), vec4<u32>(1u, 0u, 0u, 2u))", 127 + 256),
    ("~big", 15),
    ("select(one, two, seven > two && !(one > two) || zero == one)", 2),
    ("u32(any_order(seven))", 7),
    ("(vec4<u32>(seven, two, one, zero).wzyx - vec4<u32>(0u, 1u, 2u, 3u))[seven % 4u]", 4),
    ("vec3<u32>(vec2<u32>(one, two), seven).zx.x", 7),
    ("dot(select(vec2<u32>(1u, 2u), vec2<u32>(10u, 20u), vec2<u32>(one, two) < vec2<u32>(two)), vec2<u32>(1u))", 12),
    ("(vec2<u32>(seven) / vec2<u32>(zero, two)).y + (seven * vec2<u32>(one, two)).y", 17),
    ("TABLE[seven % 4u] * 10u + TABLE[two]", 14),
    ("summed(array<u32, 4>(1u, 2u, 3u, 4u), zero)", 119),
    ("signed(seven) * 10u + signed(two)", 12),
    ("pair(seven).high.y * 10u + pair(two).low", 92),
    ("unset.x + unset.z", 0),
    ("called(one) * 1000u + called(two)", 16027),
    ("arrayLength(&y) - arrayLength(&x)", 100 - INPUTS.len() as u32),
    ("groups.x * 100u + local.y * 10u + global.x", 212),
];

/// Statements that leave their result in `r`.
const STATEMENTS: &[(&str, u32)] = &[
    // A `continue` still runs the update, which may use the body's variables.
    ("for (var i = 0u; i < 10u; i++) { if i % 2u == 1u { continue; } r += i; }", 20),
    (
        "var i = zero;
        loop { let step = i + 1u; if i == 3u { continue; } r += i; continuing { i = step; break if i > 5u; } }",
        12,
    ),
    (
        "for (var i = 0u; i < 4u; i++) {
            for (var j = 0u; j < 4u; j++) { if j == 2u { continue; } if j > i { break; } r += 1u; }
            if i == 2u { continue; }
            r += 10u;
        }",
        38,
    ),
    (
        "for (var i = 0u; i < 6u; i++) {
            switch i { case 0u, 1u: { r += 1u; } case 2u: { continue; } case 4u: { break; r += 1000u; } default: { r += 100u; } }
            r += 10u;
        }",
        252,
    ),
    ("switch -i32(seven) { case -7: { r = 3u; } default: { r = 4u; } }", 3),
    ("while r < seven { r += two; }", 8),
    // A variable of a loop's body is initialised in each round.
    ("for (var i = 0u; i < 3u; i++) { var fresh: u32; fresh += 1u; r += fresh; }", 3),
    // A value is computed where it is bound, not where it is used.
    ("var v = one; let before = v; v = seven; r = before * 10u + v;", 17),
    ("let before = y[99]; y[99] = seven; r = before + y[99];", 7),
    ("var v = array<u32, 3>(1u, 2u, 3u); let at = &v[two]; *at += 5u; v[one] *= 7u; r = v[2] * 100u + v[1];", 814),
    ("var v = vec4<u32>(); v[seven % 4u] = 5u; v.y = two; v.x += v.y; r = v.x * 100u + v.y * 10u + v.w;", 225),
    ("var p = pair(one); p.high.x = seven; let q = p; p.low = 9u; r = q.low * 100u + q.high.x * 10u + q.high.y;", 173),
    ("let v = one; { let v = two; r += v; } r = r * 10u + v;", 21),
    // The right side is not evaluated if the left one decides.
    ("let asked = calls; if one > two && called(one) > 0u { r = 1u; } if two > one || called(one) > 0u { r += calls - asked; }", 0),
];

#[test]
fn what_wgsl_says_is_what_runs() {
    let inputs: String = INPUTS.iter().enumerate().map(|(i, (name, _))| format!("let {name} = x[{i}];\n")).collect();
    let expressions = EXPRESSIONS.iter().map(|(text, expected)| (format!("r = {text};"), *expected));
    let statements = STATEMENTS.iter().map(|(text, expected)| (text.to_string(), *expected));
    let all: Vec<(String, u32)> = expressions.chain(statements).collect();
    let bodies: String =
        (0..).zip(&all).map(|(i, (text, _))| format!("{{ var r = 0u; {text}\ny[{i}] = r; }}\n")).collect();
    let wgsl = format!(
        "struct Args {{ n: u32 }}
        @group(0) @binding(0) var<uniform> args: Args;
        @group(0) @binding(1) var<storage, read> x: array<u32>;
        @group(0) @binding(2) var<storage, read_write> y: array<u32>;
        {DECLARATIONS}
        fn any_order(n: u32) -> f32 {{ return f32(n); }}
        @compute @workgroup_size(2, 2)
        fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
            @builtin(local_invocation_index) lane: u32, @builtin(local_invocation_id) local: vec3<u32>,
            @builtin(global_invocation_id) global: vec3<u32>) {{
            shared_[lane] = lane * args.n;
            workgroupBarrier();
            let total = shared_[0] + shared_[1] + shared_[2] + workgroupUniformLoad(&shared_[3]);
            if lane != 2u || wid.x != 1u {{ return; }}
            {inputs}{bodies}
            y[98] = total;
        }}"
    );
    let kernel = translate("language", &wgsl).unwrap_or_else(|e| panic!("{e}"));
    let Some(emulator) = Emulator::new(&[("language", kernel)]) else { return };
    let mut args = [0; 16];
    args[0] = 7;
    let buffers = vec![Buffer::Words(INPUTS.map(|(_, value)| value).to_vec()), Buffer::Words(vec![0; 100])];
    let results = emulator.run(&[Call { launches: vec![(0, [2, 1, 1], 0)], args, buffers }]);
    let results = &results[0][1];
    let wrong: Vec<String> = (results.iter().zip(&all))
        .filter(|(got, (_, expected))| *got != expected)
        .map(|(got, (text, expected))| format!("{text} gives {got}, not {expected}"))
        .collect();
    assert!(wrong.is_empty() && all.len() < 98, "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert_eq!(results[98], (1 + 2 + 3) * 7);
}
