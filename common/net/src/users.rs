//! Users and groups of this host by name, as passwd(5) and group(5) list them. The C library would ask more places for
//! them, by plug-ins that a program without shared libraries cannot load; users of services are in these files.

use std::fs;

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// The number of a user of this host.
///
/// # Errors
///
/// A sentence for the person who wrote the name.
pub fn user_id(name: &str) -> Result<u32, String> {
    find("user", name, USERS)
}

/// The number of a group of this host.
///
/// # Errors
///
/// A sentence for the person who wrote the name.
pub fn group_id(name: &str) -> Result<u32, String> {
    find("group", name, GROUPS)
}

/// The name of a user of this host, if the file has one.
pub fn user_name(uid: u32) -> Option<String> {
    let text = fs::read(USERS).ok()?;
    name_in(&String::from_utf8_lossy(&text), uid)
}

fn find(kind: &str, name: &str, file: &str) -> Result<u32, String> {
    let text = fs::read(file).map_err(|error| format!("{file} cannot be read: {error}"))?;
    id_in(&String::from_utf8_lossy(&text), name)
        .ok_or_else(|| format!("{file} has no {kind} {name:?}"))
}

/// Both files have the name first and the number third.
fn id_in(text: &str, name: &str) -> Option<u32> {
    let mut entries = text.lines().map(|line| line.split(':'));
    entries.find_map(|mut fields| {
        let is_it = fields.next() == Some(name);
        fields.nth(1).filter(|_| is_it)?.parse().ok()
    })
}

fn name_in(text: &str, id: u32) -> Option<String> {
    let mut entries = text.lines().map(|line| line.split(':'));
    entries.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_the_files_of_the_system() {
        assert_eq!((user_id("root"), group_id("root")), (Ok(0), Ok(0)));
        let missing = user_id("no such user").unwrap_err();
        assert_eq!(missing, "/etc/passwd has no user \"no such user\"");
        assert!(group_id("").is_err());
    }

    #[test]
    fn odd_lines_are_passed_over() {
        let text = "x\n:x:1:\nx:x\nx:x:y:\nxx:x:2:\nx:x:3:4:a:b:c\nx:x:5:";
        assert_eq!(id_in(text, "x"), Some(3));
        assert_eq!(id_in(text, "y"), None);
        assert_eq!(name_in(text, 3).as_deref(), Some("x"));
        assert_eq!(name_in(text, 9), None);
        assert_eq!(user_name(0).as_deref(), Some("root"));
    }
}
