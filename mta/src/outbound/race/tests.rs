use std::cell::RefCell;
use std::collections::HashMap;

use super::*;

fn at(host: &str, address: &str) -> Candidate {
    Candidate {
        host: host.to_owned(),
        door: Door::Tcp(address.parse().unwrap()),
    }
}

/// When connecting to an address ends, in milliseconds, and whether well.
type Course = (&'static str, u64, bool);

/// What was begun when, and what was dropped.
#[derive(Default)]
struct Seen {
    begun: RefCell<Vec<(String, u64)>>,
    dropped: RefCell<Vec<String>>,
}

struct Connecting<'s> {
    name: String,
    done: bool,
    seen: &'s Seen,
}

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        if !self.done {
            self.seen.dropped.borrow_mut().push(self.name.clone());
        }
    }
}

/// In words: who won, who failed, who was overtaken; when, what was begun when, what was dropped.
async fn run(delay: u64, courses: &[Course]) -> String {
    let candidates: Vec<Candidate> = courses.iter().map(|(a, ..)| at("mx.test", a)).collect();
    let pair = Pair {
        first: &candidates[0],
        second: candidates.get(1),
    };
    let plan: HashMap<String, (u64, bool)> = courses
        .iter()
        .zip(&candidates)
        .map(|((_, after, well), c)| (c.name(), (*after, *well)))
        .collect();
    let (seen, plan, start) = (&Seen::default(), &plan, Instant::now());
    let now = || u64::try_from(start.elapsed().as_millis()).unwrap();
    let connect = |candidate: &Candidate| {
        let name = candidate.name();
        async move {
            seen.begun.borrow_mut().push((name.clone(), now()));
            let (after, well) = plan[&name];
            let mut connecting = Connecting {
                name,
                done: false,
                seen,
            };
            tokio::time::sleep(Duration::from_millis(after)).await;
            connecting.done = true;
            well.then_some(()).ok_or("failed")
        }
    };
    let raced = race(pair, Duration::from_millis(delay), connect).await;
    let short = |name: &str| if name.contains("[192") { "4" } else { "6" };
    let of = |c: &Candidate| short(&c.name());
    let begun = seen.begun.borrow();
    let (won, mut failed) = match raced.result {
        Ok(()) => (of(raced.at), String::new()),
        Err(_) => ("-", of(raced.at).to_owned()),
    };
    let mut overtaken = "-";
    match raced.other {
        Some((other, Lost::Overtaken)) => overtaken = of(other),
        Some((other, Lost::Superfluous)) => {
            assert_eq!(of(other), "4", "the second one");
            overtaken = of(other);
        }
        Some((other, Lost::Failed(_))) => failed.insert_str(0, of(other)),
        None => {}
    }
    let begun = begun
        .iter()
        .map(|(name, at)| format!("{}@{at}", short(name)))
        .collect::<Vec<_>>();
    let dropped = seen.dropped.borrow();
    let dropped: String = dropped.iter().map(|name| short(name)).collect();
    format!(
        "won {won} failed {failed} overtaken {overtaken} at {} begun {} dropped {dropped}",
        now(),
        begun.join(","),
    )
}

const SIX: &str = "[2001:db8::1]:25";
const FOUR: &str = "192.0.2.1:25";

#[tokio::test(start_paused = true)]
async fn rfc_8305_5_the_other_family_has_its_turn_after_the_delay_and_the_sooner_one_wins() {
    for (first, second, expected) in [
        // The first is quick enough, well or not.
        (
            (SIX, 249, true),
            (FOUR, 0, true),
            "won 6 failed  overtaken - at 249 begun 6@0 dropped ",
        ),
        (
            (SIX, 10, false),
            (FOUR, 0, true),
            "won - failed 6 overtaken - at 10 begun 6@0 dropped ",
        ),
        // It is not.
        (
            (SIX, 30_000, false),
            (FOUR, 20, true),
            "won 4 failed  overtaken 6 at 270 begun 6@0,4@250 dropped 6",
        ),
        (
            (SIX, 260, true),
            (FOUR, 20, true),
            "won 6 failed  overtaken 4 at 260 begun 6@0,4@250 dropped 4",
        ),
        // Both in one moment.
        (
            (SIX, 270, true),
            (FOUR, 20, true),
            "won 6 failed  overtaken 4 at 270 begun 6@0,4@250 dropped 4",
        ),
        // One of them fails while both are under way: the other is waited for.
        (
            (SIX, 260, false),
            (FOUR, 5000, true),
            "won 4 failed 6 overtaken - at 5250 begun 6@0,4@250 dropped ",
        ),
        (
            (SIX, 5000, true),
            (FOUR, 20, false),
            "won 6 failed 4 overtaken - at 5000 begun 6@0,4@250 dropped ",
        ),
        (
            (SIX, 5000, false),
            (FOUR, 20, false),
            "won - failed 46 overtaken - at 5000 begun 6@0,4@250 dropped ",
        ),
    ] {
        assert_eq!(run(250, &[first, second]).await, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn one_address_and_a_delay_of_nothing_are_no_race() {
    assert_eq!(
        run(250, &[(FOUR, 30_000, false)]).await,
        "won - failed 4 overtaken - at 30000 begun 4@0 dropped "
    );
    assert_eq!(
        run(0, &[(SIX, 30_000, true), (FOUR, 1, true)]).await,
        "won 6 failed  overtaken - at 30000 begun 6@0 dropped "
    );
}

#[test]
fn only_an_address_of_the_same_host_and_of_the_other_family_overtakes() {
    let (six, seven) = (at("mx.test", SIX), at("mx.test", "[2001:db8::2]:25"));
    let (four, other) = (at("mx.test", FOUR), at("backup.test", "192.0.2.9:25"));
    let socket = Candidate {
        host: "mx.test".to_owned(),
        door: Door::Unix(postroad_envelope::SocketPath::parse("/run/lmtp").unwrap()),
    };
    let second = |left: &[&Candidate]| Pair::of(left).unwrap().second.map(Candidate::name);
    assert_eq!(second(&[&six, &seven, &four]), Some(four.name()));
    assert_eq!(second(&[&four, &six, &seven]), Some(six.name()));
    for left in [
        &[&six, &seven][..],
        &[&six, &other],
        &[&six, &socket],
        &[&socket, &six],
        &[&four],
    ] {
        assert_eq!(second(left), None);
    }
    assert!(Pair::of(&[]).is_none());
}
