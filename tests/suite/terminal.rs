//! Passphrases on a terminal: they are not shown, and the settings of the terminal are restored.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use rustix::io::ioctl_fionbio;
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Termios, tcgetattr};
use test_kit::process::{ended, wait_for};

use crate::forge::{Bundle, Host, Part, hours};

/// A terminal, and a program that has it as its controlling terminal.
struct Terminal {
    /// The side of the user.
    person: File,
    /// The program's side.
    line: File,
    program: Child,
    /// The modes before the program started, which may change them at once.
    before: Termios,
    shown: String,
}

impl Terminal {
    fn of(command: &Command) -> Self {
        let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        ioctl_fionbio(&person, true).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let line = File::from(ioctl_tiocgptpeer(&person, flags).unwrap());
        let before = tcgetattr(&line).unwrap();
        let program = Command::new("/usr/bin/setsid")
            .arg("--ctty")
            // A shell that starts the tests in the background makes them ignore interrupts.
            .args(["/usr/bin/env", "--default-signal=INT"])
            .arg(command.get_program())
            .args(command.get_args())
            .env_clear()
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .current_dir(command.get_current_dir().unwrap())
            .stdin(line.try_clone().unwrap())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Terminal { person: person.into(), line, program, before, shown: String::new() }
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.line).unwrap()
    }

    fn look(&mut self) {
        let mut bytes = [0; 256];
        if let Ok(count) = self.person.read(&mut bytes) {
            self.shown += std::str::from_utf8(&bytes[..count]).unwrap();
        }
    }

    /// Waits until the prompt is shown, and types the keys.
    #[track_caller]
    fn answer(&mut self, prompt: &str, keys: &[u8]) {
        wait_for(prompt, || {
            self.look();
            self.shown.ends_with(prompt).then_some(())
        });
        assert!(!self.modes().local_modes.contains(LocalModes::ECHO));
        self.person.write_all(keys).unwrap();
    }
}

#[test]
fn a_passphrase_is_asked_for_without_an_echo() {
    let host = Host::new();
    let mut command = host.command();
    command.args(["keygen", "--name", &host.at("typed"), "--encrypt"]);
    let mut terminal = Terminal::of(&command);
    terminal.answer("Passphrase for the new key: ", b"rigth\x7f\x7fht\tone\n");
    terminal.answer("Repeat it: ", b"right\tone\n");
    assert!(ended(&mut terminal.program).success(), "{}", terminal.shown);
    terminal.look();
    assert_eq!(terminal.shown, "Passphrase for the new key: \r\nRepeat it: \r\n");
    let after = terminal.modes();
    assert_eq!(format!("{after:?}"), format!("{:?}", terminal.before));
    let pem = fs::read_to_string(host.path("typed.key")).unwrap();
    assert!(trivy_ferry::trust::key::SigningKey::from_pem(&pem, Some("right\tone")).is_ok());
}

#[test]
fn an_interrupt_at_the_prompt_restores_the_echo() {
    let host = Host::new();
    let mut command = host.command();
    command.args(["keygen", "--name", &host.at("typed"), "--encrypt"]);
    let mut terminal = Terminal::of(&command);
    terminal.answer("Passphrase for the new key: ", b"ri\x03");
    let status = ended(&mut terminal.program);
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()), "{status:?}");
    terminal.look();
    assert_eq!(terminal.shown, "Passphrase for the new key: \r\n");
    assert_eq!(format!("{:?}", terminal.modes()), format!("{:?}", terminal.before));
    assert!(!host.path("typed.key").exists());
}

#[test]
fn a_wrong_passphrase_can_be_typed_again() {
    let host = Host::new();
    let other = trivy_ferry::trust::key::SigningKey::generate().unwrap();
    let path = host.file("keys/other.key", other.to_pem(Some("right")).unwrap().as_bytes());
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let sign = |keys: &[&[u8]]| {
        let bundle = Bundle::of(hours(-1), &[Part::db(hours(-2))]).signed(&host.key);
        let bundle = host.file("b.tar", bundle);
        let mut command = host.command();
        command.args(["sign", bundle.to_str().unwrap(), "--key", path.to_str().unwrap()]);
        command.args(["--trust", &host.at("keys/exporter.pub")]);
        let mut terminal = Terminal::of(&command);
        for (number, typed) in keys.iter().enumerate() {
            let again = if number > 0 { "Wrong passphrase. " } else { "" };
            terminal.answer(&format!("{again}Passphrase for {}: ", path.display()), typed);
            // The next prompt may have the same text.
            terminal.shown.clear();
        }
        ended(&mut terminal.program)
    };
    assert!(sign(&[b"wrong\n", b"rihgt\n", b"right\n"]).success());
    assert_eq!(sign(&[b"wrong\n", b"wrong\n", b"wrong\n"]).code(), Some(2), "only 3 attempts are allowed");
    // An interrupt at the second prompt ends the program.
    assert_eq!(sign(&[b"wrong\n", b"\x03"]).signal(), Some(Signal::INT.as_raw()));
}
