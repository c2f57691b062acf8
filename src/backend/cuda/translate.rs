//! Translates WGSL to CUDA C++ through naga's intermediate representation, so that shaders stay the only source of GPU code.
//!
//! A shader becomes a struct `Kernel` and one `extern "C" __global__` function that fills it. The struct's members are the
//! uniform, the storage buffers and the private variables; its methods are the shader's functions. Workgroup memory becomes
//! `__shared__` variables beside it. They are not cleared, because every shader writes workgroup memory before it reads it.
//! Indices are not checked, as in the wgpu backend's release builds.
//!
//! Every expression that naga emits is stored in a variable of its own at that point, so that loads, calls and stores keep
//! their order. The variables are declared at the head of the function, so that a `continuing` block sees those of its loop's
//! body and a `goto` may pass them. `prelude.cuh` defines operators and functions.

use crate::{Error, Result};
use naga::valid::{Capabilities, FunctionInfo, ModuleInfo, ValidationFlags, Validator};
use naga::{
    AddressSpace, ArraySize, Barrier, BinaryOperator, Binding, Block, BuiltIn, Constant, Expression, Function,
    GlobalVariable, Handle, Literal, LocalVariable, MathFunction, Module, Scalar, ScalarKind, ShaderStage, Statement,
    StorageAccess, SwitchValue, SwizzleComponent, Type, TypeInner, UnaryOperator,
};
use std::collections::BTreeMap;
use std::fmt::{Debug, Write};

/// The CUDA C++ that precedes a translated shader.
pub const PRELUDE: &str = include_str!("prelude.cuh");

/// A translated shader.
pub struct Kernel {
    /// CUDA C++ that follows [`PRELUDE`]. The function takes the uniform by value, then for each storage buffer, in order of
    /// binding, its address and its length in bytes (`unsigned long long`).
    pub source: String,
    /// A function for each entry point.
    pub entries: Vec<Entry>,
}

/// A function that can be launched.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The entry point in the shader.
    pub point: String,
    /// The function: that of `main` has the name of the kernel.
    pub name: String,
    /// Threads of a block in x, y and z: the entry point's workgroup size.
    pub block: [u32; 3],
}

/// Translates a shader into a kernel called `name`.
///
/// # Errors
/// When naga rejects the shader, or a construct has no translation; the error names it.
pub fn translate(name: &str, wgsl: &str) -> Result<Kernel> {
    let refuse = |what: String| Error::Device(format!("{name}.wgsl cannot become CUDA: {what}"));
    let module =
        naga::front::wgsl::parse_str(wgsl).map_err(|e| refuse(e.emit_to_string_with_path(wgsl, "the shader")))?;
    let mut validator = Validator::new(ValidationFlags::all(), Capabilities::default());
    let info = validator.validate(&module).map_err(|e| refuse(e.emit_to_string_with_path(wgsl, "the shader")))?;
    Shader { module: &module, info: &info, constants: BTreeMap::new() }.write(name).map_err(refuse)
}

/// The error is the part of the message that names the unsupported construct.
type Fallible<T = ()> = Result<T, String>;

/// The error for a construct, by naga's name for it.
fn unsupported<T>(what: &str, construct: &impl Debug) -> Fallible<T> {
    let debug = format!("{construct:?}");
    let end = debug.find(|c: char| !c.is_alphanumeric()).unwrap_or(debug.len());
    Err(format!("{what} {} is not translated", &debug[..end]))
}

/// A unique name that is not a C++ keyword: a letter for the kind of item, its number, and its name in WGSL.
fn named(kind: char, number: usize, name: Option<&str>) -> String {
    let plain = name.unwrap_or_default().chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_');
    format!("{kind}{number}_{}", plain.collect::<String>())
}

struct Shader<'a> {
    module: &'a Module,
    info: &'a ModuleInfo,
    /// Declarations of the constants that functions use.
    constants: BTreeMap<usize, String>,
}

