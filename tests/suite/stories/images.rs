//! A site carries images and other artifacts together with the data.

use std::fs;

use test_kit::artifact::{Artifact, flags_of, laid_out};
use test_kit::real::Registry;
use test_kit::tools;

use crate::stories::serve::Serve;
use crate::stories::{bare, equipped};

/// Starts upstream's registry with `aquasec/trivy:0.74.0`, an index of two platforms that share a layer, and
/// `custom/checks:1`, a plain artifact.
fn upstream(tools: &str) -> Registry {
    let registry = Registry::distribution(tools, None);
    let at = |name: &str| registry.publisher.at(name);
    for (name, text) in [("base", "base"), ("one", "one"), ("two", "two")] {
        fs::write(at(name), text.repeat(100_000)).unwrap();
        registry.publisher.sh(&format!("tar cf {name}.tar {name}")).exits(0);
    }
    let address = &registry.address;
    let image = format!("{address}/aquasec/trivy");
    for (platform, layer) in [("linux/amd64", "one"), ("linux/arm64", "two")] {
        let tag = platform.replace('/', "-");
        registry
            .publisher
            .sh(&format!(
                "crane append --insecure --platform {platform} -f base.tar -f {layer}.tar -t {image}:{tag} && \
                 crane mutate --insecure --set-platform {platform} {image}:{tag} -t {image}:{tag}"
            ))
            .exits(0);
    }
    registry
        .publisher
        .sh(&format!(
            "crane index append --insecure -m {image}:linux-amd64 -m {image}:linux-arm64 -t {image}:0.74.0"
        ))
        .exits(0);
    registry
        .publisher
        .sh(&format!("regctl artifact put --artifact-type x/y --file base {address}/custom/checks:1"))
        .exits(0);
    registry
}

/// The images of that registry, and their references at a site.
const PLACES: [(&str, &str); 2] = [
    ("aquasec/trivy:0.74.0", "docker.io/aquasec/trivy:0.74.0"),
    ("custom/checks:1", "ghcr.io/custom/checks:1"),
];

/// Returns the flags for images of that registry under their public names.
fn carried(upstream: &Registry) -> String {
    let address = &upstream.address;
    format!(
        "--image aquasec/trivy:0.74.0={address}/aquasec/trivy:0.74.0 --image ghcr.io/custom/checks:1={address}/custom/checks:1"
    )
}

#[test]
#[ignore = "tools"]
fn images_are_carried_with_the_datasets_and_keep_their_digests() {
    let tools = tools();
    let upstream = upstream(&tools);
    let laptop = equipped(&tools);
    let (_, public) = laptop.keygen();
    let out = laptop.dir("out");
    let bundle = laptop.export(&out, &format!("{} {}", laid_out(&laptop), carried(&upstream)));
    laptop
        .ferry(&format!("verify {bundle} --trust {public}"))
        .exits(0)
        .prints("docker.io/aquasec/trivy:0.74.0");
    laptop.ferry(&format!("inspect {bundle} --trust {public}")).exits(0).prints("ghcr.io/custom/checks:1");
    // Other tools find them in the layout.
    let layout = laptop.dir("layout");
    laptop
        .sh(&format!("tar xf {bundle} -C {layout} && cd {layout} && sha256sum --quiet -c SHA256SUMS"))
        .exits(0);
    let name = "docker.io-aquasec-trivy-0.74.0";
    laptop
        .sh(&format!("skopeo inspect --raw oci:{layout}:{name} >raw && sha256sum raw"))
        .exits(0)
        .prints(upstream.digest_of("aquasec/trivy:0.74.0").strip_prefix("sha256:").unwrap());

    let importer = bare();
    let registry = Registry::distribution(&tools, None);
    let import =
        format!("import {bundle} --trust {public} --registry {}/mirror --format json", registry.address);
    let statuses = |run: &test_kit::process::Run| -> Vec<String> {
        let images = run.target(0)["images"].clone();
        images.as_array().unwrap().iter().map(|image| image["status"].as_str().unwrap().to_owned()).collect()
    };
    // Only requested images are pushed.
    assert_eq!(statuses(importer.ferry(&import).exits(0)), ["not-requested", "not-requested"]);
    registry.publisher.sh(&format!("crane ls --insecure {}/mirror/custom/checks", registry.address)).fails();
    let requested = format!("{import} --image aquasec/*,ghcr.io/custom/checks:1");
    assert_eq!(statuses(importer.ferry(&requested).exits(0)), ["pushed", "pushed"]);
    for (name, place) in PLACES {
        assert_eq!(registry.digest_of(&format!("mirror/{place}")), upstream.digest_of(name), "{name}");
    }
    // Every platform is complete: crane downloads and verifies each layer.
    for platform in ["linux/amd64", "linux/arm64"] {
        let pull = format!(
            "crane pull --insecure --platform {platform} {}/mirror/docker.io/aquasec/trivy:0.74.0 pulled.tar && crane validate --tarball pulled.tar",
            registry.address
        );
        registry.publisher.sh(&pull).exits(0);
    }
    assert_eq!(statuses(importer.ferry(&requested).exits(0)), ["unchanged", "unchanged"]);
    let db = importer.ferry(&format!("{import} --only trivy-db"));
    db.exits(0);
    assert_eq!(
        (db.statuses(), statuses(&db)),
        (vec!["trivy-db unchanged".into()], vec!["not-requested".to_owned(), "not-requested".into()])
    );
    // Only one of the images is pushed, into an empty registry.
    let other = Registry::crane(&tools);
    let import = import.replace(&registry.address, &other.address);
    let one = importer.ferry(&format!("{import} --only trivy-db --image ghcr.io/custom/checks:1"));
    one.exits(0);
    assert_eq!(statuses(&one), ["not-requested", "pushed"]);
    assert_eq!(other.digest_of("mirror/ghcr.io/custom/checks:1"), upstream.digest_of("custom/checks:1"));
    importer.ferry(&format!("{import} --image a/b:1")).exits(2).warns("no bundle here holds an image a/b:1");
    // With a chosen reference, the site's own tag is kept until a flag replaces it.
    let own = format!(
        "crane copy --insecure {}/aquasec/trivy:0.74.0 {}/tools/checks:1",
        upstream.address, other.address
    );
    other.publisher.sh(&own).exits(0);
    let chosen = format!("{import} --image ghcr.io/custom/checks:1={}/tools/checks:1", other.address);
    importer.ferry(&chosen).exits(5).warns("which trivy-ferry did not set");
    assert_eq!(other.digest_of("tools/checks:1"), upstream.digest_of("aquasec/trivy:0.74.0"));
    importer.ferry(&format!("{chosen} --replace-image-tags")).exits(0);
    assert_eq!(other.digest_of("tools/checks:1"), upstream.digest_of("custom/checks:1"));
    // Without a registry, `serve` has them too.
    let flags = "--listen 127.0.0.1:0 --image aquasec/*,ghcr.io/custom/checks:1";
    let serve = Serve::start(&importer, &format!("{bundle} --trust {public} {flags}"));
    for (name, place) in PLACES {
        let digest = format!("crane digest --insecure {}/{place}", serve.address);
        let digest = registry.publisher.sh(&digest);
        digest.exits(0);
        assert_eq!(digest.out.trim(), upstream.digest_of(name), "{name}");
    }
    let pull = format!(
        "crane pull --insecure --platform linux/arm64 {}/docker.io/aquasec/trivy:0.74.0 served.tar",
        serve.address
    );
    registry.publisher.sh(&format!("{pull} && crane validate --tarball served.tar")).exits(0);
    drop(serve);
    // A cache cannot hold images, so they are skipped.
    let cache = importer.dir("cache");
    importer
        .ferry(&format!("import {bundle} --trust {public} --cache-dir {cache}"))
        .exits(0)
        .prints("are for a registry");
}

