//! What a session has in its process: taken out of it, and put into another.
//!
//! A session that is between two transactions can leave its process, so that few processes serve many
//! sessions. What it has there is read where Postgres keeps it, not guessed from what it was sent, and put
//! back by Postgres' own functions. What cannot be moved [binds](Bond) it to the process.

use wasmtime::{TypedFunc, WasmParams, WasmResults};

use super::pgproc::{
    LATCH_OWNER, PROC_DATABASE, PROC_LATCH_OWNER, PROC_LOCKS, PROC_PID, PROC_TEMP_NAMESPACE,
    PROC_TRANSACTION,
};
use super::{Backend, STATUS_LONGJMP, ended, enter};
use crate::error::BackendError;
use crate::guest_hash::entries;
use crate::host::{Exit, read_u32, slice, slice_mut, write_u32};
use crate::landmarks::sessions as at;
use crate::rewrite::SENT_CANCEL;
use crate::settings::{self, SettingSource};

/// Offsets in `PgBackendStatus`.
const STATUS_PID: u32 = 4;
const STATUS_DATABASE: u32 = 48;
const STATUS_USER: u32 = 52;
/// Offsets in `PreparedStatement`, behind a name of 64 bytes, and in its `CachedPlanSource`.
const STATEMENT_SOURCE: u32 = 64;
const STATEMENT_BY_SQL: u32 = 68;
const SOURCE_TREE: u32 = 4;
const SOURCE_TEXT: u32 = 12;
const SOURCE_TYPES: u32 = 20;
const SOURCE_TYPE_COUNT: u32 = 24;
/// Offsets in `RawStmt`: where in the text it is.
const TREE_START: u32 = 8;
const TREE_BYTES: u32 = 12;
/// Bytes of a `SeqTableData`, and offsets in it.
const SEQUENCE_BYTES: u32 = 40;
const SEQUENCE_LOCK: u32 = 8;
const SEQUENCE_VALID: u32 = 12;

/// Of `GucContext`.
const PGC_POSTMASTER: u32 = 1;
const PGC_SU_BACKEND: u32 = 3;
const PGC_BACKEND: u32 = 4;
const PGC_SUSET: u32 = 5;
const PGC_USERSET: u32 = 6;

/// Most types of parameters that a statement can have.
const TYPES_MAX: u32 = 65_535;

/// Who has a session, and what its settings return to when they are reset.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionIdentity {
    /// Object id of the role: a name may become another's.
    pub user: u32,
    /// What the client, the role and the database asked for: name, value, and who of them.
    pub defaults: Vec<(String, String, SettingSource)>,
}

/// What a session has of its own beside its identity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionState {
    /// Settings, by name.
    pub settings: Vec<(String, String)>,
    /// Object ids of the roles that settings name: a name may become another's.
    pub roles: Vec<(String, u32)>,
    /// Prepared statements; the unnamed one has no name.
    pub statements: Vec<PreparedStatement>,
    /// What `currval` and `lastval` tell, and values that are cached.
    pub sequences: Sequences,
}

/// Sequences that a session has used, as Postgres keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sequences {
    entries: Vec<Vec<u8>>,
    /// The one that was used last: its place among them.
    last: Option<usize>,
}

impl Sequences {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// A prepared statement, as it can be prepared again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedStatement {
    /// Its name; empty for the unnamed one.
    pub name: String,
    /// The query; for one of `PREPARE` that whole statement.
    pub sql: String,
    /// Object ids of the types of its parameters.
    pub parameter_types: Vec<u32>,
    /// Made by `PREPARE`, not by a `Parse` message.
    pub by_sql: bool,
}

/// Why a session cannot leave its process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bond {
    /// It has made temporary tables.
    TemporaryTables,
    /// It holds locks: advisory ones of the session, outside a transaction.
    Locks,
    /// It listens to channels.
    Channels,
    /// It has cursors `WITH HOLD`.
    Cursors,
    /// A transaction is open, though not as a block.
    Transaction,
    /// Its client has an encoding other than the database's: statements would not come back as they were.
    Encoding,
}

/// Limits of Postgres on how long a session may do nothing, as they are set in it, in milliseconds; zero
/// for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct IdleLimits {
    /// `idle_in_transaction_session_timeout`.
    pub in_transaction_ms: u32,
    /// `idle_session_timeout`.
    pub session_ms: u32,
    /// `transaction_timeout`.
    pub transaction_ms: u32,
}

