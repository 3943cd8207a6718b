//! Logins for web servers, from the file `~/.netrc` of curl, git and Go. Trivy also reads it when it fetches
//! a VEX repository.
//!
//! This module parses the text of the file. It reads no file.

use reqwest::Url;

use crate::remote::login::credentials::Credentials;
use crate::util::text;

/// The login name that marks the password as a bearer token.
const TOKEN: &str = "<token>";

/// The entries of the file, in their order.
#[derive(Default)]
pub(crate) struct Netrc(Vec<Machine>);

#[derive(Default)]
struct Machine {
    /// A host, perhaps with a port; empty for `default`.
    name: String,
    login: String,
    password: String,
    /// Whether a value is missing. Such an entry is not used.
    is_broken: bool,
}

impl Netrc {
    /// Parses the text of the file, and returns a warning if an entry cannot be used. Unknown words are
    /// skipped.
    pub(super) fn parse(text: &str) -> (Self, Option<String>) {
        let mut machines: Vec<Machine> = Vec::new();
        let mut remark = None;
        let mut words = Words { rest: text };
        while let Some(word) = words.keyword() {
            match word.as_str() {
                "machine" => machines.push(Machine::default()),
                // The login of `default` is for any host, and often `anonymous`: a server that needs no login
                // would reject it.
                "default" => {
                    machines.push(Machine::default());
                    continue;
                }
                "login" | "password" | "account" => {}
                "macdef" => {
                    words.skip_macro();
                    continue;
                }
                _ => continue,
            }
            let line = 1 + text[..text.len() - words.rest.len()].matches('\n').count();
            let value = words.value();
            let Some(machine) = machines.last_mut() else { continue };
            match (word.as_str(), value) {
                ("machine", Some(value)) => machine.name = value,
                ("login", Some(value)) => machine.login = value,
                ("password", Some(value)) => machine.password = value,
                (_, Some(_)) => {}
                (key, None) => {
                    machine.is_broken = true;
                    let name = Some(text::escape(&machine.name)).filter(|name| !name.is_empty());
                    let entry =
                        name.map_or_else(|| "an entry".into(), |name| format!("the entry for {name}"));
                    remark.get_or_insert_with(|| {
                        format!("{entry} is skipped: `{key}` on line {line} has no usable value")
                    });
                }
            }
        }
        (Netrc(machines), remark)
    }

    /// Returns the login for a URL's host. An entry with the port takes precedence over one without.
    pub(crate) fn find(&self, url: &Url) -> Option<Credentials> {
        let host = url.host_str()?;
        let with_port = format!("{host}:{}", url.port_or_known_default()?);
        let named = |name: &str| self.0.iter().find(|machine| machine.name.eq_ignore_ascii_case(name));
        let machine = named(&with_port).or_else(|| named(host)).filter(|machine| !machine.is_broken)?;
        Some(match machine.login.as_str() {
            TOKEN => Credentials::Token(machine.password.clone()),
            name => Credentials::Password(name.to_owned(), machine.password.clone()),
        })
    }
}

const KEYWORDS: [&str; 6] = ["machine", "default", "login", "password", "account", "macdef"];

/// The words of the file, separated by blanks or in quotation marks.
struct Words<'t> {
    rest: &'t str,
}

