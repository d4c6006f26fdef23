use postroad_proto::{ConvertError, queue::v1};

use crate::Withdrawn;

impl From<Withdrawn> for v1::WithdrawResponse {
    fn from(withdrawn: Withdrawn) -> Self {
        use v1::withdraw_response::Result;
        let result = match withdrawn {
            Withdrawn::Done => Result::Withdrawn,
            Withdrawn::TooLate => Result::TooLate,
            Withdrawn::Unknown => Result::Unknown,
        };
        Self {
            result: result.into(),
        }
    }
}

impl TryFrom<v1::WithdrawResponse> for Withdrawn {
    type Error = ConvertError;

    fn try_from(wire: v1::WithdrawResponse) -> Result<Self, ConvertError> {
        use v1::withdraw_response::Result;
        match wire.result() {
            Result::Withdrawn => Ok(Self::Done),
            Result::TooLate => Ok(Self::TooLate),
            Result::Unknown => Ok(Self::Unknown),
            Result::Unspecified => Err(ConvertError::new("result", "is missing or not known")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_same_on_the_other_side() {
        for withdrawn in [Withdrawn::Done, Withdrawn::TooLate, Withdrawn::Unknown] {
            let wire = v1::WithdrawResponse::from(withdrawn);
            assert_eq!(Withdrawn::try_from(wire), Ok(withdrawn));
        }
        assert!(Withdrawn::try_from(v1::WithdrawResponse::default()).is_err());
    }
}