impl Shader<'_> {
    fn write(mut self, name: &str) -> Fallible<Kernel> {
        if self.module.entry_points.is_empty() {
            return Err("it has no entry point".into());
        }
        let (mut methods, mut shared) = (String::new(), String::new());
        for (handle, function) in self.module.functions.iter() {
            self.function(&mut methods, &self.function_name(handle), function, &self.info[handle])?;
        }
        for (i, entry) in self.module.entry_points.iter().enumerate() {
            if entry.stage != ShaderStage::Compute {
                return unsupported("stage", &entry.stage);
            }
            if entry.workgroup_size_overrides.is_some() {
                return Err("an override as workgroup size is not translated".into());
            }
            self.function(&mut methods, &format!("entry{i}"), &entry.function, self.info.get_entry_point(i))?;
        }

        // The kernel's members, and the parameters that fill the bound ones.
        let (mut members, mut bound) = (String::new(), Vec::new());
        for (handle, variable) in self.module.global_variables.iter() {
            let name = self.global_name(handle);
            match variable.space {
                AddressSpace::WorkGroup => {
                    line(&mut shared, 0, &format!("__shared__ {} {name};", self.ty(variable.ty)?))
                }
                AddressSpace::Private => {
                    let value = variable.init.map_or(Ok("{}".into()), |e| self.constant_expression(e))?;
                    line(&mut members, 1, &format!("{} {name} = {value};", self.ty(variable.ty)?));
                }
                AddressSpace::Uniform | AddressSpace::Storage { .. } => {
                    let at = variable.binding.ok_or_else(|| format!("{name} has no binding"))?;
                    bound.push((at.binding, self.parameters(&name, variable)?));
                }
                other => return unsupported("address space", &other),
            }
        }
        bound.sort_by_key(|(binding, _)| *binding);
        let bound: Vec<(String, String)> = bound.into_iter().flat_map(|(_, parameters)| parameters).collect();
        let fields: String = bound.iter().map(|(ty, name)| format!("    {ty} {name};\n")).collect();
        let parameters: Vec<String> = bound.iter().map(|(ty, name)| format!("{ty} {name}")).collect();
        let values: Vec<&str> = bound.iter().map(|(_, name)| name.as_str()).collect();
        let mut source = self.structs()?;
        source.extend(self.constants.into_values());
        write!(source, "{shared}\nstruct Kernel {{\n{fields}{members}\n{methods}}};\n").expect("a string takes all");
        let mut entries = Vec::new();
        for (i, entry) in self.module.entry_points.iter().enumerate() {
            let block = entry.workgroup_size;
            let inputs = entry.function.arguments.iter().map(|a| builtin(a.binding.as_ref(), block));
            let inputs = inputs.collect::<Fallible<Vec<_>>>()?;
            let function = if entry.name == "main" { name.to_string() } else { format!("{name}_{}", entry.name) };
            write!(
                source,
                "\nextern \"C\" __global__ void __launch_bounds__({})\n{function}({}) {{\n    \
                Kernel kernel = {{{}}};\n    kernel.entry{i}({});\n}}\n",
                block.iter().product::<u32>(),
                parameters.join(", "),
                values.join(", "),
                inputs.join(", "),
            )
            .expect("a string takes all");
            entries.push(Entry { point: entry.name.clone(), name: function, block });
        }
        Ok(Kernel { source, entries })
    }

    /// Type and name of the parameters for a bound variable.
    fn parameters(&self, name: &str, variable: &GlobalVariable) -> Fallible<Vec<(String, String)>> {
        let AddressSpace::Storage { access } = variable.space else {
            return Ok(vec![(self.ty(variable.ty)?, name.to_string())]);
        };
        let TypeInner::Array { base, size: ArraySize::Dynamic, stride } = self.module.types[variable.ty].inner else {
            return Err(format!("storage buffer {name} is not an array of runtime size"));
        };
        if self.layout(base)?.0 != stride {
            return Err(format!("elements of {name} have a stride of {stride} bytes, unlike in C++"));
        }
        // A read-only buffer is not written meanwhile: the backend checks that no written buffer is bound twice in one call.
        // A written one may be read by another thread after a barrier, and `__restrict__` would let the compiler move
        // accesses across it.
        let ty = self.ty(base)?;
        let written = access.contains(StorageAccess::STORE);
        let pointer = if written { format!("{ty}*") } else { format!("const {ty}* __restrict__") };
        Ok(vec![(pointer, name.to_string()), ("unsigned long long".into(), format!("{name}_bytes"))])
    }

    /// Declarations of the structs, with the offsets that WGSL gives their members.
    fn structs(&self) -> Fallible<String> {
        let mut out = String::new();
        for (handle, ty) in self.module.types.iter() {
            let TypeInner::Struct { members, .. } = &ty.inner else { continue };
            line(&mut out, 0, &format!("struct {} {{", self.ty(handle)?));
            let mut end = 0u32;
            for (i, member) in members.iter().enumerate() {
                let (size, align) = self.layout(member.ty)?;
                let name = named('m', i, member.name.as_deref());
                if end.next_multiple_of(align) != member.offset {
                    return Err(format!("member {name} lies at byte {}, unlike in C++", member.offset));
                }
                end = member.offset + size;
                line(&mut out, 1, &format!("{} {name};", self.ty(member.ty)?));
            }
            out += "};\n";
        }
        Ok(out)
    }

    /// Size and alignment that C++ gives a type.
    fn layout(&self, ty: Handle<Type>) -> Fallible<(u32, u32)> {
        Ok(match self.module.types[ty].inner {
            TypeInner::Scalar(scalar) => (u32::from(scalar.width), u32::from(scalar.width)),
            TypeInner::Vector { size, scalar } => {
                let bytes = u32::from(scalar.width) * (size as u32).next_power_of_two();
                (bytes, bytes)
            }
            TypeInner::Array { base, size: ArraySize::Constant(n), .. } => {
                let (size, align) = self.layout(base)?;
                (size * n.get(), align)
            }
            ref other => return unsupported("in memory, type", other),
        })
    }

    fn ty(&self, handle: Handle<Type>) -> Fallible<String> {
        let ty = &self.module.types[handle];
        match ty.inner {
            TypeInner::Struct { .. } => Ok(named('t', handle.index(), ty.name.as_deref())),
            ref inner => self.inner(inner),
        }
    }

    fn inner(&self, inner: &TypeInner) -> Fallible<String> {
        Ok(match *inner {
            TypeInner::Scalar(scalar) => scalar_type(scalar)?.into(),
            TypeInner::Vector { size, scalar } => format!("wgsl::vec<{}, {}>", scalar_type(scalar)?, size as u32),
            TypeInner::Array { base, size: ArraySize::Constant(n), .. } => {
                format!("wgsl::array<{}, {n}>", self.ty(base)?)
            }
            ref other => return unsupported("type", other),
        })
    }

    fn function_name(&self, handle: Handle<Function>) -> String {
        named('f', handle.index(), self.module.functions[handle].name.as_deref())
    }

    fn global_name(&self, handle: Handle<GlobalVariable>) -> String {
        named('g', handle.index(), self.module.global_variables[handle].name.as_deref())
    }

    /// The name of a constant; declares it at its first use.
    fn constant(&mut self, handle: Handle<Constant>) -> Fallible<String> {
        let constant = &self.module.constants[handle];
        let name = named('c', handle.index(), constant.name.as_deref());
        if !self.constants.contains_key(&handle.index()) {
            let value = self.constant_expression(constant.init)?;
            let declaration = format!("static __device__ const {} {name} = {value};\n", self.ty(constant.ty)?);
            self.constants.insert(handle.index(), declaration);
        }
        Ok(name)
    }

    fn constant_expression(&self, e: Handle<Expression>) -> Fallible<String> {
        match self.module.global_expressions[e] {
            Expression::Literal(value) => literal(value),
            Expression::ZeroValue(ty) => Ok(format!("{}{{}}", self.ty(ty)?)),
            Expression::Constant(constant) => self.constant_expression(self.module.constants[constant].init),
            Expression::Splat { size, value } => {
                Ok(format!("wgsl::splat<{}>({})", size as u32, self.constant_expression(value)?))
            }
            Expression::Compose { ty, ref components } => {
                let values = components.iter().map(|c| self.constant_expression(*c)).collect::<Fallible<Vec<_>>>()?;
                Ok(format!("{}{{{}}}", self.ty(ty)?, values.join(", ")))
            }
            ref other => unsupported("constant", other),
        }
    }

    fn function(&mut self, out: &mut String, name: &str, function: &Function, info: &FunctionInfo) -> Fallible {
        let result = function.result.as_ref().map_or(Ok("void".into()), |r| self.ty(r.ty))?;
        let arguments = function.arguments.iter().enumerate();
        let arguments = arguments
            .map(|(i, a)| Ok(format!("{} {}", self.ty(a.ty)?, named('a', i, a.name.as_deref()))))
            .collect::<Fallible<Vec<_>>>()?;
        let mut writer = Body {
            shader: self,
            function,
            info,
            baked: BTreeMap::new(),
            out: String::new(),
            loops: Vec::new(),
            labels: 0,
        };
        line(out, 1, &format!("{result} {name}({}) {{", arguments.join(", ")));
        for (handle, variable) in function.local_variables.iter() {
            let value = variable.init.map_or(Ok("{}".into()), |e| writer.expression(e))?;
            let name = local_name(function, handle);
            line(out, 2, &format!("{} {name} = {value};", writer.shader.ty(variable.ty)?));
        }
        writer.block(&function.body, 2)?;
        let Body { baked, out: statements, .. } = writer;
        for (number, ty) in baked {
            line(out, 2, &format!("{ty} e{number};"));
        }
        *out += &statements;
        line(out, 1, "}\n");
        Ok(())
    }
}

