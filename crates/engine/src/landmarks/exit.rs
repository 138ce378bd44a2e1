//! What a process does when it ends.

use super::{Code, Step};
use crate::rewrite::RewriteError;

/// Addresses of the lengths of the lists of what is to be done at the end, and of the lists, in entries
/// of 8 bytes that begin with a function's slot in the table.
pub(crate) const AT_EXIT: &str = "dormouse.on_proc_exit_index";
pub(crate) const AT_SHARED_EXIT: &str = "dormouse.on_shmem_exit_index";
pub(crate) const BEFORE_SHARED_EXIT: &str = "dormouse.before_shmem_exit_index";
pub(crate) const AT_EXIT_LIST: &str = "dormouse.on_proc_exit_list";
pub(crate) const AT_SHARED_EXIT_LIST: &str = "dormouse.on_shmem_exit_list";
pub(crate) const BEFORE_SHARED_EXIT_LIST: &str = "dormouse.before_shmem_exit_list";
/// Slots of what a process does at its end with what it has of its own in the shared memory: `ProcKill`,
/// `CleanupInvalidationState`, `CleanupProcSignalState`, `pgstat_beshutdown_hook`.
pub(crate) const OWN: [&str; 4] = [
    "dormouse.ProcKill",
    "dormouse.CleanupInvalidationState",
    "dormouse.CleanupProcSignalState",
    "dormouse.pgstat_beshutdown_hook",
];
/// Slots of `RemoveProcFromArray`, and of what only the end of a whole server is to do:
/// `pgstat_before_server_shutdown` and `ShutdownXLOG`.
pub(crate) const REMOVE_PROC: &str = "dormouse.RemoveProcFromArray";
pub(crate) const SERVER_SHUTDOWN: [&str; 2] = [
    "dormouse.pgstat_before_server_shutdown",
    "dormouse.ShutdownXLOG",
];

/// Where they are; `beginnings` are the functions that enter [`OWN`] in the list.
pub(super) fn values(
    code: &Code,
    init_postgres: u32,
    beginnings: [u32; 4],
) -> Result<Vec<(&'static str, u32)>, RewriteError> {
    let shape = |what: &str| RewriteError::Shape(format!("{what} is another"));
    let index = |text: &str| {
        let steps = code.steps(code.that_says(&[text])?);
        match steps {
            [Step::Constant(index), Step::Load { offset: 0 }, ..] => Ok((*index, steps)),
            _ => Err(shape(text)),
        }
    };
    let (at_exit, at_exit_steps) = index("out of on_proc_exit slots")?;
    let (at_shared, at_shared_steps) = index("out of on_shmem_exit slots")?;
    let (before, before_steps) = index("out of before_shmem_exit slots")?;
    let list = |index: u32, steps: &[Step]| {
        let found = steps.iter().find_map(|step| match *step {
            Step::Constant(at) if at > 65_536 && at != index => Some(at),
            _ => None,
        });
        found.ok_or_else(|| shape("a list of what is to be done at the end"))
    };
    let exported = |name: &str| {
        let function = code.exports.get(name).copied();
        function.ok_or_else(|| RewriteError::Shape(format!("no {name}")))
    };
    let registered = |with: u32| {
        let steps = code.steps(init_postgres).windows(3);
        steps.filter_map(move |steps| match *steps {
            [Step::Constant(slot), Step::Constant(0), Step::Call(to)] if to == with => Some(slot),
            _ => None,
        })
    };
    let on_shmem_exit = exported("on_shmem_exit")?;
    let remove = registered(on_shmem_exit).next();
    let mut values = Vec::new();
    for (name, beginning) in OWN.into_iter().zip(beginnings) {
        let steps = code.steps(beginning);
        let call = steps
            .iter()
            .position(|step| *step == Step::Call(on_shmem_exit));
        let slot = call.and_then(|call| match steps.get(..call)? {
            [.., Step::Constant(slot), Step::Constant(0)] => Some(*slot),
            [.., Step::Constant(slot)] => Some(*slot),
            _ => None,
        });
        values.push((
            name,
            slot.filter(|slot| *slot > 0).ok_or_else(|| shape(name))?,
        ));
    }
    // The last one is `ShutdownPostgres`, which is any process'.
    let first: Vec<u32> = registered(exported("before_shmem_exit")?).collect();
    let &[statistics, log, _] = first.as_slice() else {
        return Err(shape("InitPostgres"));
    };
    values.extend([
        (AT_EXIT, at_exit),
        (AT_SHARED_EXIT, at_shared),
        (BEFORE_SHARED_EXIT, before),
        (AT_EXIT_LIST, list(at_exit, at_exit_steps)?),
        (AT_SHARED_EXIT_LIST, list(at_shared, at_shared_steps)?),
        (BEFORE_SHARED_EXIT_LIST, list(before, before_steps)?),
        (REMOVE_PROC, remove.ok_or_else(|| shape("InitPostgres"))?),
        (SERVER_SHUTDOWN[0], statistics),
        (SERVER_SHUTDOWN[1], log),
    ]);
    Ok(values)
}
