//! Loading the library, starting the client's network once, stopping it at the end of the process.

use std::ffi::{CString, c_char, c_int};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use foundationdb::Database;
use foundationdb::api::{FdbApiBuilder, NetworkStop};
use thiserror::Error;

/// Names the client library, where it is not found by itself.
const LIBRARY_VARIABLE: &str = "BIGPEER_FDB_LIBRARY";
/// Where it is looked for, in this order.
const LIBRARIES: [&str; 3] = ["libfdb_c.so", "/usr/lib/libfdb_c.so", "/usr/local/lib/libfdb_c.so"];

/// Why the client cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ClientError {
    /// The client library cannot be opened.
    #[error(
        "FoundationDB's client library cannot be opened ({reason}); install the package foundationdb-clients of version \
         7.3, or name the file in BIGPEER_FDB_LIBRARY"
    )]
    Library {
        /// What the operating system says.
        reason: String,
    },
    /// The client cannot be started.
    #[error("FoundationDB's client cannot be started: {reason}")]
    Start {
        /// What it says.
        reason: String,
    },
    /// The cluster file cannot be used.
    #[error("the cluster file {file} cannot be used: {reason}")]
    ClusterFile {
        /// Which file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[allow(unsafe_code, reason = "the loader in our own shim")]
unsafe extern "C" {
    fn bigpeer_fdb_load(path: *const c_char, reason: *mut c_char, capacity: usize) -> c_int;
}

/// Opens the cluster that a cluster file names. Loads the library and starts its network the first time.
///
/// # Errors
/// [`ClientError`]. Whether the cluster answers is only seen later.
pub fn open(cluster_file: &Path) -> Result<Database, ClientError> {
    let unusable = |reason: String| ClientError::ClusterFile { file: cluster_file.display().to_string(), reason };
    // The client would wait for ever.
    let content = std::fs::read_to_string(cluster_file).map_err(|error| unusable(error.to_string()))?;
    if !content.contains('@') {
        return Err(unusable("it does not hold a line DESCRIPTION:ID@HOST:PORT,…".to_owned()));
    }
    let path = cluster_file.to_str().filter(|path| !path.contains('\0'));
    let path = path.ok_or_else(|| unusable("its name is not text".to_owned()))?;
    start()?;
    Database::from_path(path).map_err(|error| unusable(error.message().to_owned()))
}

/// The network as it is: it can be started once in a process.
enum Network {
    Untouched,
    Running(NetworkStop, JoinHandle<()>),
    Ended(ClientError),
}

static NETWORK: Mutex<Network> = Mutex::new(Network::Untouched);

fn network() -> MutexGuard<'static, Network> {
    NETWORK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start() -> Result<(), ClientError> {
    let mut network = network();
    match &*network {
        Network::Running(..) => return Ok(()),
        Network::Ended(error) => return Err(error.clone()),
        Network::Untouched => {}
    }
    load()?;
    match run() {
        Ok((stop, thread)) => {
            *network = Network::Running(stop, thread);
            Ok(())
        }
        Err(reason) => {
            let error = ClientError::Start { reason };
            *network = Network::Ended(error.clone());
            Err(error)
        }
    }
}

/// Opens the library. May be tried again when it failed.
fn load() -> Result<(), ClientError> {
    let named = std::env::var(LIBRARY_VARIABLE).ok();
    let candidates = named.as_deref().map_or_else(|| LIBRARIES.to_vec(), |named| vec![named]);
    let mut reasons = Vec::new();
    for candidate in candidates {
        match load_one(candidate) {
            Ok(()) => return Ok(()),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(ClientError::Library { reason: reasons.join("; ") })
}

#[allow(unsafe_code, reason = "a call of the loader in our own shim")]
fn load_one(path: &str) -> Result<(), String> {
    let path = CString::new(path).map_err(|error| error.to_string())?;
    let mut reason = [0_u8; 512];
    // SAFETY: the path ends in a zero, and the loader writes at most `reason.len()` bytes, the last of which is a zero.
    let failed = unsafe { bigpeer_fdb_load(path.as_ptr(), reason.as_mut_ptr().cast(), reason.len()) };
    if failed == 0 {
        return Ok(());
    }
    let end = reason.iter().position(|byte| *byte == 0).unwrap_or(reason.len());
    Err(String::from_utf8_lossy(reason.get(..end).unwrap_or_default()).into_owned())
}

/// Starts the network in a thread. The table is filled.
#[allow(unsafe_code, reason = "the client demands that its network is stopped before the process exits")]
fn run() -> Result<(NetworkStop, JoinHandle<()>), String> {
    let builder = FdbApiBuilder::default().build().map_err(|error| error.message().to_owned())?;
    let (runner, started) = builder.build().map_err(|error| error.message().to_owned())?;
    // SAFETY: a function without arguments that does not unwind.
    if unsafe { libc::atexit(stop_at_exit) } != 0 {
        return Err("the end of the process cannot be prepared".to_owned());
    }
    let thread = std::thread::Builder::new()
        .name("fdb-network".to_owned())
        .spawn(move || {
            // SAFETY: stopped by `stop_at_exit`, which was registered before.
            // An error shows in every operation: there is nobody here to tell.
            let _ = unsafe { runner.run() };
        })
        .map_err(|error| error.to_string())?;
    Ok((started.wait(), thread))
}

/// Stops the network and waits for its thread, before the library's own cleaning up.
extern "C" fn stop_at_exit() {
    let ended = ClientError::Start { reason: "the process is ending".to_owned() };
    let Network::Running(stop, thread) = std::mem::replace(&mut *network(), Network::Ended(ended)) else { return };
    if stop.stop().is_ok() {
        // A panic of the thread changes nothing now.
        let _ = thread.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_and_a_wrong_one_are_told() {
        let reason = load_one("/nowhere/libfdb_c.so").unwrap_err();
        assert!(reason.contains("/nowhere/libfdb_c.so"), "{reason}");
        let reason = load_one("libc.so.6").unwrap_err();
        assert!(reason.contains("fdb_create_database"), "{reason}");
        assert!(load_one("with\0zero").is_err());
    }

    #[test]
    fn a_cluster_file_that_is_none_is_told_before_anything_is_loaded() {
        let error = open(Path::new("/nowhere/fdb.cluster")).err().unwrap();
        assert!(error.to_string().contains("/nowhere/fdb.cluster"), "{error}");
        let error = open(Path::new("Cargo.toml")).err().unwrap();
        assert!(matches!(error, ClientError::ClusterFile { .. }));
    }
}
