//! What contradicts itself in `auth` and `accept_any` of a `[[listener]]`.

use super::file::Reader;
use super::{Engine, Listener, ListenerAuth};

/// Faults and warnings go to `reader`; `path` is that of the listener.
pub(super) fn check(reader: &mut Reader<'_>, path: &str, listener: &Listener) {
    let at = |key: &str| format!("{path}.{key}");
    let (local, has_tls) = (listener.address.is_local(), reader.has(&at("tls")));
    // Users that could not be read are told of themselves.
    let unread = reader.lacks("user");
    if listener.accept_any {
        let fault = match () {
            () if !local => Some(format!(
                "{} can be reached by others, who would be told that any password is right: expected a loopback address, or \
                 a [[user]] for the application",
                listener.address
            )),
            () if listener.auth == ListenerAuth::Required => {
                Some("contradicts auth = \"required\": nobody could ever have logged in".to_owned())
            }
            () if listener.auth == ListenerAuth::Off => Some(
                "contradicts auth = \"off\" (engine \"mailin\" has no other): expected auth = \"offered\"".to_owned(),
            ),
            () => None,
        };
        if let Some(message) = fault {
            reader.fault(&at("accept_any"), message);
        }
    }
    let asked = reader.has(&at("auth")) && listener.auth != ListenerAuth::Off;
    if asked && listener.engine == Engine::Mailin {
        reader.fault(&at("auth"), "engine \"mailin\" knows no AUTH: expected engine = \"native\" with auth".into());
    } else if asked && listener.users.is_empty() && !listener.accept_any && !unread {
        reader.fault(&at("auth"), "nobody could log in: expected a [[user]] or `users`".into());
    } else if asked && !local && !has_tls {
        let message =
            "passwords are taken over TLS, and in clear text from this machine only: expected `tls` beside it";
        match listener.auth {
            ListenerAuth::Required => reader.fault(&at("auth"), message.into()),
            _ => reader.warn(&at("auth"), message.into()),
        }
    }
    if reader.has(&at("tls.client_ca")) && !unread {
        if listener.auth == ListenerAuth::Off && !listener.users.is_empty() {
            reader.fault(
                &at("tls.client_ca"),
                "contradicts auth = \"off\": whose certificate is known has logged in".into(),
            );
        } else if !listener.users.have_certificates() {
            let message = "a certificate makes nobody a user yet: expected a [[user]] with `certificate`";
            reader.warn(&at("tls.client_ca"), message.into());
        }
    }
    if listener.auth_old_line && listener.auth == ListenerAuth::Off {
        reader.warn(&at("auth_old_line"), "has no effect: nobody can log in here".into());
    }
}
