use super::*;

#[test]
fn lists_are_paged_and_filtered() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    for number in 1..=9 {
        let to = if number % 2 == 0 {
            "bob@a.example"
        } else {
            "bob@b.example"
        };
        house.insert(number, &[to, "carol@demo.test"]);
    }
    let ids = |page: &Page| {
        page.mails
            .iter()
            .map(|m| m.mail.queue_id)
            .collect::<Vec<_>>()
    };
    let filter = Filter {
        destination: Some("a.example".to_owned()),
        ..Filter::default()
    };
    let first = house.list(&filter, None, 3);
    assert_eq!(
        (ids(&first), first.next),
        (vec![id(2), id(4), id(6)], Some(id(8)))
    );
    let second = house.list(&filter, first.next, 3);
    assert_eq!((ids(&second), second.next), (vec![id(8)], None));

    house.lease(LOCAL, at(1));
    let by = |filter: &Filter| house.list(filter, None, 100).mails.len();
    let in_state = |state| Filter {
        state: Some(state),
        ..Filter::default()
    };
    assert_eq!(by(&in_state(MailState::Leased)), 9);
    assert_eq!(by(&in_state(MailState::Held)), 0);
    let sender = Some("alice@demo.test".to_owned());
    assert_eq!(
        by(&Filter {
            sender,
            ..filter.clone()
        }),
        4
    );
    assert_eq!(
        by(&Filter {
            sender: Some(String::new()),
            ..filter
        }),
        0
    );
    assert_eq!(by(&Filter::of_ids(vec![id(3), id(99)])), 1);
    assert_eq!(by(&Filter::default()), 0, "an empty filter means none");
    let prefix = id(3).to_string()[..8].parse().unwrap();
    assert_eq!(house.queue.find(&prefix, 2).unwrap(), [id(1), id(2)]);
}

#[test]
fn mails_are_found_by_the_reason_of_any_of_their_jobs_in_both_directions() {
    let folder = tempfile::tempdir().unwrap();
    let mut house = House::open(folder.path(), at(0));
    for number in 1..=9 {
        let to = ["x@a.example", "y@b.example", "z@c.example"];
        house.insert(number, &to[..usize::from(number % 3) + 1]);
    }
    for leased in house.lease(RELAY, at(1)) {
        let state = &leased.state;
        let outcome = match state.destination.as_str() {
            "b.example" => delayed(),
            // The mail stays for its other jobs.
            _ if state.of_jobs == 3 => delivered(),
            _ => continue,
        };
        house.settle(&leased, &outcome, at(2));
    }
    let filter = Filter {
        reason_contains: Some("Connection REFUSED".to_owned()),
        ..Filter::default()
    };
    let look = |newest_first, from, limit| {
        let listing = Listing {
            filter: &filter,
            from,
            newest_first,
            limit,
        };
        let page = house.queue.list(&listing, at(3), &|| true).unwrap();
        let ids: Vec<QueueId> = page.mails.iter().map(|mail| mail.mail.queue_id).collect();
        let jobs: Vec<usize> = page.mails.iter().map(|mail| mail.jobs.len()).collect();
        (ids, jobs, page.next)
    };
    let all = [1, 2, 4, 5, 7, 8].map(id);
    let (ids, jobs, next) = look(false, None, 100);
    assert_eq!(
        (&ids[..], &jobs[..], next),
        (&all[..], &[2, 3, 2, 3, 2, 3][..], None)
    );
    let (ids, jobs, next) = look(true, Some(id(5)), 2);
    assert_eq!((ids, jobs), (vec![id(5), id(4)], vec![3, 2]));
    let (ids, ..) = look(true, next, 100);
    assert_eq!(ids, [id(2), id(1)]);
}
