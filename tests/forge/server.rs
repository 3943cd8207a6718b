//! The web server of the tests that need a bad one.

use axum::Router;
use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use tokio::sync::oneshot;

/// Serves on a free loopback port until the sender is dropped. Says where.
pub fn serve(app: Router) -> (String, oneshot::Sender<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (stop, stopped) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let serve = async { axum::serve(listener, app).await };
            tokio::select! { _ = serve => {}, _ = stopped => {} }
        });
    });
    (host, stop)
}

/// An answer without a body.
pub fn status(code: u16) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

/// The same answer with a further header.
pub fn header(mut response: Response, name: &'static str, value: &str) -> Response {
    response.headers_mut().insert(name, value.parse().unwrap());
    response
}
