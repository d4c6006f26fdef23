//! Passwords of programs and devices.

use postroad_address::Mailbox;
use postroad_directory::{AppPassword, Scope, add_app_password};
use postroad_envelope::Timestamp;

use super::{Agent, plain};

const BOB: &str = "bob@example.org";

#[tokio::test]
async fn an_app_password_opens_what_it_is_for_and_all_else_is_a_wrong_password() {
    let agent = Agent::start().await;
    let file = agent.folder.path().join("directory.toml");
    // He has no password of his own.
    let bob = Mailbox::parse(BOB).unwrap();
    let mut number = 0;
    let mut make = |address: &Mailbox, terms: AppPassword| {
        number += 1;
        let chance = (number, [number.into(), 1], [3; 16]);
        add_app_password(&file, address, &terms, chance).unwrap()
    };
    let good = make(&bob, AppPassword::default());
    let here = AppPassword {
        scopes: vec![Scope::Submission],
        networks: vec!["127.0.0.0/8".parse().unwrap()],
        expires: Some(Timestamp::from(std::time::SystemTime::now()).plus(super::PATIENCE * 10)),
        ..AppPassword::default()
    };
    let narrow = make(&bob, here.clone());
    let reading = AppPassword {
        scopes: vec![Scope::Imap, Scope::Pop3],
        ..AppPassword::default()
    };
    let elsewhere = AppPassword {
        networks: vec!["192.0.2.0/24".parse().unwrap()],
        ..AppPassword::default()
    };
    let over = AppPassword {
        expires: Some(Timestamp::from_millis(1)),
        ..AppPassword::default()
    };
    let refused = [reading, elsewhere, over].map(|terms| make(&bob, terms));
    let gone = Mailbox::parse("away@example.org").unwrap();
    let of_disabled = make(&gone, AppPassword::default());
    agent.directory.reload().unwrap();

    for password in [&good, &narrow] {
        let mut client = agent.client().await;
        client.expect(&plain(BOB, password), "235").await;
        client.expect("MAIL FROM:<bob@example.org>", "250").await;
        client.expect("QUIT", "221").await;
    }
    let mut wrong = good.to_string();
    wrong.replace_range(13..15, "zz");
    let wrong = std::iter::once((BOB, wrong.as_str()))
        .chain(refused.iter().map(|password| (BOB, password.as_str())))
        .chain([
            ("away@example.org", of_disabled.as_str()),
            ("alice@example.org", good.as_str()),
            ("nobody@example.org", good.as_str()),
        ]);
    for (name, password) in wrong {
        let mut client = agent.client().await;
        let reply = client.ask(&plain(name, password)).await;
        assert_eq!(reply, "535 5.7.8 name or password is wrong\n", "{name}");
    }
    agent.stop().await;
}
