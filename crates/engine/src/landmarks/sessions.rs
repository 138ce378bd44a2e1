//! What a process keeps of its session: so that the session can leave it and go on in another.

use super::{Code, Step};
use crate::rewrite::RewriteError;

/// `InitializeSessionUserId(name, id, bypass_login_check)`.
pub(crate) const INIT_SESSION_USER: &str = "dormouse.InitializeSessionUserId";
/// `ProcessNotifyInterrupt(flush)`.
pub(crate) const PROCESS_NOTIFY: &str = "dormouse.ProcessNotifyInterrupt";

/// Address of the list of settings that are not at their default.
pub(crate) const SETTINGS: &str = "dormouse.guc_nondef_list";
/// Addresses of pointers to hash tables: statements by name, sequences by table, portals by name.
pub(crate) const STATEMENTS: &str = "dormouse.prepared_queries";
pub(crate) const SEQUENCES: &str = "dormouse.seqhashtab";
pub(crate) const PORTALS: &str = "dormouse.PortalHashTable";
/// Address of the pointer to the sequence that `lastval()` tells of.
pub(crate) const LAST_SEQUENCE: &str = "dormouse.last_used_seq";
/// Address of the pointer to the unnamed statement.
pub(crate) const UNNAMED: &str = "dormouse.unnamed_stmt_psrc";
/// Address of the pointer to the channels that are listened to.
pub(crate) const CHANNELS: &str = "dormouse.listenChannels";
/// Addresses of the pointers to what other processes see of this one: its place for signals, and its status.
pub(crate) const SIGNAL_SLOT: &str = "dormouse.MyProcSignalSlot";
pub(crate) const STATUS: &str = "dormouse.MyBEEntry";

/// Address of the latch that a process has before and after it has one in shared memory.
pub(crate) const LOCAL_LATCH: &str = "dormouse.LocalLatchData";

/// Address of the pointer to the name of the client's encoding.
pub(crate) const CLIENT_ENCODING: &str = "dormouse.client_encoding";

/// Settings of type `int4` that the host looks at, by their symbols and names.
pub(crate) const TIMEOUTS: [(&str, &str); 3] = [
    (
        "dormouse.idle_in_transaction_session_timeout",
        "idle_in_transaction_session_timeout",
    ),
    ("dormouse.idle_session_timeout", "idle_session_timeout"),
    ("dormouse.transaction_timeout", "transaction_timeout"),
];

/// Of `guc_tables.h`: where in a setting the address of its variable is.
const VARIABLE: u32 = 92;

