//! Finds barriers in control flow that is not uniform. Browsers reject a shader with such a barrier; naga accepts it.
//!
//! A value is uniform if it is the same for all threads of a workgroup: arguments of the dispatch, workgroup numbers,
//! constants, read-only memory at a uniform index, and values computed from these alone. Control flow is uniform while no
//! thread has taken a branch, left a loop or returned depending on a non-uniform value. A variable counts as uniform if every
//! store to it, anywhere, stores a uniform value in uniform control flow, which is stricter than WGSL.

use naga::{
    AddressSpace, Block, BuiltIn, Expression, Function, Handle, LocalVariable, Module, Statement, StorageAccess,
};
use std::collections::{HashMap, HashSet};

/// One line for each barrier in non-uniform control flow.
pub fn misplaced_barriers(module: &Module) -> Vec<String> {
    let mut found = Vec::new();
    for entry in &module.entry_points {
        let uniform = |binding: &Option<naga::Binding>| {
            matches!(binding, Some(naga::Binding::BuiltIn(BuiltIn::WorkGroupId | BuiltIn::NumWorkGroups)))
        };
        let arguments = entry.function.arguments.iter().map(|a| uniform(&a.binding)).collect();
        found.extend(Walk::run(module, &entry.function, arguments, true).found);
    }
    found
}

/// A loop or switch around the current statement.
struct Frame {
    is_loop: bool,
    /// Whether some threads may have left it, or its current round, before others.
    diverged: bool,
}

/// One function, for a call whose arguments are known to be uniform or not.
struct Walk<'a> {
    module: &'a Module,
    function: &'a Function,
    arguments: Vec<bool>,
    /// Variables that may differ between threads.
    varying: HashSet<Handle<LocalVariable>>,
    /// Whether the results of statements such as calls are uniform.
    results: HashMap<Handle<Expression>, bool>,
    frames: Vec<Frame>,
    /// Whether some threads may have returned before others.
    returned: bool,
    /// Whether the returned value is uniform.
    value: bool,
    found: Vec<String>,
}

impl<'a> Walk<'a> {
    /// Walks the function until no further variable is found to vary.
    fn run(module: &'a Module, function: &'a Function, arguments: Vec<bool>, uniform: bool) -> Self {
        let mut varying = HashSet::new();
        for (variable, local) in function.local_variables.iter() {
            if local.init.is_some_and(|init| {
                !matches!(
                    function.expressions[init],
                    Expression::Literal(_)
                        | Expression::Constant(_)
                        | Expression::ZeroValue(_)
                        | Expression::Compose { .. }
                )
            }) {
                varying.insert(variable);
            }
        }
        loop {
            let known = varying.len();
            let mut walk = Walk {
                module,
                function,
                arguments: arguments.clone(),
                varying,
                results: HashMap::new(),
                frames: Vec::new(),
                returned: false,
                value: true,
                found: Vec::new(),
            };
            walk.block(&function.body, uniform);
            if walk.varying.len() == known {
                return walk;
            }
            varying = walk.varying;
        }
    }

    /// Whether all threads of the function reach this statement, provided that all are in the enclosing block.
    fn together(&self, uniform: bool) -> bool {
        uniform && !self.returned && !self.frames.iter().any(|f| f.diverged)
    }

    fn block(&mut self, block: &Block, uniform: bool) {
        for statement in block {
            self.statement(statement, uniform);
        }
    }

    fn statement(&mut self, statement: &Statement, uniform: bool) {
        let together = self.together(uniform);
        match statement {
            Statement::Block(block) => self.block(block, uniform),
            Statement::If { condition, accept, reject } => {
                let inner = uniform && self.is_uniform(*condition);
                self.block(accept, inner);
                self.block(reject, inner);
            }
            Statement::Switch { selector, cases } => {
                let inner = uniform && self.is_uniform(*selector);
                for case in cases {
                    // Threads that leave a case early join the others after the switch.
                    self.frames.push(Frame { is_loop: false, diverged: false });
                    self.block(&case.body, inner);
                    self.frames.pop();
                }
            }
            Statement::Loop { body, continuing, break_if } => {
                self.frames.push(Frame { is_loop: true, diverged: false });
                // A thread that leaves in one round is missing in the next, which the second walk detects.
                for _ in 0..2 {
                    self.block(body, uniform);
                    self.block(continuing, uniform);
                    if break_if.is_some_and(|condition| !self.is_uniform(condition)) {
                        self.leave(true);
                    }
                }
                self.frames.pop();
            }
            Statement::Break if !together => self.leave(false),
            Statement::Continue if !together => self.leave(true),
            Statement::Return { value } => {
                self.returned |= !together;
                self.value &= together && value.is_none_or(|v| self.is_uniform(v));
            }
            Statement::ControlBarrier(_) => self.barrier(together),
            Statement::Store { pointer, value } => {
                if let Some(variable) = self.variable(*pointer)
                    && !(together && self.is_uniform(*value) && self.is_uniform(*pointer))
                {
                    self.varying.insert(variable);
                }
            }
            Statement::WorkGroupUniformLoad { result, .. } => {
                self.barrier(together);
                self.results.insert(*result, true);
            }
            Statement::Call { function, arguments, result } => self.call(*function, arguments, *result, together),
            _ => {}
        }
    }

