use postroad_envelope::{EditPlace, HeaderEdit};

use crate::HeaderBlock;

/// The header after the edits of an envelope, ended by an empty line if anything is to follow it.
///
/// `header` is what [`split`](crate::split) or the splitter gave. `Add` at the top stacks upwards in the order of the
/// edits, `Add` at the bottom downwards; `Remove` concerns the client's fields only and counts them as they came, so
/// its place among the edits does not matter.
pub fn apply_edits(header: &[u8], edits: &[HeaderEdit]) -> Vec<u8> {
    if edits.is_empty() {
        return header.to_vec();
    }
    let block = HeaderBlock::parse(header);
    let mut edited = Vec::with_capacity(header.len() + 512);
    let added = |wanted: EditPlace| {
        edits.iter().filter_map(move |edit| match edit {
            HeaderEdit::Add { place, field } if *place == wanted => Some(field.as_slice()),
            _ => None,
        })
    };
    for field in added(EditPlace::Top).rev() {
        push_line(&mut edited, field);
    }
    for raw in kept(&block, edits) {
        push_line(&mut edited, raw);
    }
    for field in added(EditPlace::Bottom) {
        push_line(&mut edited, field);
    }
    // Content without a header gets one now, so the body needs the empty line before it.
    if header.is_empty() || ends_with_empty_line(header) {
        edited.extend_from_slice(b"\r\n");
    }
    edited
}

fn kept<'a>(block: &'a HeaderBlock, edits: &'a [HeaderEdit]) -> impl Iterator<Item = &'a [u8]> {
    let mut seen: Vec<(&str, u32)> = Vec::new();
    block.raw_items().filter_map(move |(name, raw)| {
        let Some(name) = name else { return Some(raw) };
        let occurrence = match seen
            .iter_mut()
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
        {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                seen.push((name, 0));
                0
            }
        };
        let removed = edits.iter().any(|edit| match edit {
            HeaderEdit::Remove {
                name: unwanted,
                occurrence: which,
            } => {
                unwanted.eq_ignore_ascii_case(name) && which.is_none_or(|which| which == occurrence)
            }
            HeaderEdit::Add { .. } => false,
        });
        (!removed).then_some(raw)
    })
}

/// A last line may lack its end; what comes after it must not become part of it.
fn push_line(edited: &mut Vec<u8>, line: &[u8]) {
    edited.extend_from_slice(line);
    if !line.ends_with(b"\n") {
        edited.extend_from_slice(b"\r\n");
    }
}

fn ends_with_empty_line(header: &[u8]) -> bool {
    matches!(header, b"\r\n" | b"\n") || header.ends_with(b"\n\r\n") || header.ends_with(b"\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::split;

    fn add(place: EditPlace, field: &str) -> HeaderEdit {
        HeaderEdit::Add {
            place,
            field: field.as_bytes().to_vec(),
        }
    }

    fn remove(name: &str, occurrence: Option<u32>) -> HeaderEdit {
        HeaderEdit::Remove {
            name: name.to_owned(),
            occurrence,
        }
    }

    fn edited(content: &str, edits: &[HeaderEdit]) -> String {
        let (header, body) = split(content.as_bytes());
        let mut all = apply_edits(header, edits);
        all.extend_from_slice(body);
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn fields_go_to_their_places_in_order() {
        let edits = [
            add(EditPlace::Top, "Received: ours\r\n"),
            add(EditPlace::Bottom, "Date: d\r\n"),
            add(EditPlace::Bottom, "Message-ID: m\r\n"),
            add(EditPlace::Top, "Return-Path: <>\r\n"),
        ];
        assert_eq!(
            edited("Subject: s\r\n\r\nbody\r\n", &edits),
            "Return-Path: <>\r\nReceived: ours\r\nSubject: s\r\nDate: d\r\nMessage-ID: m\r\n\r\nbody\r\n"
        );
    }

    #[test]
    fn removal_counts_the_clients_fields_only() {
        let content = "Received: ours?\r\nX: 0\r\nx: 1\r\n folded\r\nX: 2\r\nrubbish\r\n\r\n";
        let edits = [
            add(EditPlace::Top, "X: new\r\n"),
            remove("X", Some(1)),
            remove("X", Some(0)),
        ];
        assert_eq!(
            edited(content, &edits),
            "X: new\r\nReceived: ours?\r\nX: 2\r\nrubbish\r\n\r\n"
        );
        assert_eq!(
            edited(content, &[remove("x", None)]),
            "Received: ours?\r\nrubbish\r\n\r\n"
        );
    }

    #[test]
    fn content_without_header_gets_one() {
        let edits = [add(EditPlace::Top, "Received: ours\r\n")];
        assert_eq!(
            edited("hello world\r\n", &edits),
            "Received: ours\r\n\r\nhello world\r\n"
        );
        assert_eq!(edited("\r\nbody", &edits), "Received: ours\r\n\r\nbody");
        assert_eq!(edited("", &edits), "Received: ours\r\n\r\n");
        assert_eq!(
            edited("A: b", &[add(EditPlace::Bottom, "C: d\r\n")]),
            "A: b\r\nC: d\r\n"
        );
        assert_eq!(edited("hello world", &[]), "hello world");
    }
}