fn line(out: &mut String, depth: usize, text: &str) {
    writeln!(out, "{:1$}{text}", "", 4 * depth).expect("a string takes all");
}

fn local_name(function: &Function, handle: Handle<LocalVariable>) -> String {
    named('l', handle.index(), function.local_variables[handle].name.as_deref())
}

fn scalar_type(scalar: Scalar) -> Fallible<&'static str> {
    match scalar {
        Scalar::F32 => Ok("float"),
        Scalar::I32 => Ok("int"),
        Scalar::U32 => Ok("unsigned"),
        Scalar::BOOL => Ok("bool"),
        other => Err(format!("{:?} of {} bytes is not translated", other.kind, other.width)),
    }
}

fn literal(value: Literal) -> Fallible<String> {
    match value {
        Literal::F32(value) if value.is_finite() => Ok(format!("({value:?}f)")),
        Literal::I32(i32::MIN) => Ok("wgsl::LEAST".into()),
        Literal::I32(value) => Ok(format!("({value})")),
        Literal::U32(value) => Ok(format!("{value}u")),
        Literal::Bool(value) => Ok(value.to_string()),
        other => unsupported("literal", &other),
    }
}

/// The CUDA expression of a builtin input of the entry point.
fn builtin(binding: Option<&Binding>, block: [u32; 3]) -> Fallible<String> {
    let Some(Binding::BuiltIn(input)) = binding else { return Err("an input is not a builtin".into()) };
    let three =
        |of: &dyn Fn(char) -> String| format!("wgsl::vec<unsigned, 3>{{{}, {}, {}}}", of('x'), of('y'), of('z'));
    let [x, y, _] = block;
    Ok(match input {
        BuiltIn::WorkGroupId => three(&|c| format!("blockIdx.{c}")),
        BuiltIn::NumWorkGroups => three(&|c| format!("gridDim.{c}")),
        BuiltIn::LocalInvocationId => three(&|c| format!("threadIdx.{c}")),
        BuiltIn::LocalInvocationIndex => format!("threadIdx.x + {x}u * (threadIdx.y + {y}u * threadIdx.z)"),
        BuiltIn::GlobalInvocationId => {
            three(&|c| format!("blockIdx.{c} * {}u + threadIdx.{c}", block[usize::from(c as u8 - b'x')]))
        }
        other => return unsupported("input", other),
    })
}

