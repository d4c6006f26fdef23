use postroad_proto::{ConvertError, queue::v1};

use crate::{CounterList, CountersQuery};

impl From<CountersQuery> for v1::CountersRequest {
    fn from(query: CountersQuery) -> Self {
        let kind = query.kind.map_or("", |kind| kind.as_str());
        Self {
            kind: kind.to_owned(),
            bans: query.bans,
            limit: query.limit,
        }
    }
}

impl TryFrom<v1::CountersRequest> for CountersQuery {
    type Error = ConvertError;

    fn try_from(wire: v1::CountersRequest) -> Result<Self, ConvertError> {
        let kind = match wire.kind.as_str() {
            "" => None,
            kind => Some(
                kind.parse()
                    .map_err(|error| ConvertError::new("kind", error))?,
            ),
        };
        Ok(Self {
            kind,
            bans: wire.bans,
            limit: wire.limit,
        })
    }
}

impl From<&CounterList> for v1::CountersResponse {
    fn from(list: &CounterList) -> Self {
        Self {
            counters: list.counters.iter().map(Into::into).collect(),
            bans: list.bans.iter().map(Into::into).collect(),
            total: list.total,
        }
    }
}

impl TryFrom<v1::CountersResponse> for CounterList {
    type Error = ConvertError;

    fn try_from(wire: v1::CountersResponse) -> Result<Self, ConvertError> {
        let counters = wire.counters.into_iter().map(TryInto::try_into);
        let bans = wire.bans.into_iter().map(TryInto::try_into);
        Ok(Self {
            counters: counters.collect::<Result<_, _>>()?,
            bans: bans.collect::<Result<_, _>>()?,
            total: wire.total,
        })
    }
}

#[cfg(test)]
mod tests {
    use postroad_counters::Kind;

    use super::*;

    #[test]
    fn a_question_is_the_same_on_the_other_side_and_of_kinds_there_are() {
        for kind in [None, Some(Kind::Sent)] {
            let query = CountersQuery {
                kind,
                bans: true,
                limit: 5,
            };
            let wire = v1::CountersRequest::from(query);
            assert_eq!(CountersQuery::try_from(wire), Ok(query));
        }
        let wire = v1::CountersRequest {
            kind: "what".to_owned(),
            ..Default::default()
        };
        assert!(CountersQuery::try_from(wire).is_err());
    }
}
