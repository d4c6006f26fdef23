//! Which mails a verb is for, as it is typed.

use std::time::SystemTime;

use clap::Args;
use jiff::civil;
use jiff::tz::TimeZone;
use postroad_daemon::{ByteSize, Interval};
use postroad_envelope::{Filter, Timestamp, fold_sender};

use super::{Admin, StateArgument, find};
use crate::fault::Fault;

/// The parts of a filter; a mail is meant if all that are given hold.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which mails (all that are given must hold)")]
pub struct FilterArguments {
    /// To this destination; a verb touches these recipients only, as with the next four
    #[arg(long, value_name = "DOMAIN")]
    pub destination: Option<String>,
    /// With recipients in this domain
    #[arg(long, value_name = "DOMAIN")]
    pub recipient_domain: Option<String>,
    /// In this state
    #[arg(long)]
    pub state: Option<StateArgument>,
    /// Whose last reply, or reason of their hold, contains this
    #[arg(long, value_name = "TEXT")]
    pub reason_contains: Option<String>,
    /// Held by this rule
    #[arg(long, value_name = "NAME")]
    pub hold_rule: Option<String>,
    /// From this sender; "<>" is the empty one of reports, "@DOMAIN" all of a domain
    #[arg(long, value_name = "ADDRESS", value_parser = sender)]
    pub sender: Option<String>,
    /// That came more than this ago, such as 2h or 3d
    #[arg(long, value_name = "TIME", conflicts_with = "until")]
    pub older_than: Option<Interval>,
    /// That came less than this ago
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    pub newer_than: Option<Interval>,
    /// That came at this time or later, such as "2026-11-26 14:00" or 2026-11-26T13:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub since: Option<Timestamp>,
    /// That came before this time
    #[arg(long, value_name = "WHEN", value_parser = moment)]
    pub until: Option<Timestamp>,
    /// Of at least this size, such as 1MiB
    #[arg(long, value_name = "SIZE")]
    pub min_size: Option<ByteSize>,
    /// Of at most this size
    #[arg(long, value_name = "SIZE")]
    pub max_size: Option<ByteSize>,
    /// With this tag
    #[arg(long, value_name = "TAG")]
    pub tag: Option<String>,
    /// Submitted by this account
    #[arg(long, value_name = "ADDRESS")]
    pub account: Option<String>,
    /// Of this tenant
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
}

/// Mails by name, by the parts of a filter, or all.
#[derive(Debug, Clone, Default, Args)]
pub struct SelectionArguments {
    /// These: ids or their beginnings, 8 characters or more
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,
    /// All mails
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// By what they are.
    #[command(flatten)]
    pub parts: FilterArguments,
}

impl FilterArguments {
    /// What was typed; the ages are counted from now.
    pub fn filter(self) -> Filter {
        let now = Timestamp::from(SystemTime::now());
        let ago = |age: Interval| {
            let age = u64::try_from(age.as_duration().as_millis()).unwrap_or(u64::MAX);
            Timestamp::from_millis(now.as_millis().saturating_sub(age))
        };
        Filter {
            ids: Vec::new(),
            sender: self.sender,
            received_after: self.since.or(self.newer_than.map(ago)),
            received_before: self.until.or(self.older_than.map(ago)),
            size_at_least: self.min_size.map(ByteSize::as_u64),
            size_at_most: self.max_size.map(ByteSize::as_u64),
            tag: self.tag,
            account: self.account,
            tenant: self.tenant,
            destination: self.destination,
            recipient_domain: self.recipient_domain,
            state: self.state.map(Into::into),
            reason_contains: self.reason_contains,
            hold_rule: self.hold_rule,
            ..Filter::default()
        }
    }
}

impl SelectionArguments {
    /// What was typed, with whole ids. Nothing is not everything: that takes `--all`.
    pub async fn filter(self, admin: &Admin) -> Result<Filter, Fault> {
        self.filter_at(None, admin).await
    }

    /// The same of what waits for a site.
    pub async fn filter_at(self, site: Option<String>, admin: &Admin) -> Result<Filter, Fault> {
        let mut ids = Vec::with_capacity(self.ids.len());
        for text in &self.ids {
            ids.push(find(admin, text).await?);
        }
        let filter = Filter {
            ids,
            all: self.all,
            site,
            ..self.parts.filter()
        };
        if filter.is_empty() {
            let why = "say which mails: ids, a part of a filter such as --destination, or --all";
            return Err(Fault::Usage(why.to_owned()));
        }
        Ok(filter)
    }
}

fn sender(text: &str) -> Result<String, postroad_address::AddressError> {
    let bare = text.trim_start_matches('<').trim_end_matches('>');
    match bare.strip_prefix('@') {
        Some(domain) => postroad_address::Domain::parse(domain).map(drop)?,
        None => postroad_address::ReversePath::parse(bare).map(drop)?,
    }
    Ok(fold_sender(bare))
}

/// A time with its offset, or local: a day, or a day and a time of it.
fn moment(text: &str) -> Result<Timestamp, String> {
    let local = |at: civil::DateTime| at.to_zoned(TimeZone::system()).ok();
    let at = text
        .parse::<jiff::Timestamp>()
        .ok()
        .or_else(|| local(text.parse().ok()?).map(|at| at.timestamp()))
        .or_else(|| local(text.parse::<civil::Date>().ok()?.into()).map(|at| at.timestamp()));
    let millis = at.and_then(|at| u64::try_from(at.as_millisecond()).ok());
    millis
        .map(Timestamp::from_millis)
        .ok_or_else(|| "a time such as \"2026-11-26 14:00\" or 2026-11-26T13:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_local_unless_they_say_otherwise() {
        let utc = moment("2026-11-26T13:00:00Z").unwrap();
        assert_eq!(utc.as_millis(), 1_795_698_000_000);
        let local = moment("2026-11-26 13:00").unwrap();
        let zone = TimeZone::system();
        let offset = zone.to_offset(jiff::Timestamp::from_millisecond(1_795_698_000_000).unwrap());
        let shift = i64::from(offset.seconds()) * 1000;
        assert_eq!(
            i64::try_from(local.as_millis()).unwrap() + shift,
            1_795_698_000_000
        );
        assert!(moment("2026-11-26").unwrap() < local);
        assert!(moment("yesterday").is_err());
    }

    #[test]
    fn senders_are_folded_and_checked() {
        assert_eq!(sender("<>").unwrap(), "");
        assert_eq!(sender("Alice@Demo.Test").unwrap(), "alice@demo.test");
        assert_eq!(sender("@Demo.Test").unwrap(), "@demo.test");
        assert!(sender("alice").is_err());
        assert!(sender("@").is_err());
    }
}
