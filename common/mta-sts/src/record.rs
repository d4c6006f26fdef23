//! The TXT record at `_mta-sts.DOMAIN` (RFC 8461 §3.1).

/// A domain has a policy, and this is the name of its present version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Changes when the policy does.
    pub id: String,
}

impl Record {
    /// The one record among all texts of the name; none, or several: the domain has no policy.
    pub fn of<T: AsRef<str>>(texts: &[T]) -> Option<Self> {
        let mut ours = texts
            .iter()
            .map(AsRef::as_ref)
            .filter(|text| text.starts_with("v=STSv1;"));
        match (ours.next(), ours.next()) {
            (Some(text), None) => Self::parse(text),
            _ => None,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let mut id = None;
        for field in text.split(';').skip(1) {
            let Some((key, value)) = field.split_once('=') else {
                // Nothing but space: the end of the record.
                if field.trim().is_empty() {
                    continue;
                }
                return None;
            };
            if key.trim() == "id" && id.is_none() {
                id = Some(value.trim().to_owned());
            }
        }
        let id = id?;
        let good = (1..=32).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
        good.then_some(Self { id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_record_with_an_id_is_a_policy() {
        let id = |texts: &[&str]| Record::of(texts).map(|record| record.id);
        let good = Some("20160831085700Z".to_owned());
        for text in [
            "v=STSv1; id=20160831085700Z;",
            "v=STSv1;id=20160831085700Z",
            "v=STSv1; id = 20160831085700Z ; ",
            "v=STSv1; more=x; id=20160831085700Z; id=other",
        ] {
            assert_eq!(id(&["v=spf1 -all", text]), good, "{text}");
        }
        for texts in [
            &[][..],
            &["v=spf1 -all"],
            &["v=STSv1; id=a", "v=STSv1; id=a"],
            &["v=STSv1;"],
            &["v=STSv1; id=;"],
            &["v=STSv1; id=a-b;"],
            &["v=STSv1; id=123456789012345678901234567890123;"],
            &["v=STSv1; nonsense"],
            &["V=stsv1; id=a"],
            &[" v=STSv1; id=a"],
            &["v=STSv2; id=a"],
        ] {
            assert_eq!(id(texts), None, "{texts:?}");
        }
    }
}
