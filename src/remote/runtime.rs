//! The thread that runs all asynchronous code, and blocking waits for its results.
//!
//! The rest of the program is blocking, uses no futures, and needs no runtime.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::remote::error::RemoteError;

/// A runtime on a separate thread. Clones share it; it ends with the last of them.
#[derive(Clone)]
pub(crate) struct Runtime(Arc<Inner>);

struct Inner {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Runtime {
    pub(crate) fn new() -> Result<Self, RemoteError> {
        let setup = |error: std::io::Error| RemoteError::Setup { why: error.to_string() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(setup)?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            let _ = runtime.block_on(stopped);
            // A name lookup that hangs must not block the end of the program.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name("network".into()).spawn(run).map_err(setup)?;
        Ok(Runtime(Arc::new(Inner { handle, stop: Some(stop), thread: Some(thread) })))
    }

    /// The handle for starting tasks. Tasks must not hold a [`Runtime`]: dropping it waits for the thread
    /// that they run on.
    pub(crate) fn handle(&self) -> &Handle {
        &self.0.handle
    }

    /// Runs a future on the runtime's thread and waits for its result.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, RemoteError> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.0.handle.spawn(async move {
            let _ = sender.send(future.await);
        });
        receiver.recv().map_err(|_| RemoteError::Setup { why: "the network thread has ended".into() })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