/// What a backend was given for its present session.
#[derive(Debug, Default)]
pub(super) struct Seated {
    identity: Option<SessionIdentity>,
    /// Settings that were given as defaults, with what they were before, if that was not the default.
    replaced: Vec<(String, Option<(String, SettingSource)>)>,
    /// Settings were changed of which the client may have to be told.
    has_reports: bool,
}

/// Why a session cannot be as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionRefused {
    /// There is no such role any more.
    UnknownRole,
    /// Postgres said why: its messages, with an `ErrorResponse`.
    Error(Vec<u8>),
}

#[derive(Debug)]
enum Protected<T> {
    Done(T),
    Refused(Vec<u8>),
}

impl Backend {
    /// Why the session cannot leave this process now. To be asked between two transactions.
    pub fn bond(&self) -> Option<Bond> {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let addresses = host.module.addresses;
        let own = read_u32(memory, addresses.my_proc);
        if read_u32(memory, own + PROC_TRANSACTION) != 0 {
            return Some(Bond::Transaction);
        }
        let encoding = settings::text(memory, read_u32(memory, addresses.client_encoding));
        if !encoding.is_some_and(|encoding| ["UTF8", "SQL_ASCII"].contains(&encoding.as_str())) {
            return Some(Bond::Encoding);
        }
        if read_u32(memory, addresses.channels) != 0 {
            return Some(Bond::Channels);
        }
        let holds = (0..16).map(|list| own + PROC_LOCKS + 8 * list).any(|head| {
            let next = read_u32(memory, head + 4);
            next != 0 && next != head
        });
        if holds {
            return Some(Bond::Locks);
        }
        // The unnamed portal ends with its transaction.
        if !entries(memory, addresses.portals).is_empty() {
            return Some(Bond::Cursors);
        }
        // Once made, the schema stays with the process; whether anything is in it only a query tells.
        (read_u32(memory, own + PROC_TEMP_NAMESPACE) != 0).then_some(Bond::TemporaryTables)
    }

    /// The number of the transaction that is open, of those of this process; 0 outside of transactions.
    pub fn transaction_number(&self) -> u32 {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let own = read_u32(memory, host.module.addresses.my_proc);
        read_u32(memory, own + PROC_TRANSACTION)
    }

    /// Object id of the schema for temporary tables that this process has, 0 for none.
    pub fn temporary_schema(&self) -> u32 {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let own = read_u32(memory, host.module.addresses.my_proc);
        read_u32(memory, own + PROC_TEMP_NAMESPACE)
    }

    /// Whether settings were changed of which a client may have to be told, since this was last asked.
    pub fn take_reports(&mut self) -> bool {
        std::mem::take(&mut self.seated.has_reports)
    }

