//! The `repository.yaml` of scanners that download VEX repositories from a local web server. The text is for other
//! hosts.

use crate::dataset::catalogue::VEX_HUB;
use crate::scanner::settings::OURS;
use crate::scanner::vex_entry::CarriedRepository;
use crate::scanner::vex_yaml::entry_text;

/// The name under which the file is written for other hosts.
pub const FILE: &str = "vex-repository.yaml";

/// Returns the text of a `repository.yaml` that enables these repositories and disables VEX Hub on the
/// internet, because Trivy fails if it cannot reach an enabled repository (v0.74.0, `pkg/vex/repo/manager.go`).
pub fn repository_yaml(served: &[CarriedRepository]) -> String {
    let hub = CarriedRepository { name: "default".into(), url: VEX_HUB.into(), origin: None };
    let mut text = String::from_utf8_lossy(OURS).into_owned()
        + " each scanner needs it as .trivy/vex/repository.yaml in its XDG_DATA_HOME, else HOME.\n\
           # If the web server needs a login, add a username and a password, or a token.\n\
           repositories:\n";
    text.push_str(&entry_text(&hub, false, "  ", "\n"));
    text.extend(served.iter().map(|repository| entry_text(repository, true, "  ", "\n")));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vex_hub_is_disabled_and_the_local_server_is_enabled() {
        let served = CarriedRepository {
            name: "vex-hub".into(),
            url: "https://web.corp.example/vex/vex-hub".into(),
            origin: None,
        };
        let text = repository_yaml(&[served]);
        let wanted = "repositories:\n  - name: default\n    url: https://github.com/aquasecurity/vexhub\n    enabled: false\n";
        assert!(text.contains(wanted), "{text}");
        let wanted = "  - name: vex-hub\n    url: https://web.corp.example/vex/vex-hub\n    enabled: true\n    username: \"\"\n";
        assert!(text.contains(wanted), "{text}");
    }
}