type Named<T> = Vec<(&'static str, T)>;

pub(super) fn functions(code: &Code) -> Result<Named<u32>, RewriteError> {
    Ok(vec![
        (
            INIT_SESSION_USER,
            code.that_says(&["role \"%s\" is not permitted to log in"])?,
        ),
        (PROCESS_NOTIFY, code.that_says(&["ProcessIncomingNotify"])?),
    ])
}

/// `pgstat_beinit` and `ProcSignalInit` are known already.
pub(super) fn values(
    code: &Code,
    pgstat_beinit: u32,
    proc_signal_init: u32,
) -> Result<Named<u32>, RewriteError> {
    let shape = |what: &str| RewriteError::Shape(format!("{what} is another"));
    let first_read = |text: &str| {
        let steps = code.steps(code.that_says(&[text])?);
        let read = steps.windows(2).find_map(|steps| match *steps {
            [Step::Constant(address), Step::Load { offset: 0 }] => Some(address),
            _ => None,
        });
        read.ok_or_else(|| shape(text))
    };
    let exported = |name: &str| {
        let function = code.exports.get(name).copied();
        function.ok_or_else(|| RewriteError::Shape(format!("no {name}")))
    };

    // The leader of parallel workers tells them its settings: for each of the list, up to its head again, once
    // to count the bytes and once to write them.
    let settings = code.steps(exported("InitializeParallelDSM")?);
    let lists = settings.windows(3).filter_map(|steps| match *steps {
        [
            Step::Constant(next),
            Step::Load { offset: 0 },
            Step::Constant(head),
        ] if next == head + 4 => Some(head),
        _ => None,
    });
    let settings = twice(lists);

    // Who drops the unnamed statement forgets it first.
    let main_loop = code.steps(exported("PostgresMainLoopOnce")?);
    let drop_plan = main_loop.windows(5).filter_map(|steps| match *steps {
        [
            Step::Constant(address),
            Step::Load { offset: 0 },
            Step::Constant(again),
            Step::Constant(0),
            Step::Call(drop),
        ] if address == again => Some((address, drop)),
        _ => None,
    });
    // It is done before `Parse`, before a simple query, and by `Close`.
    let unnamed = twice(drop_plan).map(|(address, _)| address);

    // The one that forgets all channels at the end of the process, not the one for the end of a transaction.
    let [listening, at_commit] =
        ["Exec_UnlistenAllCommit(%d)", "Exec_ListenPreCommit(%d)"].map(|text| code.addresses(text));
    let names = |steps: &[Step], addresses: &[u32]| {
        steps
            .iter()
            .any(|step| matches!(step, Step::Constant(at) if addresses.contains(at)))
    };
    let unlisten = code.the_one(
        |steps| names(steps, &listening) && !names(steps, &at_commit),
        "Exec_UnlistenAllCommit",
    )?;
    let steps = code.steps(unlisten);
    let after = steps
        .iter()
        .position(|step| matches!(step, Step::Constant(at) if listening.contains(at)));
    let channels = after.and_then(|after| {
        steps[after..].windows(3).find_map(|steps| match *steps {
            [
                Step::Constant(address),
                Step::Load { offset: 0 },
                Step::Call(_),
            ] => Some(address),
            _ => None,
        })
    });

    // Stored last, and followed by the registration of what frees it.
    let on_exit = exported("on_shmem_exit")?;
    let slot = code
        .steps(proc_signal_init)
        .windows(4)
        .find_map(|steps| match *steps {
            [
                Step::Constant(address),
                Step::Constant(_),
                Step::Constant(0),
                Step::Call(function),
            ] if function == on_exit => Some(address),
            _ => None,
        });
    let status = match code.steps(pgstat_beinit) {
        [
            Step::Constant(own),
            Step::Constant(all),
            Step::Load { offset: 0 },
            ..,
        ] if own != all => Some(*own),
        _ => None,
    };

    let my_latch = code.globals.get("MyLatch").copied();
    let latch = code.bodies.iter().find_map(|steps| {
        steps.windows(4).find_map(|steps| match *steps {
            [
                Step::Constant(mine),
                Step::Constant(local),
                Step::Constant(initialized),
                Step::Call(_),
            ] if Some(mine) == my_latch && local == initialized => Some(local),
            _ => None,
        })
    });

    let mut values = vec![
        (
            LOCAL_LATCH,
            latch.ok_or_else(|| shape("InitProcessLocalLatch"))?,
        ),
        (
            SETTINGS,
            settings.ok_or_else(|| shape("SerializeGUCState"))?,
        ),
        (STATEMENTS, first_read("Prepared Queries")?),
        (SEQUENCES, first_read("Sequence values")?),
        (
            LAST_SEQUENCE,
            first_read("lastval is not yet defined in this session")?,
        ),
        (PORTALS, first_read("closing existing cursor \"%s\"")?),
        (UNNAMED, unnamed.ok_or_else(|| shape("drop_unnamed_stmt"))?),
        (
            CHANNELS,
            channels.ok_or_else(|| shape("Exec_UnlistenAllCommit"))?,
        ),
        (SIGNAL_SLOT, slot.ok_or_else(|| shape("ProcSignalInit"))?),
        (STATUS, status.ok_or_else(|| shape("pgstat_beinit"))?),
    ];
    values.push((CLIENT_ENCODING, variable(code, "client_encoding")?));
    for (symbol, name) in TIMEOUTS {
        values.push((symbol, variable(code, name)?));
    }
    Ok(values)
}

/// The first that comes more than once.
fn twice<T: PartialEq>(found: impl Iterator<Item = T>) -> Option<T> {
    let mut seen = Vec::new();
    for one in found {
        if seen.contains(&one) {
            return Some(one);
        }
        seen.push(one);
    }
    None
}

/// The address of the variable of a setting.
fn variable(code: &Code, name: &str) -> Result<u32, RewriteError> {
    /// Of `GucContext`, and of `config_group`.
    const CONTEXT_MAX: u32 = 6;
    const GROUP_MAX: u32 = 100;
    let names = code.endings(name);
    let mut found = code.data.iter().flat_map(|(at, bytes)| {
        let first = at.next_multiple_of(4);
        let end = at + bytes.len() as u32;
        (first..end).step_by(4)
    });
    let setting = found.find(|at| {
        names.contains(&code.word(*at))
            && code.word(at + 4) <= CONTEXT_MAX
            && (1..GROUP_MAX).contains(&code.word(at + 8))
            && code.word(at + VARIABLE) != 0
    });
    let setting = setting.ok_or_else(|| RewriteError::Shape(format!("no setting {name}")))?;
    Ok(code.word(setting + VARIABLE))
}
