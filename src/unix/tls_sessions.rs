//! TLS sessions that a client has had, so that the next one with the same peer costs less.
//!
//! Here, and not with the other TLS rooms, since the library takes a session back only on the
//! caller's word that it belongs to the same context. This type keeps that word: a session that is
//! taken up came from the very context that it is given to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{Ssl, SslConnectorBuilder, SslContext, SslSession, SslSessionCacheMode};

/// Most peers whose sessions are remembered.
const MAX_PEERS: usize = 2000;

/// A context for clients, with what its peers have given for the next time.
pub struct Sessions {
    context: SslContext,
    /// At a connection: the name of its peer.
    peer: Index<Ssl, String>,
    kept: Arc<Mutex<HashMap<String, SslSession>>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").finish_non_exhaustive()
    }
}

impl Sessions {
    /// Makes the context, which remembers its sessions from then on.
    pub fn new(mut builder: SslConnectorBuilder) -> Result<Sessions, ErrorStack> {
        let peer: Index<Ssl, String> = Ssl::new_ex_index()?;
        let kept: Arc<Mutex<HashMap<String, SslSession>>> = Arc::default();
        let keep = Arc::clone(&kept);
        builder.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
        builder.set_new_session_callback(move |ssl, session| {
            let Some(peer) = ssl.ex_data(peer) else { return };
            let mut kept = keep.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() >= MAX_PEERS {
                // They are worth a few milliseconds each, and not a list of who was last.
                kept.clear();
            }
            kept.insert(peer.clone(), session);
        });
        Ok(Sessions { context: builder.build().into_context(), peer, kept })
    }

    /// A new connection with `peer`, which takes up the last session, if there is one. A session is
    /// used once (RFC 8446 C.4). `peer` names all that a session must not be used across: the host,
    /// and what was asked of its certificate.
    pub fn begin(&self, peer: &str) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_ex_data(self.peer, peer.to_string());
        let last = self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(peer);
        if let Some(session) = last {
            // SAFETY: the sessions in `kept` were made by connections of `self.context`, whose callback
            // is the only one to put any there; and `ssl` is one of that context.
            unsafe { ssl.set_session(&session)? };
        }
        Ok(ssl)
    }
}