/// Translates the statements of one function.
struct Body<'a, 'm> {
    shader: &'a mut Shader<'m>,
    function: &'a Function,
    info: &'a FunctionInfo,
    /// Types of the expressions that are stored in a variable, by number.
    baked: BTreeMap<usize, String>,
    out: String,
    /// Of each open loop: the number of the label at its `continuing`, and whether a `continue` jumps to it.
    loops: Vec<(usize, bool)>,
    labels: usize,
}

impl Body<'_, '_> {
    fn line(&mut self, depth: usize, text: &str) {
        line(&mut self.out, depth, text);
    }

    fn inner(&self, e: Handle<Expression>) -> &TypeInner {
        self.info[e].ty.inner_with(&self.shader.module.types)
    }

    /// Declares the variable of an expression and returns its name.
    fn bake(&mut self, e: Handle<Expression>) -> Fallible<String> {
        let ty = match self.info[e].ty {
            naga::proc::TypeResolution::Handle(ty) => self.shader.ty(ty),
            naga::proc::TypeResolution::Value(ref inner) => self.shader.inner(inner),
        }?;
        self.baked.insert(e.index(), ty);
        Ok(format!("e{}", e.index()))
    }

    fn block(&mut self, block: &Block, depth: usize) -> Fallible {
        block.iter().try_for_each(|statement| self.statement(statement, depth))
    }

