//! Logins for web servers, from the file that curl, git and Go know as `~/.netrc`. Trivy reads it too when it fetches
//! a VEX repository.

use reqwest::Url;

use crate::remote::login::credentials::Credentials;

/// The name in place of which the password is a bearer token.
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
}

impl Netrc {
    /// Reads the text of the file. Words that are not known are skipped.
    pub(super) fn parse(text: &str) -> Self {
        let mut machines: Vec<Machine> = Vec::new();
        let mut words = Words(text);
        while let Some(word) = words.next() {
            match word.as_str() {
                "machine" => {
                    machines.push(Machine { name: words.next().unwrap_or_default(), ..Machine::default() })
                }
                // Its login is for no host in particular, often `anonymous`: a server that needs none would refuse it.
                "default" => machines.push(Machine::default()),
                "macdef" => words.skip_paragraph(),
                key @ ("login" | "password" | "account") => {
                    let value = words.next().unwrap_or_default();
                    match (machines.last_mut(), key) {
                        (Some(machine), "login") => machine.login = value,
                        (Some(machine), "password") => machine.password = value,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Netrc(machines)
    }

    /// Returns the login for a URL's host: that of its entry with the port, else without.
    pub(crate) fn find(&self, url: &Url) -> Option<Credentials> {
        let host = url.host_str()?;
        let with_port = format!("{host}:{}", url.port_or_known_default()?);
        let named = |name: &str| self.0.iter().find(|machine| machine.name.eq_ignore_ascii_case(name));
        let machine = named(&with_port).or_else(|| named(host))?;
        Some(match machine.login.as_str() {
            TOKEN => Credentials::Token(machine.password.clone()),
            name => Credentials::Password(name.to_owned(), machine.password.clone()),
        })
    }
}

/// The words of the file: between blanks, or in quotation marks.
struct Words<'t>(&'t str);

impl Words<'_> {
    fn next(&mut self) -> Option<String> {
        loop {
            self.0 = self.0.trim_start();
            if !self.0.starts_with('#') {
                break;
            }
            self.0 = self.0.split_once('\n').map_or("", |(_, rest)| rest);
        }
        let is_quoted = self.0.starts_with('"');
        let mut word = String::new();
        let mut chars = self.0.char_indices().skip(usize::from(is_quoted));
        while let Some((at, c)) = chars.next() {
            match c {
                '"' if is_quoted => {
                    self.0 = &self.0[at + 1..];
                    return Some(word);
                }
                '\\' if is_quoted => word.extend(chars.next().map(|(_, escaped)| escaped)),
                c if c.is_whitespace() && !is_quoted => {
                    self.0 = &self.0[at..];
                    return Some(word);
                }
                c => word.push(c),
            }
        }
        self.0 = "";
        Some(word).filter(|word| is_quoted || !word.is_empty())
    }

    /// A macro ends with an empty line.
    fn skip_paragraph(&mut self) {
        self.0 = self.0.split_once("\n\n").map_or("", |(_, rest)| rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_found_by_host_and_port() {
        let text = "# a comment with machine a.example login no\nmachine a.example\n\tlogin ann password s3#cret\n\
            machine b.example:8443 login b8443 password x machine b.example login b password \"with \\\" blank\"\n\
            macdef init\nmachine c.example login no password no\n\nmachine c.example login <token> password t0ken\n\
            machine d.example account x login d\n";
        let netrc = Netrc::parse(text);
        for (url, login) in [
            ("https://a.example/x", Some("ann:s3#cret")),
            ("https://A.example/x", Some("ann:s3#cret")),
            ("https://b.example:8443/", Some("b8443:x")),
            ("https://b.example/", Some("b:with \" blank")),
            ("https://c.example/", Some("bearer t0ken")),
            ("https://d.example/", Some("d:")),
            ("https://x.a.example/", None),
        ] {
            let found = netrc.find(&url.parse().unwrap()).map(|credentials| match credentials {
                Credentials::Password(name, password) => format!("{name}:{password}"),
                Credentials::Token(token) => format!("bearer {token}"),
            });
            assert_eq!(found.as_deref(), login, "{url}");
        }
        let others =
            Netrc::parse("default login anonymous password me\nmachine a.example login a password b");
        assert!(others.find(&"https://z.example/".parse().unwrap()).is_none());
        assert!(others.find(&"https://a.example/".parse().unwrap()).is_some());
        for odd in ["", "machine", "machine x login", "\"", "login a", "macdef"] {
            assert!(Netrc::parse(odd).find(&"https://z.example/".parse().unwrap()).is_none(), "{odd}");
        }
    }
}
