//! `key: value`.

use std::time::Duration;

use super::{Wrong, certificate, interval, number, reply, size, wrong};
use crate::script::{Door, Limit, Login, Protocol, Script, Tls};

/// Longest name of a host in octets.
const LONGEST_NAME: usize = 255;

pub fn read(line: &str, script: &mut Script) -> Result<(), Wrong> {
    let Some((key, value)) = line.split_once(':') else {
        return wrong(
            format!("{line:?} is neither a setting nor a rule"),
            "write `key: value`, or `on STAGE: action`",
        );
    };
    let (key, value) = (key.trim(), value.trim());
    match key {
        "name" => script.name = host(value)?,
        "names" => {
            script.names = list(value)
                .iter()
                .map(|name| host(name))
                .collect::<Result<_, _>>()?;
        }
        "speaks" => {
            script.protocol = word(
                value,
                &[("smtp", Protocol::Smtp), ("lmtp", Protocol::Lmtp)],
                "write `smtp` or `lmtp`",
            )?;
        }
        "tls" => {
            let words = [
                ("starttls", Tls::StartTls),
                ("at once", Tls::AtOnce),
                ("none", Tls::Never),
            ];
            script.tls = word(value, &words, "write `starttls`, `at once` or `none`")?;
        }
        "certificate" => script.certificate = certificate(value)?,
        "offers" => script.offers = Some(offers(value)),
        "offers under tls" => script.offers_under_tls = Some(offers(value)),
        "login" => script.logins.push(login(value)?),
        "size" => script.size = size(value)?,
        "door" => {
            let words = [
                ("open", Door::Open),
                ("shut", Door::Shut),
                ("deaf", Door::Deaf),
            ];
            script.door = word(value, &words, "write `open`, `shut` or `deaf`")?;
        }
        "seed" => script.seed = number(value)?,
        _ => return limit(key, value, script),
    }
    Ok(())
}

fn limit(key: &str, value: &str, script: &mut Script) -> Result<(), Wrong> {
    let limits = &mut script.limits;
    if let Some(within) = key.strip_prefix("connections per ") {
        limits.connections.push(counted(value, interval(within)?)?);
        return Ok(());
    }
    match key {
        "connections" => limits.at_once = Some(counted(value, Duration::ZERO)?),
        "mails per connection" => limits.per_connection = Some(counted(value, Duration::ZERO)?),
        "recipients per mail" => limits.recipients = Some(counted(value, Duration::ZERO)?),
        "greylist" => {
            let (within, reply) = parts(value)?;
            limits.greylist = Some(Limit {
                most: 0,
                within: interval(within)?,
                reply,
            });
        }
        _ => match key.strip_prefix("mails per ") {
            Some(within) => limits.mails.push(counted(value, interval(within)?)?),
            None => {
                return wrong(
                    format!("there is no setting {key:?}"),
                    "settings are name, names, speaks, tls, certificate, offers, offers under tls, login, size, door, seed, connections, connections per TIME, \
                     mails per TIME, mails per connection, recipients per mail and greylist; rules begin with `on`",
                );
            }
        },
    }
    Ok(())
}

/// `5 else 421 4.7.0 too many`.
fn counted(value: &str, within: Duration) -> Result<Limit, Wrong> {
    let (most, reply) = parts(value)?;
    Ok(Limit {
        most: number(most)?,
        within,
        reply,
    })
}

fn parts(value: &str) -> Result<(&str, String), Wrong> {
    match value.split_once(" else ") {
        Some((most, words)) => Ok((most.trim_end_matches([',', ' ']), reply(words.trim())?)),
        None => wrong(
            format!("{value:?} does not say what is replied beyond it"),
            "write the limit and the reply, such as `5 else 421 4.7.0 too many`",
        ),
    }
}

fn word<T: Copy>(value: &str, words: &[(&str, T)], remedy: &'static str) -> Result<T, Wrong> {
    match words.iter().find(|(word, _)| *word == value) {
        Some((_, meaning)) => Ok(*meaning),
        None => wrong(format!("{value:?} is not known here"), remedy),
    }
}

fn host(value: &str) -> Result<String, Wrong> {
    let good = |c: char| c.is_ascii_alphanumeric() || "-._[]:*".contains(c);
    match !value.is_empty() && value.len() <= LONGEST_NAME && value.chars().all(good) {
        true => Ok(value.to_owned()),
        false => wrong(
            format!("{value:?} is no name of a host"),
            "write one such as `mx.peer.test`",
        ),
    }
}

fn login(value: &str) -> Result<Login, Wrong> {
    match value.split_once(' ') {
        Some((name, secret)) => Ok(Login {
            name: name.to_owned(),
            secret: secret.trim().to_owned(),
        }),
        None => wrong(
            "a log-in has a name and a secret",
            "write both with a blank between",
        ),
    }
}

fn offers(value: &str) -> Vec<String> {
    match value {
        "none" => Vec::new(),
        value => list(value),
    }
}

fn list(value: &str) -> Vec<String> {
    let words = value.split(',').map(str::trim);
    let words = words.filter(|word| !word.is_empty());
    words.map(ToOwned::to_owned).collect()
}
