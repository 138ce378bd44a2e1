//! The functions that the rewritten module has beside its own.

use wasm_encoder::{BlockType, Catch, Function, MemArg, ValType};

use super::plan::{Added, Plan, value_type};
use super::{RewriteError, SENT, SENT_TO_SELF};
use crate::landmarks::{self, RAISE};

/// How far the stack pointer moves to make Postgres' stack check fail: more than any
/// `max_stack_depth` this host configures, less than the 8 MiB stack plus what lies below it.
const STACK_SHIFT_BYTES: i32 = 4 << 20;

impl Plan {
    pub(super) fn body(&self, added: &Added) -> Result<Function, RewriteError> {
        match added {
            Added::Invoke { type_index, callee } => self.invoke_body(*type_index, *callee),
            Added::ThrowLongjmp => {
                let mut function = Function::new([]);
                function.instructions().throw(0).end();
                Ok(function)
            }
            Added::CallSighandler => {
                let mut function = Function::new([]);
                let mut code = function.instructions();
                code.local_get(1)
                    .local_get(0)
                    .call_indirect(0, self.type_handler)
                    .end();
                Ok(function)
            }
            Added::DeliverSignals => self.deliver_signals_body(),
            Added::ProcessInterrupts { original } => {
                let deliver = self.deliver_signals.expect("BUG: planned together");
                let yields = self.import_yield.expect("BUG: planned together");
                let mut function = Function::new([]);
                let mut code = function.instructions();
                code.call(yields).call(deliver).call(*original).end();
                Ok(function)
            }
            Added::WaitLatch { original } => self.wait_latch_body(*original),
            Added::Nanosleep => self.nanosleep_body(),
            Added::CheckStackDepth { original } => self.check_stack_depth_body(*original),
            Added::Kill { original } => Ok(self.kill_body(*original)),
        }
    }

    /// Save the stack pointer, call, and on a longjmp restore it and tell `setjmp`'s side.
    fn invoke_body(&self, type_index: u32, callee: u32) -> Result<Function, RewriteError> {
        let ty = &self.survey.types[type_index as usize];
        let params = ty.params().len() as u32;
        let stack_pointer = self.stack_pointer()?;
        let mut function = Function::new([(1, ValType::I32)]);
        let saved = params;
        let mut code = function.instructions();
        code.global_get(stack_pointer).local_set(saved);
        code.block(BlockType::Empty);
        let result = match ty.results() {
            [] => BlockType::Empty,
            [one] => BlockType::Result(value_type(*one)?),
            _ => return Err(RewriteError::Shape("invoke with several results".into())),
        };
        code.try_table(result, [Catch::One { tag: 0, label: 0 }]);
        for param in 1..params {
            code.local_get(param);
        }
        code.local_get(0)
            .call_indirect(0, callee)
            .end()
            .return_()
            .end();
        code.local_get(saved).global_set(stack_pointer);
        code.i32_const(1).i32_const(0).call(self.set_threw()?);
        if let [one] = ty.results() {
            match value_type(*one)? {
                ValType::I32 => code.i32_const(0),
                ValType::I64 => code.i64_const(0),
                ValType::F32 => code.f32_const(0.0.into()),
                _ => code.f64_const(0.0.into()),
            };
        }
        code.end();
        Ok(function)
    }

    /// `_emscripten_timeout(ITIMER_REAL, now)` for the timer, and `raise` for what others have sent.
    fn deliver_signals_body(&self) -> Result<Function, RewriteError> {
        let take = self.import_take_signals.expect("BUG: planned together");
        let timeout = self.exported("_emscripten_timeout")?;
        let now = self
            .imported("emscripten_get_now")
            .ok_or_else(|| RewriteError::Shape("no emscripten_get_now".into()))?;
        let mut function = Function::new([(1, ValType::I32)]);
        let mut code = function.instructions();
        code.call(take).local_tee(0).i32_const(1).i32_and();
        code.if_(BlockType::Empty);
        code.i32_const(0).call(now).call(timeout).end();
        if let Some(raise) = self.survey.landmarks.function(RAISE) {
            let raise = self.function(raise)?;
            for (bit, signal) in SENT {
                code.local_get(0).i32_const(bit).i32_and();
                code.if_(BlockType::Empty);
                code.i32_const(signal).call(raise).drop().end();
            }
        }
        code.end();
        Ok(function)
    }