    /// Object id of the role of that name.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn role(&mut self, name: &str) -> Result<Option<u32>, BackendError> {
        let guard = self.begin().await?;
        self.function::<(), ()>("StartTransactionCommand", ())
            .await?;
        let text = self.c_string(name).await?;
        let role = self
            .function::<_, u32>("get_role_oid", (text, 1u32))
            .await?;
        self.free(text).await?;
        self.function::<(), ()>("CommitTransactionCommand", ())
            .await?;
        self.end(guard);
        Ok((role != 0).then_some(role))
    }

    /// The limits on idleness that are set in this session.
    pub fn idle_limits(&self) -> IdleLimits {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let [in_transaction, session, transaction] = host.module.addresses.timeouts;
        IdleLimits {
            in_transaction_ms: read_u32(memory, in_transaction),
            session_ms: read_u32(memory, session),
            transaction_ms: read_u32(memory, transaction),
        }
    }

    /// Settings that clients are told of and that are not at their defaults: name and value.
    pub fn reported_settings(&self) -> Vec<(String, String)> {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        settings::reported(memory, host.module.addresses.settings)
    }

    /// What the session has here. To be asked between two transactions.
    pub fn session_state(&self) -> SessionState {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        let addresses = host.module.addresses;
        let (mut settings, mut roles) = (Vec::new(), Vec::new());
        if settings::any_of_session(memory, addresses.settings) {
            for setting in settings::changed(memory, addresses.settings) {
                if !setting.is_of_session() {
                    continue;
                }
                let role = match setting.name.as_str() {
                    "session_authorization" | "role" => settings::role(memory, setting.address),
                    _ => 0,
                };
                if role != 0 {
                    roles.push((setting.name.clone(), role));
                }
                settings.push((setting.name, setting.value));
            }
            // A role is one that the session's user may have; it comes last.
            settings.sort_by_key(|(name, _)| match name.as_str() {
                "session_authorization" => 0,
                "role" => 2,
                _ => 1,
            });
        }
        let mut statements = Vec::new();
        for entry in entries(memory, addresses.statements) {
            let by_sql = slice(memory, entry + STATEMENT_BY_SQL, 1).is_ok_and(|byte| byte[0] != 0);
            let source = read_u32(memory, entry + STATEMENT_SOURCE);
            statements.extend(
                settings::text(memory, entry)
                    .and_then(|name| prepared(memory, name, source, by_sql)),
            );
        }
        let unnamed = read_u32(memory, addresses.unnamed_statement);
        if unnamed != 0 {
            statements.extend(prepared(memory, String::new(), unnamed, false));
        }
        let mut sequences = Sequences::default();
        let last = read_u32(memory, addresses.last_sequence);
        for entry in entries(memory, addresses.sequences) {
            if entry == last {
                sequences.last = Some(sequences.entries.len());
            }
            let bytes = slice(memory, entry, SEQUENCE_BYTES);
            sequences.entries.extend(bytes.ok().map(<[u8]>::to_vec));
        }
        SessionState {
            settings,
            roles,
            statements,
            sequences,
        }
    }

    /// Takes everything of the session that [`session_state`](Self::session_state) tells, but for its
    /// prepared statements, which are closed by messages. Between two transactions only.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn clear_session(&mut self) -> Result<(), BackendError> {
        let host = self.store.data();
        let memory = host.guest().memory;
        let addresses = host.module.addresses;
        let bytes = memory.data(&self.store);
        let table = read_u32(bytes, addresses.sequences);
        let names: Vec<String> = settings::changed(bytes, addresses.settings)
            .into_iter()
            .filter(settings::Setting::is_of_session)
            .map(|setting| setting.name)
            .collect();
        if table != 0 {
            let guard = self.begin().await?;
            self.function::<u32, ()>("hash_destroy", table).await?;
            let bytes = memory.data_mut(&mut self.store);
            write_u32(bytes, addresses.sequences, 0);
            write_u32(bytes, addresses.last_sequence, 0);
            self.end(guard);
        }
        if names.is_empty() {
            return Ok(());
        }
        self.seated.has_reports = true;
        let guard = self.begin().await?;
        self.function::<(), ()>("StartTransactionCommand", ())
            .await?;
        for name in &names {
            let source = SettingSource::Session as u32;
            let reset = self.set_protected(name, None, PGC_SUSET, source).await?;
            if let Protected::Refused(error) = reset {
                // This process cannot be another session's, but it leaves the others in good order.
                self.end(guard);
                let error = String::from_utf8_lossy(&error).into_owned();
                return Err(BackendError::Crashed(format!(
                    "{name} is not reset: {error}"
                )));
            }
        }
        self.function::<(), ()>("CommitTransactionCommand", ())
            .await?;
        self.end(guard);
        Ok(())
    }

    /// Makes this process one of another session, of which only the prepared statements are missing then.
    /// What the one before it had must be cleared. `Some` if it cannot be: a role that is not there, a value
    /// that is none.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn begin_session(
        &mut self,
        identity: &SessionIdentity,
        state: &SessionState,
    ) -> Result<Option<SessionRefused>, BackendError> {
        if self.seated.identity.as_ref() != Some(identity)
            && let Some(refused) = self.identify(identity).await?
        {
            return Ok(Some(refused));
        }
        self.forget_activity().await?;
        self.restore_sequences(&state.sequences).await?;
        let mut wanted: Vec<_> = state.settings.iter().collect();
        loop {
            let restored = self.restore_settings(&wanted, &state.roles).await?;
            let Some((refused, error)) = restored else {
                return Ok(None);
            };
            let (name, value) = wanted.remove(refused);
            if ["role", "session_authorization"].contains(&name.as_str()) {
                return Ok(Some(error));
            }
            // Something that it needs has gone meanwhile: it would fail where it is used.
            tracing::warn!(
                setting = name,
                value,
                "a session's setting is not set again"
            );
        }
    }

    /// Sets all settings, or none: which was refused, and how.
    async fn restore_settings(
        &mut self,
        settings: &[&(String, String)],
        roles: &[(String, u32)],
    ) -> Result<Option<(usize, SessionRefused)>, BackendError> {
        if settings.is_empty() {
            return Ok(None);
        }
        self.seated.has_reports = true;
        let source = SettingSource::Session as u32;
        let guard = self.begin().await?;
        self.function::<(), ()>("StartTransactionCommand", ())
            .await?;
        let context = match self.function::<(), u32>("superuser", ()).await? {
            0 => PGC_USERSET,
            _ => PGC_SUSET,
        };
        for (index, (name, value)) in settings.iter().enumerate() {
            let role = roles.iter().find(|(setting, _)| setting == name);
            let renamed = match role {
                Some((_, id)) => Some(self.role_name(*id).await?.unwrap_or_default()),
                None => None,
            };
            let value = renamed.as_ref().unwrap_or(value);
            let outcome = self
                .set_protected(name, Some(value), context, source)
                .await?;
            if let Protected::Refused(error) = outcome {
                self.end(guard);
                // No role has an empty name.
                let is_gone = renamed.is_some_and(|name| name.is_empty());
                let refused = match is_gone {
                    true => SessionRefused::UnknownRole,
                    false => SessionRefused::Error(error),
                };
                return Ok(Some((index, refused)));
            }
        }
        self.function::<(), ()>("CommitTransactionCommand", ())
            .await?;
        self.end(guard);
        Ok(None)
    }

    /// What a role is called now. In a transaction.
    async fn role_name(&mut self, id: u32) -> Result<Option<String>, BackendError> {
        let name = self
            .function::<_, u32>("GetUserNameFromId", (id, 1u32))
            .await?;
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        Ok((name != 0).then(|| settings::text(memory, name)).flatten())
    }

    /// What the session before was seen to run is not this one's.
    async fn forget_activity(&mut self) -> Result<(), BackendError> {
        /// `STATE_IDLE` of `BackendState`.
        const IDLE: u32 = 2;
        let guard = self.begin().await?;
        let nothing = self.c_string("").await?;
        self.function::<_, ()>("pgstat_report_activity", (IDLE, nothing))
            .await?;
        self.free(nothing).await?;
        self.end(guard);
        Ok(())
    }

    /// Gives the process the user and the defaults of a session.
    async fn identify(
        &mut self,
        identity: &SessionIdentity,
    ) -> Result<Option<SessionRefused>, BackendError> {
        /// Of the roles by object id among the caches.
        const AUTHOID: u32 = 11;
        let before = self.seated.identity.take();
        self.seated.has_reports = true;
        let guard = self.begin().await?;
        self.function::<(), ()>("StartTransactionCommand", ())
            .await?;
        self.undo_defaults().await?;
        if before.is_none_or(|before| before.user != identity.user) {
            // Postgres ends a process that is to be of a role that is not there.
            let exists = self
                .function::<_, u32>("SearchSysCacheExists", (AUTHOID, identity.user, 0, 0, 0))
                .await?;
            if exists != 0 {
                self.function::<_, ()>(at::INIT_SESSION_USER, (0u32, identity.user, 1u32))
                    .await?;
            } else {
                self.function::<(), ()>("CommitTransactionCommand", ())
                    .await?;
                self.end(guard);
                return Ok(Some(SessionRefused::UnknownRole));
            }
        }
        self.function::<(), ()>("CommitTransactionCommand", ())
            .await?;
        self.tell_user(identity.user);
        self.end(guard);
        for (name, value, source) in &identity.defaults {
            if let Some(error) = self.set_default(name, value, *source).await? {
                if *source == SettingSource::Client {
                    return Ok(Some(error));
                }
                // As Postgres does: nobody could log in to mend it.
                tracing::warn!(setting = name, value, "a default cannot be set");
            }
        }
        self.seated.identity = Some(identity.clone());
        Ok(None)
    }

    /// One default, in a transaction of its own: what was set before it stays known if it is refused.
    async fn set_default(
        &mut self,
        name: &str,
        value: &str,
        source: SettingSource,
    ) -> Result<Option<SessionRefused>, BackendError> {
        let replaced = &self.seated.replaced;
        if !replaced
            .iter()
            .any(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            let found = self.changed_settings().into_iter();
            let was = found
                .filter(|setting| setting.name.eq_ignore_ascii_case(name))
                .map(|setting| (setting.value, setting.source))
                .next();
            self.seated.replaced.push((name.to_owned(), was));
        }
        let guard = self.begin().await?;
        self.function::<(), ()>("StartTransactionCommand", ())
            .await?;
        let context = match source {
            SettingSource::Client => match self.function::<(), u32>("superuser", ()).await? {
                0 => PGC_BACKEND,
                _ => PGC_SU_BACKEND,
            },
            _ => PGC_SUSET,
        };
        let outcome = self
            .set_protected(name, Some(value), context, source as u32)
            .await?;
        if let Protected::Done(()) = outcome {
            self.function::<(), ()>("CommitTransactionCommand", ())
                .await?;
        }
        self.end(guard);
        Ok(match outcome {
            Protected::Done(()) => None,
            Protected::Refused(error) => Some(SessionRefused::Error(error)),
        })
    }

    /// Gives settings back the defaults that they had before the present session's.
    async fn undo_defaults(&mut self) -> Result<(), BackendError> {
        let replaced = std::mem::take(&mut self.seated.replaced);
        for (name, was) in replaced {
            let changed = self.changed_settings();
            let Some(setting) = changed
                .iter()
                .find(|setting| setting.name.eq_ignore_ascii_case(&name))
            else {
                continue;
            };
            let memory = self.store.data().guest().memory;
            let bytes = memory.data_mut(&mut self.store);
            // A stronger source would keep its default.
            match was {
                Some((value, source)) => {
                    settings::weaken(bytes, setting.address);
                    self.set(&name, Some(&value), PGC_POSTMASTER, source as u32)
                        .await?;
                }
                None => {
                    settings::unlink(bytes, setting.address);
                    self.set(&name, None, PGC_POSTMASTER, 0).await?;
                }
            }
        }
        Ok(())
    }

    fn changed_settings(&self) -> Vec<settings::Setting> {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        settings::changed(memory, host.module.addresses.settings)
    }

    /// Tells the other processes whose session this is.
    fn tell_user(&mut self, user: u32) {
        let host = self.store.data();
        let addresses = host.module.addresses;
        let memory = host.guest().memory;
        let bytes = memory.data_mut(&mut self.store);
        let own = read_u32(bytes, addresses.my_proc);
        let status = read_u32(bytes, addresses.my_status);
        if status != 0 && own != 0 {
            let database = read_u32(bytes, own + PROC_DATABASE);
            write_u32(bytes, status + STATUS_DATABASE, database);
            write_u32(bytes, status + STATUS_USER, user);
        }
    }

    async fn restore_sequences(&mut self, sequences: &Sequences) -> Result<(), BackendError> {
        if sequences.is_empty() {
            return Ok(());
        }
        /// As in `sequence.c`: the key is an object id, `HASH_ELEM | HASH_BLOBS`.
        const CONTROL_BYTES: u32 = 48;
        const KEY_BYTES: u32 = 16;
        const ENTRY_BYTES: u32 = 20;
        const FLAGS: u32 = 40;
        const HASH_ENTER: u32 = 1;
        let addresses = self.store.data().module.addresses;
        let memory = self.store.data().guest().memory;
        let guard = self.begin().await?;
        let scratch = self.function::<u32, u32>("malloc", CONTROL_BYTES).await?;
        let name = self.c_string("Sequence values").await?;
        if scratch == 0 {
            return Err(BackendError::Crashed("out of memory".to_owned()));
        }
        let bytes = memory.data_mut(&mut self.store);
        if let Ok(control) = slice_mut(bytes, scratch, CONTROL_BYTES) {
            control.fill(0);
        }
        write_u32(bytes, scratch + KEY_BYTES, 4);
        write_u32(bytes, scratch + ENTRY_BYTES, SEQUENCE_BYTES);
        let table = self
            .function::<_, u32>("hash_create", (name, 16u32, scratch, FLAGS))
            .await?;
        write_u32(memory.data_mut(&mut self.store), addresses.sequences, table);
        for (index, saved) in sequences.entries.iter().enumerate() {
            let id = read_u32(saved, 0);
            write_u32(memory.data_mut(&mut self.store), scratch, id);
            let entry = self
                .function::<_, u32>("hash_search", (table, scratch, HASH_ENTER, scratch + 8))
                .await?;
            let bytes = memory.data_mut(&mut self.store);
            if let Ok(target) = slice_mut(bytes, entry, SEQUENCE_BYTES) {
                target.copy_from_slice(saved);
            }
            // No transaction of this process has locked it.
            write_u32(bytes, entry + SEQUENCE_LOCK, 0);
            if sequences.last == Some(index) && saved.get(SEQUENCE_VALID as usize) == Some(&1) {
                write_u32(bytes, addresses.last_sequence, entry);
            }
        }
        self.free(name).await?;
        self.free(scratch).await?;
        self.end(guard);
        Ok(())
    }

    /// The number by which Postgres knows this process: what `pg_backend_pid()` tells.
    pub fn process_id(&self) -> u32 {
        let host = self.store.data();
        let memory = host.guest().memory.data(&self.store);
        read_u32(memory, host.module.addresses.my_process_id)
    }

    /// Gives the process another number, that of its session.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended.
    pub async fn set_process_id(&mut self, id: u32) -> Result<(), BackendError> {
        let old = self.process_id();
        if old == id {
            return Ok(());
        }
        let guard = self.begin().await?;
        let addresses = self.store.data().module.addresses;
        let number = addresses.my_process_number;
        let (queue, states) = addresses.invalidations;
        let memory = self.store.data().guest().memory;
        let bytes = memory.data_mut(&mut self.store);
        let own = read_u32(bytes, addresses.my_proc);
        let queue = read_u32(bytes, queue) + states;
        let places = [
            addresses.my_process_id,
            own + PROC_PID,
            own + PROC_LATCH_OWNER,
            read_u32(bytes, addresses.my_signal_slot),
            read_u32(bytes, addresses.my_status) + STATUS_PID,
            queue + 16 * read_u32(bytes, number),
        ];
        write_u32(bytes, addresses.local_latch + LATCH_OWNER, id);
        for place in places {
            // Some of them are not in use in a process that is alone.
            if read_u32(bytes, place) == old {
                write_u32(bytes, place, id);
            }
        }
        if let Some(process) = &mut self.store.data_mut().process {
            process.rename(id);
        }
        self.end(guard);
        Ok(())
    }

    /// Whether another process has sent this one a signal, and it does nothing.
    pub fn is_signalled(&self) -> bool {
        self.interrupt.has_signals()
    }

    /// Takes the signals of other processes while the client has sent nothing: notifications of the channels
    /// that the session listens to are in the output then, if it is between two transactions.
    ///
    /// # Errors
    ///
    /// [`BackendError`] if the backend ended: a signal may ask for that.
    pub async fn take_signals(&mut self) -> Result<(), BackendError> {
        // Who does nothing is not cancelled.
        self.interrupt.forget_signals(SENT_CANCEL as u32);
        let guard = self.begin().await?;
        let taken = self.protected::<(), ()>("ProcessInterrupts", ()).await;
        let taken = taken.inspect_err(|error| self.has_ended(error))?;
        if let Protected::Done(()) = taken {
            let told = self.protected::<_, ()>(at::PROCESS_NOTIFY, 1u32).await?;
            if let Protected::Refused(error) = told {
                tracing::warn!(error = %String::from_utf8_lossy(&error), "a notification is lost");
            }
        }
        let flush = self.calls.flush.clone();
        flush.call_async(&mut self.store, ()).await.map_err(ended)?;
        self.end(guard);
        Ok(())
    }

    /// `SetConfigOption` where no error is expected.
    async fn set(
        &mut self,
        name: &str,
        value: Option<&str>,
        context: u32,
        source: u32,
    ) -> Result<(), BackendError> {
        match self.set_protected(name, value, context, source).await? {
            Protected::Done(()) => Ok(()),
            Protected::Refused(error) => {
                let error = String::from_utf8_lossy(&error).into_owned();
                Err(BackendError::Crashed(format!(
                    "{name} was not reset: {error}"
                )))
            }
        }
    }

    async fn set_protected(
        &mut self,
        name: &str,
        value: Option<&str>,
        context: u32,
        source: u32,
    ) -> Result<Protected<()>, BackendError> {
        let name = self.c_string(name).await?;
        let value = match value {
            Some(value) => self.c_string(value).await?,
            None => 0,
        };
        let outcome = self
            .protected::<_, ()>("SetConfigOption", (name, value, context, source))
            .await?;
        self.free(name).await?;
        self.free(value).await?;
        Ok(outcome)
    }

    /// Calls a function that may report an error, which is then handled as by Postgres' main loop: the
    /// transaction is rolled back.
    async fn protected<P: WasmParams + Sync, R: WasmResults + Sync>(
        &mut self,
        name: &str,
        params: P,
    ) -> Result<Protected<R>, BackendError> {
        let function: TypedFunc<P, R> = self.export(name)?;
        let stack = self.calls.stack_pointer.get(&mut self.store);
        enter(&mut self.store);
        let error = match function.call_async(&mut self.store, params).await {
            Ok(result) => return Ok(Protected::Done(result)),
            Err(error) => error,
        };
        if !matches!(error.downcast_ref(), Some(Exit::Status(STATUS_LONGJMP))) {
            return Err(ended(error));
        }
        let pointer = self.calls.stack_pointer;
        pointer.set(&mut self.store, stack).map_err(ended)?;
        let before = self.store.data().client.output.len();
        let (longjmp, ready, flush) = (
            self.calls.main_longjmp.clone(),
            self.calls.send_ready.clone(),
            self.calls.flush.clone(),
        );
        for call in [longjmp, ready, flush] {
            enter(&mut self.store);
            call.call_async(&mut self.store, ()).await.map_err(ended)?;
        }
        let said = self.store.data_mut().client.output.split_off(before);
        Ok(Protected::Refused(said.to_vec()))
    }

    async fn function<P: WasmParams + Sync, R: WasmResults + Sync>(
        &mut self,
        name: &str,
        params: P,
    ) -> Result<R, BackendError> {
        let function: TypedFunc<P, R> = self.export(name)?;
        enter(&mut self.store);
        function
            .call_async(&mut self.store, params)
            .await
            .map_err(ended)
    }

    /// A C string in memory of the guest, to be [freed](Self::free).
    async fn c_string(&mut self, text: &str) -> Result<u32, BackendError> {
        // What follows a NUL would be lost: a name or value with one is none.
        let text = text.split('\0').next().unwrap_or_default();
        let bytes = text.len() as u32 + 1;
        let place = self.function::<u32, u32>("malloc", bytes).await?;
        let memory = self.store.data().guest().memory;
        let target = slice_mut(memory.data_mut(&mut self.store), place, bytes);
        match target {
            Ok(target) if place != 0 => {
                target[..text.len()].copy_from_slice(text.as_bytes());
                target[text.len()] = 0;
                Ok(place)
            }
            _ => Err(BackendError::Crashed("out of memory".to_owned())),
        }
    }

    async fn free(&mut self, place: u32) -> Result<(), BackendError> {
        self.function::<u32, ()>("free", place).await
    }
}

/// A prepared statement as it can be prepared again.
fn prepared(memory: &[u8], name: String, source: u32, by_sql: bool) -> Option<PreparedStatement> {
    let mut sql = settings::text(memory, read_u32(memory, source + SOURCE_TEXT))?;
    if by_sql {
        // Of several statements in one query only its own.
        let tree = read_u32(memory, source + SOURCE_TREE);
        let start = read_u32(memory, tree + TREE_START) as i32;
        let bytes = read_u32(memory, tree + TREE_BYTES) as usize;
        if let Ok(start) = usize::try_from(start) {
            let end = match bytes {
                0 => sql.len(),
                bytes => start + bytes,
            };
            sql = sql.get(start..end)?.to_owned();
        }
    }
    let count = read_u32(memory, source + SOURCE_TYPE_COUNT).min(TYPES_MAX);
    let types = read_u32(memory, source + SOURCE_TYPES);
    Some(PreparedStatement {
        name,
        sql,
        parameter_types: (0..count)
            .map(|index| read_u32(memory, types + 4 * index))
            .collect(),
        by_sql,
    })
}