    fn barrier(&mut self, together: bool) {
        if !together {
            let name = self.function.name.as_deref().unwrap_or("main");
            self.found.push(format!("a barrier in {name} is not reached by all threads together"));
        }
    }

    /// Records that some threads leave the innermost loop, or the innermost switch too unless `loop_only`.
    fn leave(&mut self, loop_only: bool) {
        for frame in self.frames.iter_mut().rev() {
            frame.diverged = true;
            if frame.is_loop || !loop_only {
                return;
            }
        }
    }

    fn call(
        &mut self,
        function: Handle<Function>,
        arguments: &[Handle<Expression>],
        result: Option<Handle<Expression>>,
        together: bool,
    ) {
        let uniform = arguments.iter().map(|a| self.is_uniform(*a)).collect();
        let callee = Walk::run(self.module, &self.module.functions[function], uniform, together);
        self.found.extend(callee.found);
        if let Some(result) = result {
            self.results.insert(result, callee.value);
        }
        // A variable whose address is passed may be changed.
        for argument in arguments {
            if let Some(variable) = self.variable(*argument) {
                self.varying.insert(variable);
            }
        }
    }

    /// The local variable that contains a pointer's target.
    fn variable(&self, pointer: Handle<Expression>) -> Option<Handle<LocalVariable>> {
        match self.function.expressions[pointer] {
            Expression::LocalVariable(variable) => Some(variable),
            Expression::Access { base, .. } | Expression::AccessIndex { base, .. } => self.variable(base),
            _ => None,
        }
    }

    /// Whether a value, or a pointer's target, is the same for all threads.
    fn is_uniform(&self, expression: Handle<Expression>) -> bool {
        let all = |list: &[Handle<Expression>]| list.iter().all(|e| self.is_uniform(*e));
        match &self.function.expressions[expression] {
            Expression::Literal(_) | Expression::Constant(_) | Expression::Override(_) | Expression::ZeroValue(_) => {
                true
            }
            Expression::Compose { components, .. } => all(components),
            Expression::Access { base, index } => all(&[*base, *index]),
            Expression::AccessIndex { base, .. } => self.is_uniform(*base),
            Expression::Splat { value, .. } => self.is_uniform(*value),
            Expression::Swizzle { vector, .. } => self.is_uniform(*vector),
            Expression::FunctionArgument(i) => self.arguments[*i as usize],
            Expression::GlobalVariable(variable) => match self.module.global_variables[*variable].space {
                AddressSpace::Uniform => true,
                AddressSpace::Storage { access } => !access.contains(StorageAccess::STORE),
                _ => false,
            },
            Expression::LocalVariable(variable) => !self.varying.contains(variable),
            Expression::Load { pointer } => self.is_uniform(*pointer),
            Expression::Unary { expr, .. } | Expression::As { expr, .. } => self.is_uniform(*expr),
            Expression::Binary { left, right, .. } => all(&[*left, *right]),
            Expression::Select { condition, accept, reject } => all(&[*condition, *accept, *reject]),
            Expression::Relational { argument, .. } => self.is_uniform(*argument),
            Expression::Math { arg, arg1, arg2, arg3, .. } => {
                self.is_uniform(*arg) && [arg1, arg2, arg3].into_iter().flatten().all(|a| self.is_uniform(*a))
            }
            Expression::ArrayLength(_) => true,
            Expression::CallResult(_) | Expression::WorkGroupUniformLoadResult { .. } => {
                self.results.get(&expression).copied().unwrap_or(false)
            }
            _ => false,
        }
    }
}
