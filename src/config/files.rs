//! File patterns of the configuration: Go's, as Prometheus reads them.

use std::io;
use std::path::{Component, Path, PathBuf};

/// Whether `path` may stand in a configuration: no `/` after its first `*`.
pub(super) fn is_pattern(path: &str) -> bool {
    path.split_once('*').is_none_or(|(_, rest)| !rest.contains('/'))
}

/// The files that `pattern` names, sorted. `*` stands for any characters of one element of the
/// path (hidden files too, unlike in a shell), `?` for one, `[a-z]` and `[^a-z]` for one of a class,
/// and `\` takes the special meaning from what follows. A pattern without any of them names its file,
/// whether it exists or not.
///
/// # Errors
/// The pattern is malformed, or a directory exists and cannot be listed.
pub fn files_matching(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::new()];
    for component in pattern.components() {
        let text = component.as_os_str().to_str().unwrap_or_default();
        if !matches!(component, Component::Normal(_)) || !text.contains(['*', '?', '[', '\\']) {
            for path in &mut found {
                path.push(component);
            }
            continue;
        }
        let pieces = read(text).ok_or_else(|| {
            let message = format!("syntax error in pattern {}", pattern.display());
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        let mut deeper = Vec::new();
        for directory in &found {
            for name in names_in(directory)? {
                if matches(&pieces, &name) {
                    deeper.push(directory.join(name));
                }
            }
        }
        found = deeper;
    }
    found.sort();
    Ok(found)
}

/// The names in `directory`, none when it does not exist.
fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let directory = if directory == Path::new("") { Path::new(".") } else { directory };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string());
    }
    Ok(names)
}

/// A part of a pattern.
#[derive(Debug)]
enum Piece {
    /// `*`
    Any,
    /// `?`
    One,
    /// A character as it is.
    Exactly(char),
    /// Ranges of characters, or all others.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// The parts of one element of a pattern; `None` when it is malformed.
fn read(text: &str) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        pieces.push(match next {
            '*' => Piece::Any,
            '?' => Piece::One,
            '\\' => Piece::Exactly(rest.next()?),
            '[' => {
                let negated = rest.next_if_eq(&'^').is_some();
                let mut ranges = Vec::new();
                while ranges.is_empty() || rest.next_if_eq(&']').is_none() {
                    let first = class_character(&mut rest)?;
                    let last = match rest.next_if_eq(&'-') {
                        Some(_) => class_character(&mut rest)?,
                        None => first,
                    };
                    ranges.push((first, last));
                }
                Piece::Class { negated, ranges }
            }
            other => Piece::Exactly(other),
        });
    }
    Some(pieces)
}

fn class_character(rest: &mut impl Iterator<Item = char>) -> Option<char> {
    match rest.next()? {
        '\\' => rest.next(),
        '-' | ']' => None,
        other => Some(other),
    }
}

/// Whether the whole of `name` is what `pieces` stand for.
fn matches(pieces: &[Piece], name: &str) -> bool {
    let name: Vec<char> = name.chars().collect();
    let (mut piece, mut at) = (0, 0);
    // Where to go on when what follows the last star does not fit: one character further.
    let mut retry = None;
    loop {
        match (pieces.get(piece), name.get(at)) {
            (None, None) => return true,
            (Some(Piece::Any), _) => {
                retry = Some((piece, at + 1));
                piece += 1;
                continue;
            }
            (Some(one), Some(character)) if one.is(*character) => {
                (piece, at) = (piece + 1, at + 1);
                continue;
            }
            _ => {}
        }
        match retry {
            Some((star, next)) if next <= name.len() => {
                (piece, at) = (star + 1, next);
                retry = Some((star, next + 1));
            }
            _ => return false,
        }
    }
}

impl Piece {
    /// Whether it stands for `character` alone.
    fn is(&self, character: char) -> bool {
        match self {
            Self::Any => false,
            Self::One => true,
            Self::Exactly(wanted) => *wanted == character,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&character)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, yes: &[&str], no: &[&str]) {
        let pieces = read(pattern).unwrap();
        for name in yes {
            assert!(matches(&pieces, name), "{pattern} {name}");
        }
        for name in no {
            assert!(!matches(&pieces, name), "{pattern} {name}");
        }
    }

    #[test]
    fn patterns_are_gos() {
        check("*.yml", &["a.yml", ".yml", ".a.yml", "a.b.yml"], &["a.yaml", "a.yml~", "yml"]);
        check("a**b.json", &["ab.json", "axxb.json", "ab.jsonb.json"], &["a.json", "xab.json"]);
        check("*a*ab", &["aab", "aaab", "xaxaab"], &["ab", "aaba"]);
        check("t-?.yml", &["t-1.yml", "t-é.yml"], &["t-.yml", "t-12.yml"]);
        check("[a-cx][^0-9]", &["bz", "xx"], &["dz", "b1", "b"]);
        check(r"\*[\]\-]", &["*]", "*-"], &["a]", "*a"]);
        for wrong in ["[", "[]", "[a", "[-a]", "[a-]", "[^]", "a\\"] {
            assert!(read(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn no_element_may_follow_a_star() {
        for good in ["a.yml", "/a/*.yml", "a**b.yml", "*"] {
            assert!(is_pattern(good), "{good}");
        }
        assert!(!is_pattern("*/a.yml"));
    }

    #[test]
    fn files_are_found_in_order() {
        let root = std::env::temp_dir().join(format!("stint-patterns-{}", std::process::id()));
        for file in ["x1/b.yml", "x1/a.yml", "x2/c.yml", "y/d.yml", "x3"] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        let found = |pattern: &str| -> Vec<String> {
            let found = files_matching(&root.join(pattern)).unwrap();
            let below = |path: PathBuf| path.strip_prefix(&root).unwrap().display().to_string();
            found.into_iter().map(below).collect()
        };
        assert_eq!(found("x?/*.yml"), ["x1/a.yml", "x1/b.yml", "x2/c.yml"]);
        assert_eq!(found("nowhere/*.yml"), Vec::<String>::new());
        assert_eq!(found("nowhere/a.yml"), ["nowhere/a.yml"]);
        let error = files_matching(&root.join("[")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        std::fs::remove_dir_all(&root).unwrap();
    }
}
