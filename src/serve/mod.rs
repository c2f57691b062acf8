//! A server with the OpenAI chat API and a chat page, for one model.
//!
//! One thread runs the sockets, another the engine. Clients may be hostile: headers, bodies, connections and waiting
//! requests have limits. When a client disconnects, its slot is free after the next token.

mod chat;
mod engine;
mod error;
mod json;
mod metrics;
mod openai;
mod recovery;
mod routes;
mod stall;

use crate::backend::Backend;
use crate::formats::ModelFile;
use crate::infer::{ChatTemplate, Engine, EngineOptions};
use crate::tokenizer::Tokenizer;
use crate::{Error, Result};
use engine::EngineHandle;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::Metrics;
#[doc(hidden)]
pub use openai::ChatRequest;
pub use recovery::{Recovery, Reopen};
use stall::Stalling;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use warp::filters::BoxedFilter;
use warp::reply::Response;

/// Time in which the header of a request must arrive. It also limits how long a connection may be idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest number of open connections. It is below 1024, the usual limit of open files of a process.
const CONNECTIONS: usize = 768;
/// Time in which a client must read some of the data that is sent to it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Time to tell clients that their sequences were cut off.
const FLUSH: Duration = Duration::from_secs(2);

/// Limits of a server.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Slots and context of the engine.
    pub engine: EngineOptions,
    /// How many requests may wait for a slot; further ones are refused. With 0, a request without a free slot is refused.
    pub queue: usize,
    /// Time that running sequences have to end after the server is told to stop.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options { engine: EngineOptions::default(), queue: 64, drain: Duration::from_secs(10) }
    }
}

/// The state that all requests share.
struct Served {
    id: String,
    /// Seconds since 1970.
    created: u64,
    tokenizer: Arc<Tokenizer>,
    template: ChatTemplate,
    vocab: usize,
    /// The largest number of tokens of a sequence.
    context: usize,
    engine: EngineHandle,
    metrics: Arc<Metrics>,
    draining: AtomicBool,
    /// Whether only this machine can connect.
    loopback: bool,
}

impl Served {
    fn draining(&self) -> bool {
        self.draining.load(Relaxed)
    }
}

/// Listens on a port; port 0 is any free one.
///
/// # Errors
/// When the address or the port cannot be used. The message says why.
pub fn listen(host: &str, port: u16) -> Result<TcpListener> {
    TcpListener::bind((host, port)).map_err(|e| {
        let why = match e.kind() {
            ErrorKind::AddrInUse => "another program uses this port; choose one with --port".to_string(),
            ErrorKind::PermissionDenied => "not permitted; ports below 1024 are for the system".to_string(),
            ErrorKind::AddrNotAvailable => "this machine does not have that address".to_string(),
            _ => e.to_string(),
        };
        Error::usage(format!("cannot listen on {host}:{port}: {why}"))
    })
}

/// A server that is ready to run.
pub struct Server {
    listener: TcpListener,
    served: Arc<Served>,
    drain: Duration,
}

