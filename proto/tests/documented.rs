//! Whoever writes an agent of their own has the `.proto` files and `README.md`: every field tells there what it means.

use std::{fs, path::Path};

const FILES: [&str; 4] = [
    "postroad/directory/v1/directory.proto",
    "postroad/queue/v1/admin.proto",
    "postroad/queue/v1/queue.proto",
    "postroad/queue/v1/types.proto",
];
#[test]
fn every_field_says_what_it_means() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut seen = 0;
    let mut silent = Vec::new();
    for file in FILES {
        let text = fs::read_to_string(root.join(file)).expect("a .proto file");
        seen += silent_fields(file, &text, &mut silent);
    }
    assert!(seen > 300, "{seen} fields");
    assert!(
        silent.is_empty(),
        "without a comment:\n{}",
        silent.join("\n")
    );
}

#[test]
fn a_field_without_a_comment_is_found() {
    let mut silent = Vec::new();
    let text = "message M {\n  // above\n  string a = 1;\n  string b = 2; // beside\n  string c = 3;\n  HandBack hand_back = 4;\n}\n";
    assert_eq!(silent_fields("m.proto", text, &mut silent), 4);
    assert_eq!(silent, ["m.proto:5: string c = 3;"]);
}

/// How many fields there are; those without a comment beside or above them are added to `silent`.
fn silent_fields(file: &str, text: &str, silent: &mut Vec<String>) -> usize {
    let mut seen = 0;
    let mut above = "";
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if is_field(line) {
            seen += 1;
            if !line.contains("//") && !above.starts_with("//") && !is_of_a_type_of_ours(line) {
                silent.push(format!("{file}:{number}: {line}"));
            }
        }
        above = line;
    }
    seen
}

/// A field of a message; values of enums have their name, and a comment where that is not enough.
fn is_field(line: &str) -> bool {
    let declaration = line.split("//").next().unwrap_or_default().trim();
    let number = declaration
        .strip_suffix(';')
        .and_then(|field| field.split_once(" = "));
    number.is_some_and(|(named, number)| {
        named.contains(' ') && number.bytes().all(|byte| byte.is_ascii_digit())
    })
}

/// `HandBack hand_back`: the message has the comment.
fn is_of_a_type_of_ours(line: &str) -> bool {
    let declared = line.split_once(" = ").map_or("", |(declared, _)| declared);
    let kind = declared.split(' ').rev().nth(1).unwrap_or_default();
    kind.starts_with(char::is_uppercase)
}