impl Words<'_> {
    /// Returns the next word at a position where keywords and comments are allowed.
    fn keyword(&mut self) -> Option<String> {
        loop {
            self.rest = self.rest.trim_start();
            match self.rest.chars().next()? {
                '#' => self.rest = self.rest.split_once('\n').map_or("", |(_, rest)| rest),
                _ => return Some(self.word().unwrap_or_default()),
            }
        }
    }

    /// Returns the value of a keyword: a password may begin with `#` or be a keyword. If such a
    /// word is on another line, it is not the value, and the value is missing.
    fn value(&mut self) -> Option<String> {
        let value = self.rest.trim_start();
        let blanks = &self.rest[..self.rest.len() - value.len()];
        let first = value.split_whitespace().next()?;
        if blanks.contains('\n') && (first.starts_with('#') || KEYWORDS.contains(&first)) {
            return None;
        }
        self.rest = value;
        self.word()
    }

    /// Returns the next word. Quotation marks must close on the same line, and are parsed as in curl.
    fn word(&mut self) -> Option<String> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
            let (word, rest) = self.rest.split_at(end);
            self.rest = rest;
            return Some(word.to_owned());
        };
        let (line, below) = quoted.split_at(quoted.find('\n').unwrap_or(quoted.len()));
        self.rest = below;
        let mut word = String::new();
        let mut chars = line.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &quoted[at + 1..];
                    return Some(word);
                }
                '\\' => word.push(match chars.next()?.1 {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    other => other,
                }),
                c => word.push(c),
            }
        }
        None
    }

    /// Skips a macro, which ends with an empty line.
    fn skip_macro(&mut self) {
        let after_name = self.rest.trim_start();
        let end = after_name.split_inclusive('\n').scan(0, |at, line| {
            *at += line.len();
            Some((*at, line))
        });
        let mut ends = end.filter(|(_, line)| line.trim().is_empty());
        self.rest = ends.next().map_or("", |(at, _)| &after_name[at..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(netrc: &Netrc, url: &str) -> Option<String> {
        netrc.find(&url.parse().unwrap()).map(|credentials| match credentials {
            Credentials::Password(name, password) => format!("{name}:{password}"),
            Credentials::Token(token) => format!("bearer {token}"),
        })
    }

    #[test]
    fn logins_are_found_by_host_and_port() {
        let text = "# a comment with machine a.example login no\nmachine a.example\n\tlogin ann password s3#cret\n\
            machine b.example:8443 login b8443 password x machine b.example login b password \"with \\\" blank\"\n\
            macdef init\nmachine c.example login no password no\n\nmachine c.example login <token> password t0ken\n\
            machine d.example account x login d\n";
        let netrc = Netrc::parse(text).0;
        for (url, login) in [
            ("https://a.example/x", Some("ann:s3#cret")),
            ("https://A.example/x", Some("ann:s3#cret")),
            ("https://b.example:8443/", Some("b8443:x")),
            ("https://b.example/", Some("b:with \" blank")),
            ("https://c.example/", Some("bearer t0ken")),
            ("https://d.example/", Some("d:")),
            ("https://x.a.example/", None),
        ] {
            assert_eq!(shown(&netrc, url).as_deref(), login, "{url}");
        }
        let others =
            Netrc::parse("default login anonymous password me\nmachine a.example login a password b").0;
        assert!(others.find(&"https://z.example/".parse().unwrap()).is_none());
        assert!(others.find(&"https://a.example/".parse().unwrap()).is_some());
        for odd in ["", "machine", "machine x login", "\"", "login a", "macdef"] {
            assert!(Netrc::parse(odd).0.find(&"https://z.example/".parse().unwrap()).is_none(), "{odd}");
        }
    }

    /// A value is read as written, and a missing value is not replaced by that of another entry.
    #[test]
    fn no_entry_gets_a_value_of_another() {
        let below = "\nmachine b.example login bob password hers\n";
        for (above, login) in [
            ("machine a.example login ann password #hash", Some("ann:#hash")),
            ("machine a.example login ann password # not a comment", Some("ann:#")),
            ("machine a.example login #ann password s3cret # a comment", Some("#ann:s3cret")),
            ("machine a.example login default password machine", Some("default:machine")),
            ("machine a.example login login password macdef", Some("login:macdef")),
            ("machine a.example account #x login password password login", Some("password:login")),
            ("machine a.example login\n  ann\n  password\n  s3cret", Some("ann:s3cret")),
            ("machine\n\ta.example\n# a comment\nlogin ann#1\npassword\t\"\"", Some("ann#1:")),
            ("machine a.example login \"\" password \"#\\t\\\"x\"", Some(":#\t\"x")),
            ("machine a.example login \"machine\" password \"b c\"#", Some("machine:b c")),
            ("machine a.example login ann password", None),
            ("machine a.example login ann password\n# a comment", None),
            ("machine a.example login ann password\n\n", None),
            ("machine a.example login", None),
            ("machine a.example login\npassword s3cret", None),
            ("machine a.example login ann account", None),
            ("machine a.example login ann password \"s3cret", None),
            ("machine a.example login ann password \"s3cret\\", None),
        ] {
            for text in [format!("{above}{below}"), format!("{above}{below}").replace('\n', "\r\n")] {
                let (netrc, remark) = Netrc::parse(&text);
                assert_eq!(shown(&netrc, "https://a.example/").as_deref(), login, "{text:?}");
                assert_eq!(shown(&netrc, "https://b.example/").as_deref(), Some("bob:hers"), "{text:?}");
                assert_eq!(remark.is_some(), login.is_none(), "{text:?}: {remark:?}");
                let names_it = |remark: &String| remark.contains("a.example") && !remark.contains("s3cret");
                assert!(remark.as_ref().is_none_or(names_it), "{remark:?}");
            }
        }
        for end in ["password", "password ", "login\n", "password \"", "account", "login x password \"y\n"] {
            let (netrc, remark) = Netrc::parse(&format!("{below}machine a.example {end}"));
            assert_eq!(shown(&netrc, "https://a.example/"), None, "{end:?}");
            assert_eq!(shown(&netrc, "https://b.example/").as_deref(), Some("bob:hers"), "{end:?}");
            assert!(remark.unwrap().contains("the entry for a.example is skipped"), "{end:?}");
        }
        let (netrc, remark) = Netrc::parse(&format!("machine\nlogin ann password s3cret{below}"));
        assert_eq!(shown(&netrc, "https://b.example/").as_deref(), Some("bob:hers"));
        assert_eq!(remark.as_deref(), Some("an entry is skipped: `machine` on line 1 has no usable value"));
    }

    #[test]
    fn a_macro_ends_with_an_empty_line() {
        for text in [
            "macdef init\nmachine a.example login no password no\n\nmachine a.example login ann password x\n",
            "macdef init\r\nmachine a.example login no\r\n \r\nmachine a.example login ann password x\r\n",
            "machine a.example login ann password x macdef init\nput #\npassword no\n",
            "# macdef no\nmachine a.example login ann password x\nmacdef \"\n\n",
        ] {
            let (netrc, remark) = Netrc::parse(text);
            assert_eq!(shown(&netrc, "https://a.example/").as_deref(), Some("ann:x"), "{text:?}");
            assert_eq!(remark, None);
        }
    }
}
