//! What became of mails lately.

use std::{collections::VecDeque, time::Duration};

use postroad_envelope::Timestamp;

/// What "lately" is.
const LATELY: Duration = Duration::from_secs(600);

/// Mails taken and refused, by minutes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recent {
    minutes: VecDeque<(u64, u32, u32)>,
}

impl Recent {
    pub fn add(&mut self, taken: u32, refused: u32, now: Timestamp) {
        let minute = now.as_secs() / 60;
        let oldest = minute.saturating_sub(LATELY.as_secs() / 60);
        while self.minutes.front().is_some_and(|part| part.0 <= oldest) {
            self.minutes.pop_front();
        }
        match self.minutes.back_mut() {
            Some((of, all_taken, all_refused)) if *of >= minute => {
                *all_taken = all_taken.saturating_add(taken);
                *all_refused = all_refused.saturating_add(refused);
            }
            _ => self.minutes.push_back((minute, taken, refused)),
        }
    }

    pub fn sums(&self) -> (u32, u32) {
        let sums = self.minutes.iter();
        sums.fold((0, 0), |(taken, refused), part| {
            let refused = part.2.saturating_add(refused);
            (part.1.saturating_add(taken), refused)
        })
    }
}