    fn statement(&mut self, statement: &Statement, depth: usize) -> Fallible {
        match *statement {
            Statement::Emit(ref range) => {
                for e in range.clone() {
                    // A pointer has no variable: it is written out at each use. Its indices are stored already.
                    if matches!(self.inner(e), TypeInner::Pointer { .. } | TypeInner::ValuePointer { .. }) {
                        continue;
                    }
                    let text = self.expression(e)?;
                    let name = self.bake(e)?;
                    self.line(depth, &format!("{name} = {text};"));
                }
            }
            Statement::Block(ref block) => {
                self.line(depth, "{");
                self.block(block, depth + 1)?;
                self.line(depth, "}");
            }
            Statement::If { condition, ref accept, ref reject } => {
                let condition = self.value(condition)?;
                self.line(depth, &format!("if ({condition}) {{"));
                self.block(accept, depth + 1)?;
                if !reject.is_empty() {
                    self.line(depth, "} else {");
                    self.block(reject, depth + 1)?;
                }
                self.line(depth, "}");
            }
            Statement::Switch { selector, ref cases } => {
                let selector = self.value(selector)?;
                self.line(depth, &format!("switch ({selector}) {{"));
                for case in cases {
                    let label = match case.value {
                        SwitchValue::I32(value) => format!("case {}:", literal(Literal::I32(value))?),
                        SwitchValue::U32(value) => format!("case {value}u:"),
                        SwitchValue::Default => "default:".into(),
                    };
                    self.line(depth, &format!("{label} {{"));
                    self.block(&case.body, depth + 1)?;
                    if !case.fall_through {
                        self.line(depth + 1, "break;");
                    }
                    self.line(depth, "}");
                }
                self.line(depth, "}");
            }
            Statement::Loop { ref body, ref continuing, break_if } => {
                self.labels += 1;
                self.loops.push((self.labels, false));
                self.line(depth, "for (;;) {");
                self.block(body, depth + 1)?;
                if let Some((label, true)) = self.loops.pop() {
                    self.line(depth + 1, &format!("continuing_{label}:;"));
                }
                self.block(continuing, depth + 1)?;
                if let Some(condition) = break_if {
                    let condition = self.value(condition)?;
                    self.line(depth + 1, &format!("if ({condition}) break;"));
                }
                self.line(depth, "}");
            }
            Statement::Break => self.line(depth, "break;"),
            Statement::Continue => {
                let (label, wanted) = self.loops.last_mut().ok_or("a continue is outside a loop")?;
                *wanted = true;
                let text = format!("goto continuing_{label};");
                self.line(depth, &text);
            }
            Statement::Return { value: None } => self.line(depth, "return;"),
            Statement::Return { value: Some(value) } => {
                let value = self.value(value)?;
                self.line(depth, &format!("return {value};"));
            }
            // It makes both kinds of memory visible to the whole block.
            Statement::ControlBarrier(barrier) if (Barrier::STORAGE | Barrier::WORK_GROUP).contains(barrier) => {
                self.line(depth, "__syncthreads();");
            }
            Statement::Store { pointer, value } => {
                let text = format!("{} = {};", self.value(pointer)?, self.value(value)?);
                self.line(depth, &text);
            }
            Statement::WorkGroupUniformLoad { pointer, result } => {
                let pointer = self.value(pointer)?;
                let name = self.bake(result)?;
                for text in ["__syncthreads();", &format!("{name} = {pointer};"), "__syncthreads();"] {
                    self.line(depth, text);
                }
            }
            Statement::Call { function, ref arguments, result } => {
                let arguments = arguments.iter().map(|a| self.value(*a)).collect::<Fallible<Vec<_>>>()?;
                let call = format!("{}({});", self.shader.function_name(function), arguments.join(", "));
                let text = match result {
                    Some(result) => format!("{} = {call}", self.bake(result)?),
                    None => call,
                };
                self.line(depth, &text);
            }
            ref other => return unsupported("statement", other),
        }
        Ok(())
    }

