//! How connections end.

use std::sync::Weak;

use super::Pool;
use super::state::State;
use crate::server::Server;

impl Pool {
    /// Takes those that nobody has out of the account, to be closed.
    pub(super) fn take_idle(&self, state: &mut State) -> impl Iterator<Item = Box<Server>> + use<> {
        let idle = std::mem::take(&mut state.idle);
        for (_, server) in &idle {
            state.is_gone(server.number);
            self.connect_if_wanted(state);
        }
        idle.into_iter().map(|(_, server)| server)
    }

    /// A connection is no more, and nobody meant it to end.
    pub(super) fn lost(&self, number: usize) {
        // What the origin has acknowledged it may have lost with it.
        self.cache.drop_all();
        let mut state = self.state.lock();
        state.is_gone(number);
        self.connect_if_wanted(&mut state);
    }

    /// Closes what nobody has used for long, as long as there is something to close.
    pub(super) fn reap_later(&self) {
        let me = Weak::clone(&self.me);
        let idle = self.options().idle;
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(idle).await;
                let Some(me) = me.upgrade() else {
                    return;
                };
                let (old, is_done) = {
                    let mut state = me.state.lock();
                    let all = std::mem::take(&mut state.idle);
                    let (old, young): (Vec<_>, Vec<_>) = all
                        .into_iter()
                        .partition(|(since, _)| since.elapsed() >= idle);
                    state.idle = young;
                    old.iter()
                        .for_each(|(_, server)| state.is_gone(server.number));
                    // Whoever gives the next one back begins anew.
                    state.is_reaped = !state.idle.is_empty();
                    (old, state.idle.is_empty())
                };
                close_all(old.into_iter().map(|(_, server)| server));
                if is_done {
                    return;
                }
            }
        });
    }
}

pub(super) fn close_all(servers: impl IntoIterator<Item = Box<Server>>) {
    for server in servers {
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(server.close())),
            // Without a runtime the socket just closes, and the server sees its end.
            Err(_) => drop(server),
        }
    }
}
