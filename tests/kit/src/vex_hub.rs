//! VEX Hub on a local web server: the manifest where Trivy looks for it, and the archive.

use crate::answers::{ok, status};
use crate::artifact::sample;
use crate::host::{json_file, read};
use crate::http::Server;

/// Starts the server. It ends when dropped.
#[must_use]
pub fn over_http() -> Server {
    let archive = read(sample("vex-hub/main.tar.gz"));
    let manifest = json_file(sample("vex-hub/vex-repository.json"));
    Server::new(move |seen| match seen.path.as_str() {
        "/.well-known/vex-repository.json" => {
            let mut manifest = manifest.clone();
            let url = format!("http://{}/main.tar.gz//vexhub-main", seen.host);
            manifest["versions"][0]["locations"][0]["url"] = url.into();
            ok(manifest.to_string())
        }
        "/main.tar.gz" => ok(archive.clone()),
        _ => status(404),
    })
}
