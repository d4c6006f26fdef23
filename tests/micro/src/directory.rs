//! The directory of a large house.

use std::{fmt::Write as _, path::Path};

use anyhow::{Result, ensure};
use postroad_directory::Directory;

use crate::Step;

const ACCOUNTS: usize = 1_000;
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$OW+8nZUFJcBE15+9CEBXMQ$L3WdOVng3yYpIw9fMsJRGREK4XfVS5BC8a6SnReOIO8";

/// Of four times as many accounts it costs four times as much: what looks through all of the text for each of them shows here.
pub fn read() -> Result<Step> {
    let mut text =
        "[[domain]]\nname = \"our.example\"\npostmaster = \"user0@our.example\"\n".to_owned();
    for number in 0..ACCOUNTS {
        write!(
            text,
            "\n[[account]]\naddress = \"user{number}@our.example\"\npassword_hash = \"{HASH}\"\n"
        )?;
    }
    Ok(Box::new(move || {
        let directory = Directory::parse(Path::new("directory.toml"), &text)?;
        ensure!(directory.accounts().len() == ACCOUNTS, "all of them");
        Ok(())
    }))
}