    /// An expression at its use: its variable if it has one.
    fn value(&mut self, e: Handle<Expression>) -> Fallible<String> {
        if self.baked.contains_key(&e.index()) { Ok(format!("e{}", e.index())) } else { self.expression(e) }
    }

    /// An expression in C++; a pointer becomes the lvalue it points to.
    fn expression(&mut self, e: Handle<Expression>) -> Fallible<String> {
        Ok(match self.function.expressions[e] {
            Expression::Literal(value) => literal(value)?,
            Expression::Constant(constant) => self.shader.constant(constant)?,
            Expression::ZeroValue(ty) => format!("{}{{}}", self.shader.ty(ty)?),
            Expression::Compose { ty, ref components } => {
                let mut parts = Vec::new();
                for component in components {
                    let value = self.value(*component)?;
                    match *self.inner(*component) {
                        TypeInner::Vector { size, .. }
                            if matches!(self.shader.module.types[ty].inner, TypeInner::Vector { .. }) =>
                        {
                            parts.extend((0..size as u32).map(|i| format!("{value}[{i}]")));
                        }
                        _ => parts.push(value),
                    }
                }
                format!("{}{{{}}}", self.shader.ty(ty)?, parts.join(", "))
            }
            Expression::Access { base, index } => format!("{}[{}]", self.value(base)?, self.value(index)?),
            Expression::AccessIndex { base, index } => self.access(base, index)?,
            Expression::Splat { size, value } => format!("wgsl::splat<{}>({})", size as u32, self.value(value)?),
            Expression::Swizzle { size, vector, pattern } => {
                let TypeInner::Vector { scalar, .. } = *self.inner(vector) else {
                    return Err("a swizzle of something other than a vector is not translated".into());
                };
                let vector = self.value(vector)?;
                let component = |c: &SwizzleComponent| format!("{vector}[{}]", *c as u32);
                let parts: Vec<String> = pattern[..size as usize].iter().map(component).collect();
                format!("wgsl::vec<{}, {}>{{{}}}", scalar_type(scalar)?, size as u32, parts.join(", "))
            }
            Expression::FunctionArgument(i) => {
                named('a', i as usize, self.function.arguments[i as usize].name.as_deref())
            }
            Expression::GlobalVariable(handle) => self.shader.global_name(handle),
            Expression::LocalVariable(handle) => local_name(self.function, handle),
            Expression::Load { pointer } => self.value(pointer)?,
            Expression::Unary { op, expr } => {
                let function = match op {
                    UnaryOperator::Negate => "neg",
                    UnaryOperator::LogicalNot => "logical_not",
                    UnaryOperator::BitwiseNot => "bit_not",
                };
                format!("wgsl::{function}({})", self.value(expr)?)
            }
            Expression::Binary { op, left, right } => {
                format!("wgsl::{}({}, {})", binary(op), self.value(left)?, self.value(right)?)
            }
            Expression::Select { condition, accept, reject } => {
                let [condition, accept, reject] = [self.value(condition)?, self.value(accept)?, self.value(reject)?];
                format!("wgsl::select({condition}, {accept}, {reject})")
            }
            Expression::Math { fun, arg, arg1, arg2, arg3 } => {
                let arguments = [Some(arg), arg1, arg2, arg3].into_iter().flatten();
                let arguments = arguments.map(|a| self.value(a)).collect::<Fallible<Vec<_>>>()?;
                format!("wgsl::{}({})", math(fun)?, arguments.join(", "))
            }
            Expression::As { expr, kind, convert } => {
                let prefix = if convert.is_some() { "to" } else { "bits" };
                let to = match (kind, convert) {
                    (ScalarKind::Float, None | Some(4)) => "f32",
                    (ScalarKind::Sint, None | Some(4)) => "i32",
                    (ScalarKind::Uint, None | Some(4)) => "u32",
                    (ScalarKind::Bool, Some(_)) => "bool",
                    _ => return Err(format!("a conversion to {kind:?} of {convert:?} bytes is not translated")),
                };
                format!("wgsl::{prefix}_{to}({})", self.value(expr)?)
            }
            Expression::ArrayLength(array) => match self.function.expressions[array] {
                Expression::GlobalVariable(handle) => {
                    let ty = self.shader.module.global_variables[handle].ty;
                    let TypeInner::Array { stride, .. } = self.shader.module.types[ty].inner else {
                        return Err("the length of something other than an array is not translated".into());
                    };
                    format!("unsigned({}_bytes / {stride})", self.shader.global_name(handle))
                }
                ref other => return unsupported("the length of", other),
            },
            ref other => return unsupported("expression", other),
        })
    }

