use postroad_proto::{ConvertError, queue::v1};

use crate::{SiteResult, SiteTrouble, SiteTry};

/// All sites that were tried; a worker that knows of one alone tells the last.
pub(super) fn all(
    tried: Vec<v1::SiteTry>,
    last: Option<String>,
    result: Option<v1::SiteResult>,
) -> Result<Vec<SiteTry>, ConvertError> {
    let last = last.map(|site| v1::SiteTry { site, result });
    let told = match tried.is_empty() {
        true => last.into_iter().collect(),
        false => tried,
    };
    told.into_iter().map(TryInto::try_into).collect()
}

/// The last one, for a queue that knows of one alone.
pub(super) fn last(sites: &[SiteTry]) -> (Option<String>, Option<v1::SiteResult>) {
    let last = sites.last().map(v1::SiteTry::from);
    last.map_or((None, None), |one| (Some(one.site), one.result))
}

impl From<&SiteTry> for v1::SiteTry {
    fn from(tried: &SiteTry) -> Self {
        Self {
            site: tried.site.clone(),
            result: tried.result.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<v1::SiteTry> for SiteTry {
    type Error = ConvertError;

    fn try_from(wire: v1::SiteTry) -> Result<Self, ConvertError> {
        Ok(Self {
            site: wire.site,
            result: wire.result.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&SiteResult> for v1::SiteResult {
    fn from(result: &SiteResult) -> Self {
        use v1::site_result::Trouble;
        let trouble = match result.trouble {
            None => Trouble::Unspecified,
            Some(SiteTrouble::Unreachable) => Trouble::Unreachable,
            Some(SiteTrouble::AtConnect) => Trouble::AtConnect,
            Some(SiteTrouble::AtMail) => Trouble::AtMail,
        };
        Self {
            connections: result.connections,
            mails: result.mails,
            trouble: trouble.into(),
            reply: result.reply.as_ref().map(Into::into),
            text: result.text.clone(),
            joined: result.joined,
        }
    }
}

impl TryFrom<v1::SiteResult> for SiteResult {
    type Error = ConvertError;

    fn try_from(wire: v1::SiteResult) -> Result<Self, ConvertError> {
        use v1::site_result::Trouble;
        let trouble = match wire.trouble() {
            Trouble::Unspecified => None,
            Trouble::Unreachable => Some(SiteTrouble::Unreachable),
            Trouble::AtConnect => Some(SiteTrouble::AtConnect),
            Trouble::AtMail => Some(SiteTrouble::AtMail),
        };
        Ok(Self {
            connections: wire.connections,
            mails: wire.mails,
            trouble,
            reply: wire.reply.map(TryInto::try_into).transpose()?,
            text: wire.text,
            joined: wire.joined,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried() -> Vec<SiteTry> {
        let result = |trouble| SiteResult {
            trouble,
            mails: 1,
            ..SiteResult::default()
        };
        let one = |site: &str, trouble| SiteTry {
            site: site.to_owned(),
            result: Some(result(trouble)),
        };
        vec![
            one("a.test", Some(SiteTrouble::Unreachable)),
            one("b.test", None),
        ]
    }

    #[test]
    fn all_of_them_arrive_in_order_and_the_last_one_with_an_older_queue() {
        let told: Vec<v1::SiteTry> = tried().iter().map(Into::into).collect();
        let (site, result) = last(&tried());
        let arrived = all(told, site.clone(), result.clone());
        assert_eq!(arrived, Ok(tried()));
        // An older queue reads these two alone, as an older worker writes them alone.
        assert_eq!(all(Vec::new(), site, result), Ok(vec![tried().remove(1)]));
        assert_eq!(all(Vec::new(), None, None), Ok(Vec::new()));
        assert_eq!(last(&[]), (None, None));
    }
}