#[test]
#[ignore = "tools"]
fn one_platform_is_carried_without_the_others() {
    let tools = tools();
    let upstream = upstream(&tools);
    let laptop = bare();
    let (_, public) = laptop.keygen();
    let flags = format!("--skip trivy-db,trivy-java-db,trivy-checks,vex-hub {}", carried(&upstream));
    let export = |platform: &str| {
        laptop.export(
            &laptop.dir(platform.rsplit('/').next().unwrap()),
            &format!("{flags} --platform {platform}"),
        )
    };
    let bundle = export("linux/arm64");
    let registry = Registry::crane(&tools);
    let importer = bare();
    importer
        .ferry(&format!("import {bundle} --trust {public} --registry {} --image *", registry.address))
        .exits(0);
    let trivy = "docker.io/aquasec/trivy:0.74.0";
    assert_eq!(registry.digest_of(trivy), upstream.digest_of("aquasec/trivy:linux-arm64"));
    // An artifact without a platform is carried unchanged.
    assert_eq!(registry.digest_of("ghcr.io/custom/checks:1"), upstream.digest_of("custom/checks:1"));
    let line = format!("export --key ferry.key --output {} {flags} --platform plan9/mips", laptop.dir("x"));
    laptop.ferry(&line).exits(3).warns("nothing for plan9/mips, only for linux/amd64, linux/arm64");
    laptop
        .ferry(&format!("{line} --dry-run").replace(" --platform plan9/mips", ""))
        .exits(0)
        .prints("Would fetch");
}

#[test]
#[ignore = "tools"]
fn a_changed_damaged_or_unavailable_image_does_not_affect_other_data() {
    let tools = tools();
    let upstream = upstream(&tools);
    let laptop = bare();
    let (_, public) = laptop.keygen();
    let out = laptop.dir("out");
    let missing = format!("{}/aquasec/none:1", upstream.address);
    let upstreams = laid_out(&laptop);
    laptop
        .ferry(&format!(
            "export --key ferry.key --output {out} {upstreams} --require all --image a/b:1={missing}"
        ))
        .exits(3)
        .warns("aquasec/none:1");
    assert!(test_kit::host::files(&out).is_empty());
    let bundle = laptop.export(&out, &format!("{} {}", flags_of(&laptop.at("upstream")), carried(&upstream)));
    // One bit of the last layer, which belongs to an image.
    let mut bytes = fs::read(&bundle).unwrap();
    let at = bytes.len() - 2000;
    bytes[at] ^= 1;
    fs::write(&bundle, bytes).unwrap();
    let registry = Registry::distribution(&tools, None);
    let importer = bare();
    let run = importer
        .ferry(&format!("import {bundle} --trust {public} --registry {} --image *", registry.address));
    run.exits(4).warns("does not match the signed manifest");
    assert_eq!(registry.digest_of("trivy-db:2"), Artifact::db().digest(), "{run}");
    let tags = format!("crane ls --insecure {}/ghcr.io/custom/checks", registry.address);
    registry.publisher.sh(&tags).fails();
    for (name, place) in &PLACES[..1] {
        assert_eq!(registry.digest_of(place), upstream.digest_of(name), "the other image is good");
    }
}