    /// A component at a constant index; for a struct, the member.
    fn access(&mut self, base: Handle<Expression>, index: u32) -> Fallible<String> {
        let value = self.value(base)?;
        let types = &self.shader.module.types;
        let inner = match *self.inner(base) {
            TypeInner::Pointer { base, .. } => &types[base].inner,
            ref inner => inner,
        };
        Ok(match inner {
            TypeInner::Struct { members, .. } => {
                format!("{value}.{}", named('m', index as usize, members[index as usize].name.as_deref()))
            }
            _ => format!("{value}[{index}]"),
        })
    }
}

fn binary(op: BinaryOperator) -> &'static str {
    match op {
        BinaryOperator::Add => "add",
        BinaryOperator::Subtract => "sub",
        BinaryOperator::Multiply => "mul",
        BinaryOperator::Divide => "div",
        BinaryOperator::Modulo => "rem",
        BinaryOperator::Equal => "eq",
        BinaryOperator::NotEqual => "ne",
        BinaryOperator::Less => "lt",
        BinaryOperator::LessEqual => "le",
        BinaryOperator::Greater => "gt",
        BinaryOperator::GreaterEqual => "ge",
        BinaryOperator::And | BinaryOperator::LogicalAnd => "bit_and",
        BinaryOperator::ExclusiveOr => "bit_xor",
        BinaryOperator::InclusiveOr | BinaryOperator::LogicalOr => "bit_or",
        BinaryOperator::ShiftLeft => "shl",
        BinaryOperator::ShiftRight => "shr",
    }
}

fn math(fun: MathFunction) -> Fallible<&'static str> {
    Ok(match fun {
        MathFunction::Abs => "abs",
        MathFunction::Min => "min",
        MathFunction::Max => "max",
        MathFunction::Clamp => "clamp",
        MathFunction::Sign => "sign",
        MathFunction::Floor => "floor",
        MathFunction::Ceil => "ceil",
        MathFunction::Trunc => "trunc",
        MathFunction::Round => "round",
        MathFunction::Sqrt => "sqrt",
        MathFunction::InverseSqrt => "inverse_sqrt",
        MathFunction::Exp => "exp",
        MathFunction::Log => "log",
        MathFunction::Fma => "fma",
        MathFunction::Dot => "dot",
        MathFunction::Dot4I8Packed => "dot_4_i8_packed",
        MathFunction::Unpack4xI8 => "unpack_4x_i8",
        MathFunction::Unpack4xU8 => "unpack_4x_u8",
        MathFunction::CountLeadingZeros => "count_leading_zeros",
        MathFunction::ExtractBits => "extract_bits",
        other => return unsupported("function", &other),
    })
}
