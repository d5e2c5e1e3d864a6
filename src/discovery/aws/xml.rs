//! The XML of answers, as a tree of elements without attributes.

use quick_xml::Reader;
use quick_xml::events::Event;

use super::super::DiscoveryError;

/// How deep elements may stand in each other.
const DEPTH_MAX: usize = 64;

/// An element, its text and what stands in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Element {
    name: String,
    text: String,
    children: Vec<Element>,
}

impl Element {
    /// The outermost element of `text`.
    pub(super) fn read(text: &str) -> Result<Self, DiscoveryError> {
        let wrong = |what: String| DiscoveryError(format!("the answer is not usable XML: {what}"));
        let mut reader = Reader::from_str(text);
        let mut open = vec![Self::default()];
        loop {
            let event = reader.read_event().map_err(|error| wrong(error.to_string()))?;
            let innermost = open.last_mut().ok_or_else(|| wrong("it ends too often".to_owned()))?;
            match event {
                Event::Start(start) => {
                    if open.len() > DEPTH_MAX {
                        return Err(wrong(format!("it is more than {DEPTH_MAX} levels deep")));
                    }
                    let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                    open.push(Self { name, ..Self::default() });
                }
                Event::Empty(empty) => {
                    let name = String::from_utf8_lossy(empty.local_name().as_ref()).into_owned();
                    innermost.children.push(Self { name, ..Self::default() });
                }
                Event::End(_) => {
                    let ended = open.pop().unwrap_or_default();
                    let outer = open.last_mut().ok_or_else(|| wrong("it ends too often".into()))?;
                    outer.children.push(ended);
                }
                Event::Text(part) => {
                    let part = part.decode().map_err(|error| wrong(error.to_string()))?;
                    innermost.text.push_str(&part);
                }
                Event::CData(part) => {
                    let part = part.decode().map_err(|error| wrong(error.to_string()))?;
                    innermost.text.push_str(&part);
                }
                Event::GeneralRef(reference) => {
                    let name = reference.decode().map_err(|error| wrong(error.to_string()))?;
                    let character = match reference.resolve_char_ref() {
                        Ok(Some(character)) => Some(character),
                        Ok(None) => named(&name),
                        Err(error) => return Err(wrong(error.to_string())),
                    };
                    let unknown = || wrong(format!("the entity &{name}; is not known"));
                    innermost.text.push(character.ok_or_else(unknown)?);
                }
                Event::Eof => break,
                Event::Decl(_) | Event::PI(_) | Event::DocType(_) | Event::Comment(_) => {}
            }
        }
        let [root] = &mut open[..] else { return Err(wrong("it ends too early".to_owned())) };
        root.children.pop().ok_or_else(|| wrong("there is no element in it".to_owned()))
    }

    /// The first element called `name` in this one.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The element that `path` leads to.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }

    /// The text of the element that `path` leads to, unless it is empty.
    pub(super) fn text(&self, path: &[&str]) -> Option<&str> {
        let text = self.at(path)?.text.trim();
        (!text.is_empty()).then_some(text)
    }

    /// The elements called `item` of the list called `name`.
    pub(super) fn items<'e>(&'e self, name: &str) -> impl Iterator<Item = &'e Self> + use<'e> {
        let list = self.child(name).map(|list| list.children.iter());
        list.into_iter().flatten().filter(|child| child.name == "item")
    }
}

const fn named(name: &str) -> Option<char> {
    match name.as_bytes() {
        b"amp" => Some('&'),
        b"lt" => Some('<'),
        b"gt" => Some('>'),
        b"quot" => Some('"'),
        b"apos" => Some('\''),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn elements_are_found_by_their_path() {
        let text = "<?xml version=\"1.0\"?>\n<a xmlns=\"http://x/\">\n <list><item><v> a &lt;&#65;&amp; </v></item>\
                    <other/><item><v><![CDATA[<b>]]></v></item></list><e/><e>late</e></a>";
        let root = Element::read(text).unwrap();
        let found: Vec<_> = root.items("list").filter_map(|item| item.text(&["v"])).collect();
        assert_eq!(found, ["a <A&", "<b>"]);
        assert_eq!(root.text(&["e"]), None);
        assert_eq!(root.items("none").count(), 0);
        assert_eq!(root.text(&["list", "item", "v"]), Some("a <A&"));
    }

    #[test]
    fn what_is_no_xml_is_refused() {
        let deep = "<a>".repeat(100);
        for text in ["", "x", "<a>", "<a></b>", "</a>", "<a>&nbsp;</a>", "<a>&#0;</a>", &deep] {
            assert!(Element::read(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "[<>/a&;!\\[\\]CDAT#x?\" -]{0,60}") {
            let _ = Element::read(&text);
        }
    }
}
