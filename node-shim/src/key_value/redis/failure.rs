//! Errors of the crate `redis` and of servers as components see them. The text of a server never reaches a component,
//! because it may contain keys.

use node_shim_core::key_value::KeyValueError;
use redis::{ErrorKind, RedisError};

use super::flow::Flow;

pub(super) const LOST: KeyValueError = KeyValueError::Unavailable("the connection was lost");
pub(super) const INVALID: KeyValueError = KeyValueError::Unavailable("its reply is not valid");
const LOGIN: KeyValueError =
    KeyValueError::Denied("it refuses the user or the password of the Secret");

/// Returns the error of an operation on a connection.
pub(super) fn of_connection(error: &RedisError, flow: &Flow) -> KeyValueError {
    if flow.is_invalid() {
        return INVALID;
    }
    of(error)
}

fn of(error: &RedisError) -> KeyValueError {
    if let Some(code) = error.code() {
        return of_server(code, error.detail().unwrap_or_default());
    }
    match error.kind() {
        ErrorKind::AuthenticationFailed => LOGIN,
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => INVALID,
        _ => LOST,
    }
}

/// Returns the error that a server sent. Servers before version 7 put the code of an error in a script into its text.
fn of_server(code: &str, text: &str) -> KeyValueError {
    if code == "WRONGTYPE" || text.contains("WRONGTYPE") {
        return KeyValueError::NotAValue;
    }
    match code {
        "NOAUTH" | "WRONGPASS" => LOGIN,
        "NOPERM" => KeyValueError::Denied(
            "its user may not use the keys with the prefix, or the commands of key-value stores",
        ),
        "MOVED" | "ASK" | "CROSSSLOT" => {
            KeyValueError::Denied("it is part of a Redis cluster; use a single server")
        }
        "LOADING" => KeyValueError::Unavailable("it is loading its data"),
        "READONLY" => KeyValueError::Unavailable("it is a replica and accepts no writes"),
        "OOM" => KeyValueError::Unavailable("its memory is used up"),
        "MISCONF" => KeyValueError::Unavailable("it cannot save its data and accepts no writes"),
        "BUSY" => KeyValueError::Unavailable("it runs a script for too long"),
        _ if text.contains("would overflow") => KeyValueError::OutOfRange,
        _ if text.contains("not an integer") => KeyValueError::NotANumber,
        _ if text.contains("max number of clients") => {
            KeyValueError::Unavailable("it has its maximum number of clients")
        }
        _ if text.contains("DB index") => {
            KeyValueError::Denied("it has no database with the number in the URL")
        }
        _ => KeyValueError::Unavailable("it refuses the operation"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_servers_become_sentences_without_their_texts() {
        let table = [
            ("WRONGTYPE", "Operation against hunter2", "invalid"),
            (
                "ERR",
                "Error running script (call to f_1): @user_script:3: WRONGTYPE Operation",
                "invalid",
            ),
            ("ERR", "value is not an integer or out of range", "invalid"),
            ("ERR", "increment or decrement would overflow", "invalid"),
            ("NOAUTH", "Authentication required.", "denied"),
            (
                "NOPERM",
                "this user has no permissions to access one of the keys",
                "denied",
            ),
            (
                "CROSSSLOT",
                "Keys in request don't hash to the same slot",
                "denied",
            ),
            ("ERR", "DB index is out of range", "denied"),
            (
                "LOADING",
                "Redis is loading the dataset in memory",
                "unavailable",
            ),
            (
                "OOM",
                "command not allowed when used memory > 'maxmemory'",
                "unavailable",
            ),
            ("ERR", "max number of clients reached", "unavailable"),
            ("ERR", "unknown command 'hunter2'", "unavailable"),
        ];
        for (code, text, label) in table {
            let error = of_server(code, text);
            assert_eq!(error.label(), label, "{code} {text}");
            assert!(!error.to_string().contains("hunter2"));
        }
    }
}
