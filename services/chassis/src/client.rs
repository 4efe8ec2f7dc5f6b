//! Who is at the other end of what is being done: the address that failed attempts to log in are counted by. Known inside
//! [`as_client`]; HTTP's requests are in one.

use std::future::Future;
use std::net::IpAddr;

tokio::task_local! {
    static CLIENT: IpAddr;
}

/// Does `work` for the client at `from`; nobody knows whom it is for, without.
pub async fn as_client<T>(from: Option<IpAddr>, work: impl Future<Output = T>) -> T {
    match from {
        Some(from) => CLIENT.scope(from, work).await,
        None => work.await,
    }
}

/// [`as_client`] for work that does not wait.
pub fn as_client_now<T>(from: Option<IpAddr>, work: impl FnOnce() -> T) -> T {
    match from {
        Some(from) => CLIENT.sync_scope(from, work),
        None => work(),
    }
}

/// The address of the client that something is being done for. Of a proxy its own: what it says of others is not believed.
#[must_use]
pub fn current_client() -> Option<IpAddr> {
    CLIENT.try_with(|from| *from).ok()
}
