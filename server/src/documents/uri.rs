//! What a document's URI says about where it is.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The path on disk of a `file:` URI. A drive (`file:///c%3A/x`) becomes `c:/x` and a host a UNC path
/// (`//host/share/x`); what is not a `file:` URI has no path.
pub fn path_of(uri: &str) -> Option<PathBuf> {
    let (scheme, rest) = uri.split_once(':')?;
    if !scheme.eq_ignore_ascii_case("file") {
        return None;
    }
    let (host, path) = split_host(without_query(rest));
    let decoded: Cow<[u8]> = percent_decode_str(path).into();
    if decoded.is_empty() {
        return None;
    }
    let host = percent_decode_str(host).decode_utf8_lossy();
    if !host.is_empty() && host != "localhost" {
        return Some(PathBuf::from(format!("//{host}{}", String::from_utf8_lossy(&decoded))));
    }
    Some(match *decoded {
        [b'/', drive, b':', ..] if drive.is_ascii_alphabetic() => to_path(&decoded[1..]),
        _ => to_path(&decoded),
    })
}

/// The `file:` URI of an absolute path.
pub fn uri_of(path: &Path) -> String {
    const ESCAPED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let path = path.to_string_lossy();
    let path = if cfg!(windows) { path.replace('\\', "/") } else { path.into_owned() };
    let slash = if path.starts_with('/') { "" } else { "/" };
    format!("file://{slash}{}", utf8_percent_encode(&path, ESCAPED))
}

/// What a URI of any scheme calls its document, as a path: for the language and for rules by name.
pub fn name_of(uri: &str) -> PathBuf {
    let rest = uri.split_once(':').map_or(uri, |(_, rest)| rest);
    let (_, path) = split_host(without_query(rest));
    path_of(uri).unwrap_or_else(|| to_path(&Cow::from(percent_decode_str(path))))
}

fn without_query(text: &str) -> &str {
    text.split(['?', '#']).next().unwrap_or_default()
}

/// The host and the path of what follows a scheme.
fn split_host(rest: &str) -> (&str, &str) {
    match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    }
}

/// A path of any bytes where the system allows that, else with replacement characters.
fn to_path(bytes: &[u8]) -> PathBuf {
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStrExt;
        PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
    }
    #[cfg(not(unix))]
    {
        PathBuf::from(String::from_utf8_lossy(bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn any_path_becomes_a_uri() {
        for (path, uri) in [
            ("/a/b.py", "file:///a/b.py"),
            ("/a b/ü#1.py", "file:///a%20b/%C3%BC%231.py"),
            ("/100%/x:y", "file:///100%25/x%3Ay"),
        ] {
            assert_eq!(uri_of(Path::new(path)), uri);
            assert_eq!(path_of(uri), Some(PathBuf::from(path)));
        }
    }

    #[test]
    fn paths_of_uris() {
        let cases = [
            ("file:///home/ada/a.rs", Some("/home/ada/a.rs")),
            ("FILE:///home/ada/a.rs", Some("/home/ada/a.rs")),
            ("file://localhost/a.rs", Some("/a.rs")),
            ("file:/a.rs", Some("/a.rs")),
            ("file:///with%20space/%E6%BC%A2.py", Some("/with space/漢.py")),
            ("file:///a%23b%3Fc.rs", Some("/a#b?c.rs")),
            ("file:///100%25/%zz", Some("/100%/%zz")),
            ("file:///c%3A/Users/Ada/a.rs", Some("c:/Users/Ada/a.rs")),
            ("file:///C:/Users/Ada/a.rs", Some("C:/Users/Ada/a.rs")),
            ("file://server/share/a.rs", Some("//server/share/a.rs")),
            ("untitled:Untitled-1", None),
            ("vscode-notebook-cell:/home/ada/n.ipynb#W0", None),
            ("file://", None),
            ("", None),
            ("nonsense", None),
        ];
        for (uri, want) in cases {
            assert_eq!(path_of(uri), want.map(PathBuf::from), "{uri}");
        }
    }

    #[test]
    fn names_of_uris() {
        let cases = [
            ("file:///home/ada/a.rs", "/home/ada/a.rs"),
            ("untitled:Untitled-1", "Untitled-1"),
            ("untitled:/home/ada/new%20one.py", "/home/ada/new one.py"),
            ("vscode-vfs://github/ada/repo/a.ts?ref=main#L1", "/ada/repo/a.ts"),
            ("", ""),
            (":", ""),
        ];
        for (uri, want) in cases {
            assert_eq!(name_of(uri), PathBuf::from(want), "{uri}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_path_need_not_be_unicode() {
        use std::os::unix::ffi::OsStrExt;
        let path = path_of("file:///a%FFb").unwrap();
        assert_eq!(path.as_os_str().as_bytes(), b"/a\xffb");
    }
}
