//! Which of the places of a route is tried first, and which next.
//!
//! Pure: by preference as mail hosts are (RFC 5321 §5.1), and among those of one preference by weight as RFC 2782 has it. The seed is
//! made of the mail and the number of the attempt, so that mails are shared out, and a mail that waits is not bound to one place.

use postroad_envelope::{QueueId, Route, WeightedHop};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What the chance of an attempt is made of.
pub fn seed(mail: QueueId, attempt: u32) -> u64 {
    // Half of an id is time; the rest was chosen at random.
    let [.., a, b, c, d, e, f, g, h] = mail.to_bytes();
    let random = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    random ^ u64::from(attempt).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The route as it leads to each of its places, in the order to try them; the route itself if there is one place, or none.
pub fn turns(route: &Route, seed: u64) -> Vec<Route> {
    if route.next_hops.is_empty() {
        return vec![route.clone()];
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let mut preferences: Vec<u16> = route.next_hops.iter().map(|hop| hop.preference).collect();
    preferences.sort_unstable();
    preferences.dedup();
    let mut turns = Vec::with_capacity(route.next_hops.len());
    for preference in preferences {
        let of_it = route.next_hops.iter();
        let of_it = of_it.filter(|hop| hop.preference == preference);
        shuffle(of_it.collect(), &mut rng, &mut turns);
    }
    let leading = turns.into_iter().map(|hop| Route {
        next_hop: Some(hop.hop.clone()),
        next_hops: Vec::new(),
        ..route.clone()
    });
    leading.collect()
}

/// Takes one after the other, each with the chance that its weight is of all the weights left.
fn shuffle<'a>(mut left: Vec<&'a WeightedHop>, rng: &mut StdRng, into: &mut Vec<&'a WeightedHop>) {
    while !left.is_empty() {
        let weights = left.iter().map(|hop| u32::from(hop.weight));
        // Those without a share are alike.
        let all_alike = weights.clone().sum::<u32>() == 0;
        let weight = |hop: &WeightedHop| if all_alike { 1 } else { hop.weight.into() };
        let mut mark = rng.random_range(0..left.iter().map(|hop| weight(hop)).sum::<u32>());
        let at = left
            .iter()
            .position(|hop| match mark.checked_sub(weight(hop)) {
                Some(rest) => {
                    mark = rest;
                    false
                }
                None => true,
            });
        into.push(left.remove(at.unwrap_or_default()));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use postroad_envelope::{RouteClass, Timestamp};

    use super::*;

    fn route(hops: &[(&str, u16, u16)]) -> Route {
        let hops = hops.iter().map(|(hop, weight, preference)| WeightedHop {
            hop: hop.parse().unwrap(),
            weight: *weight,
            preference: *preference,
        });
        Route::new(RouteClass::Relay, "far.test", "route far.test").through(hops.collect())
    }

    fn order(route: &Route, seed: u64) -> Vec<String> {
        let turns = turns(route, seed);
        assert!(turns.iter().all(|turn| turn.next_hops.is_empty()));
        turns.iter().map(Route::aim).collect()
    }

    #[test]
    fn each_has_its_share_of_the_first_turns_and_all_have_a_turn() {
        let route = route(&[
            ("a:1", 3, 0),
            ("b:1", 1, 0),
            ("none:1", 0, 0),
            ("late:1", 9, 5),
        ]);
        let mut first: HashMap<String, u32> = HashMap::new();
        for seed in 0..4000 {
            let order = order(&route, seed);
            assert_eq!(order.len(), 4);
            assert_eq!(order[2..], ["none:1", "late:1"], "seed {seed}");
            *first.entry(order[0].clone()).or_default() += 1;
        }
        let a = first["a:1"];
        assert!((2850..3150).contains(&a), "{first:?}");
    }

    #[test]
    fn those_without_a_share_are_shuffled_among_themselves() {
        let route = route(&[("a:1", 0, 0), ("b:1", 0, 0)]);
        let a = (0..1000)
            .filter(|seed| order(&route, *seed)[0] == "a:1")
            .count();
        assert!((400..600).contains(&a), "{a}");
    }

    #[test]
    fn a_route_to_one_place_or_to_mail_hosts_is_its_only_turn() {
        for route in [route(&[]), route(&[("a:1", 0, 3)])] {
            assert_eq!(turns(&route, 1), [route]);
        }
    }

    #[test]
    fn each_attempt_has_a_seed_of_its_own() {
        let id = |n| QueueId::mint(Timestamp::from_millis(5), [n; 10]);
        assert_eq!(seed(id(1), 1), seed(id(1), 1));
        assert_ne!(seed(id(1), 1), seed(id(1), 2));
        assert_ne!(seed(id(1), 1), seed(id(2), 1));
    }
}
