//! Reading `secrets/.env`. No message quotes a line of it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use secrecy::SecretString;

/// No larger file is read.
const LARGEST: u64 = 64 << 10;
/// The bits of owner's group and of others.
const OTHERS: u32 = 0o077;

type Named = Vec<(String, SecretString)>;

/// The names and values of the file, none if there is no file; and what is wrong with it, and the remedy.
pub fn read(path: &Path) -> (Named, Option<String>) {
    let metadata = match fs::metadata(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return (Named::new(), None);
        }
        Err(error) => return (Named::new(), Some(format!("cannot read it: {error}"))),
        Ok(metadata) => metadata,
    };
    if !metadata.is_file() || metadata.len() > LARGEST {
        return (Named::new(), Some("not a file of NAME=VALUE lines (move it away)".to_owned()));
    }
    let bytes = match fs::read(path) {
        Err(error) => return (Named::new(), Some(format!("cannot read it: {error}"))),
        Ok(bytes) => bytes,
    };
    let (named, malformed) = parse(&bytes);
    let mode = metadata.permissions().mode() & 0o777;
    if mode & OTHERS != 0 {
        let path = path.display();
        return (named, Some(format!("others can read it (mode {mode:o}): chmod 600 {path}")));
    }
    (named, malformed)
}

/// The values, and the first line that is wrong. Empty values are those of a template and count as none.
fn parse(bytes: &[u8]) -> (Named, Option<String>) {
    let (mut named, mut malformed) = (Named::new(), None);
    for (line, number) in bytes.split(|&byte| byte == b'\n').zip(1..) {
        match pair(line) {
            Ok(None) => {}
            Ok(Some((name, value))) if named.iter().all(|(known, _)| *known != name) => {
                named.push((name, value));
            }
            Ok(Some((name, value))) => {
                malformed.get_or_insert(format!("line {number}: {name} stands there twice (remove one)"));
                named.push((name, value));
            }
            Err(why) => {
                malformed.get_or_insert(format!("line {number}: {why}"));
            }
        }
    }
    (named, malformed)
}

/// Name and value of a line; none of a comment, an empty line, an empty value.
fn pair(line: &[u8]) -> Result<Option<(String, SecretString)>, &'static str> {
    let line = std::str::from_utf8(line).map_err(|_| "it is not UTF-8 text")?.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let wrong = "it is not NAME=VALUE (quote a value with spaces; a comment has a line of its own)";
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or(wrong)?;
    let (name, value) = (name.trim(), value.trim());
    let letters = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !letters || name.starts_with(|c: char| c.is_ascii_digit()) || name.is_empty() {
        return Err(wrong);
    }
    let quoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let value = match quoted {
        Some(inner) => inner,
        None if value.starts_with(['"', '\'']) || value.contains(char::is_whitespace) => return Err(wrong),
        None => value,
    };
    Ok((!value.is_empty()).then(|| (name.to_owned(), value.into())))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    fn values(text: &str) -> (Vec<(String, String)>, Option<String>) {
        let (named, wrong) = parse(text.as_bytes());
        (named.into_iter().map(|(name, value)| (name, value.expose_secret().to_owned())).collect(), wrong)
    }

    #[test]
    fn names_and_values() {
        let text = "# comment\n\nA=1\nexport B_2 = \"x y\"\r\nC='it''s='\nEMPTY=\nD=a=b#c";
        let (named, wrong) = values(text);
        let want = [("A", "1"), ("B_2", "x y"), ("C", "it''s="), ("D", "a=b#c")];
        assert_eq!(named, want.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(wrong, None);
    }

    #[test]
    fn a_line_that_is_wrong_is_told_by_its_number_alone_and_the_others_count() {
        for bad in [
            "hunter2secret",
            "=hunter2",
            "1A=hunter2",
            "A B=hunter2",
            "A=hunter2 # x",
            "A=\"hunter2",
            "\"A=\"",
        ] {
            let (named, wrong) = values(&format!("OK=fine\n{bad}\nTOO=good"));
            let wrong = wrong.unwrap_or_else(|| panic!("{bad} was taken"));
            assert!(wrong.starts_with("line 2: ") && !wrong.contains("hunter2"), "{wrong}");
            assert_eq!(named.len(), 2, "{bad}");
        }
        assert!(parse(b"A=\xff\xfe").1.is_some_and(|wrong| wrong.starts_with("line 1: ")));
        let (named, wrong) = values("A=one\nA=two");
        assert!(
            named.len() == 2 && wrong.is_some_and(|wrong| wrong.starts_with("line 2: A stands there twice"))
        );
    }
}