impl Server {
    /// Loads a model onto a device. Clients know the model by `id`. `recovery` says what to do when the device fails.
    ///
    /// # Errors
    /// When the model has no tokenizer or no chat template that can be used, or does not fit the device.
    pub fn new(
        listener: TcpListener,
        file: &ModelFile,
        id: &str,
        backend: &Backend,
        recovery: Recovery,
        options: Options,
    ) -> Result<Server> {
        let lacks = |what: &str| Error::usage(format!("{id} has no {what}: it cannot chat"));
        let tokenizer = file.tokenizer()?.ok_or_else(|| lacks("tokenizer"))?;
        let template = ChatTemplate::new(&file.text, &tokenizer)?.ok_or_else(|| lacks("chat template"))?;
        let engine = Engine::new(file, backend, options.engine)?;
        let (context, metrics) = (engine.context(), Arc::new(Metrics::default()));
        let (device, sources) = (backend.describe(), recovery.sources(file, options.engine).collect());
        let served = Served {
            id: id.to_string(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            template,
            vocab: file.vocab,
            context,
            tokenizer: Arc::new(tokenizer),
            engine: EngineHandle::spawn(engine, device, sources, options.queue, Arc::clone(&metrics))?,
            metrics,
            draining: AtomicBool::new(false),
            loopback: listener.local_addr().is_ok_and(|a| a.ip().is_loopback()),
        };
        Ok(Server { listener, served: Arc::new(served), drain: options.drain })
    }

    /// The address on which the server listens.
    ///
    /// # Errors
    /// When the system does not know it.
    pub fn address(&self) -> Result<SocketAddr> {
        self.listener.local_addr().map_err(|e| Error::Device(format!("the socket has no address: {e}")))
    }

    /// Serves until `stop` is ready. Then new requests get 503, and running ones have the time [`Options::drain`] to end.
    ///
    /// # Errors
    /// When the system cannot provide the resources of a server.
    pub fn run(self, stop: impl Future<Output = ()>) -> Result<()> {
        let system = |e: std::io::Error| Error::Device(format!("the server cannot run: {e}"));
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().max_blocking_threads(2).build().map_err(system)?;
        let Server { listener, served, drain } = self;
        listener.set_nonblocking(true).map_err(system)?;
        let result = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            serve(listener, served, drain, stop).await;
            Ok(())
        });
        runtime.shutdown_timeout(Duration::from_secs(1));
        result.map_err(system)
    }
}

async fn serve(
    listener: tokio::net::TcpListener,
    served: Arc<Served>,
    time_to_end: Duration,
    stop: impl Future<Output = ()>,
) {
    let routes = routes::routes(Arc::clone(&served));
    let limit = Arc::new(Semaphore::new(CONNECTIONS));
    let (drain, draining) = watch::channel(false);
    // Every connection holds a sender, so the channel closes with the last connection.
    let (open, mut closed) = mpsc::channel::<()>(1);
    let mut stop = pin!(stop);
    let spawn = |(stream, permit), ending| {
        let held = Held { _permit: permit, metrics: Arc::clone(&served.metrics) };
        held.metrics.connections.fetch_add(1, Relaxed);
        tokio::spawn(connection(stream, routes.clone(), ending, held));
    };
    loop {
        tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &limit) => spawn(accepted, Some((draining.clone(), open.clone()))),
        }
    }
    served.draining.store(true, Relaxed);
    drain.send_replace(true);
    drop(open);
    let mut deadline = pin!(tokio::time::sleep(time_to_end));
    loop {
        tokio::select! {
            _ = closed.recv() => return,
            () = &mut deadline => break,
            accepted = accept(&listener, &limit) => spawn(accepted, None),
        }
    }
    served.engine.cut();
    let _ = tokio::time::timeout(FLUSH, closed.recv()).await;
}

/// What a connection holds until it closes.
struct Held {
    _permit: OwnedSemaphorePermit,
    metrics: Arc<Metrics>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.metrics.connections.fetch_sub(1, Relaxed);
    }
}

/// Accepts the next connection, once the limit allows it.
async fn accept(listener: &tokio::net::TcpListener, limit: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let permit = Arc::clone(limit).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, permit),
            // The client has disconnected already, or the process has no free file descriptor.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Serves a connection. With `ending`, the connection closes after its current request when the server drains.
async fn connection(
    stream: TcpStream,
    routes: BoxedFilter<(Response,)>,
    ending: Option<(watch::Receiver<bool>, mpsc::Sender<()>)>,
    _held: Held,
) {
    let _ = stream.set_nodelay(true);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 << 10)
        .serve_connection(
            TokioIo::new(Stalling::new(stream, WRITE_TIMEOUT)),
            TowerToHyperService::new(warp::service(routes)),
        );
    let mut connection = pin!(connection);
    if let Some((mut draining, _open)) = ending {
        tokio::select! {
            _ = connection.as_mut() => return,
            _ = draining.wait_for(|draining| *draining) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = connection.await;
    } else {
        let _ = connection.await;
    }
}