    /// Asks the host, which knows the other processes; the original knows its own.
    fn kill_body(&self, original: u32) -> Function {
        let send = self.import_send_signal.expect("BUG: planned together");
        let (process, signal, sent) = (0, 1, 2);
        let mut function = Function::new([(1, ValType::I32)]);
        let mut code = function.instructions();
        code.local_get(process)
            .local_get(signal)
            .call(send)
            .local_tee(sent);
        code.i32_const(SENT_TO_SELF).i32_eq().if_(BlockType::Empty);
        code.i32_const(landmarks::GETPID as i32)
            .local_get(signal)
            .call(original)
            .return_()
            .end();
        code.local_get(sent).end();
        function
    }

    /// Waits in the host, then lets the original look at the latch without waiting itself.
    fn wait_latch_body(&self, original: u32) -> Result<Function, RewriteError> {
        const WL_TIMEOUT: i32 = 8;
        let deliver = self.deliver_signals.expect("BUG: planned together");
        let begin = self.import_wait_begin.expect("BUG: planned together");
        let wait = self.import_wait.expect("BUG: planned together");
        let (latch, events, timeout_ms, event_info, signals) = (0, 1, 2, 3, 4);
        let mut function = Function::new([(1, ValType::I32)]);
        let mut code = function.instructions();
        code.local_get(events).local_get(timeout_ms).call(begin);
        code.loop_(BlockType::Empty);
        code.local_get(latch)
            .call(wait)
            .local_set(signals)
            .call(deliver);
        code.local_get(signals).br_if(0).end();
        code.local_get(latch)
            .local_get(events)
            .i32_const(WL_TIMEOUT)
            .i32_or();
        code.i32_const(0).local_get(event_info).call(original).end();
        Ok(function)
    }

    /// `nanosleep(request, remaining)`.
    fn nanosleep_body(&self) -> Result<Function, RewriteError> {
        let deliver = self.deliver_signals.expect("BUG: planned together");
        let sleep = self.import_sleep.expect("BUG: planned together");
        let errno = self.exported("__errno_location")?;
        let word = MemArg {
            offset: 0,
            align: 2,
            memory_index: 0,
        };
        let mut function = Function::new([(1, ValType::I32)]);
        let mut code = function.instructions();
        code.local_get(0).call(sleep).local_set(2).call(deliver);
        code.local_get(2).if_(BlockType::Empty);
        code.call(errno)
            .local_get(2)
            .i32_store(word)
            .i32_const(-1)
            .return_()
            .end();
        code.i32_const(0).end();
        Ok(function)
    }

    /// With the native stack nearly gone, lets Postgres' own check fail: it compares addresses
    /// on the stack in memory, so the pointer to that stack is moved away for the call. The
    /// check then reports "stack depth limit exceeded" (54001) in its own words.
    fn check_stack_depth_body(&self, original: u32) -> Result<Function, RewriteError> {
        let low = self.import_stack_is_low.expect("BUG: planned together");
        let stack_pointer = self.stack_pointer()?;
        let mut function = Function::new([]);
        let mut code = function.instructions();
        let shift = |code: &mut wasm_encoder::InstructionSink<'_>, bytes: i32| {
            code.global_get(stack_pointer)
                .i32_const(bytes)
                .i32_add()
                .global_set(stack_pointer);
        };
        code.call(low).if_(BlockType::Empty);
        shift(&mut code, -STACK_SHIFT_BYTES);
        code.call(original);
        shift(&mut code, STACK_SHIFT_BYTES);
        code.else_().call(original).end().end();
        Ok(function)
    }
}
