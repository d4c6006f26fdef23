use postroad_address::AddressError;
use postroad_envelope::{BodyKind, DeliverBy, Notify, OriginalRecipient, Ret, Timestamp};
use proptest::prelude::*;

use super::*;
use crate::{By, Hold};

fn params(line: &str) -> MailParams {
    match Command::parse(line.as_bytes()) {
        Ok(Command::Mail { params, .. }) => params,
        other => panic!("{other:?}"),
    }
}

#[test]
fn paths_with_their_parameters() {
    let parsed = params(
        "mail From: <\"a>b\"@c.example> SIZE=1000 BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=HDRS \
         ENVID=QQ+2B AUTH=<> HOLDFOR=60 BY=-5;NT MT-PRIORITY=-3  ",
    );
    assert_eq!(
        parsed,
        MailParams {
            size: Some(1000),
            body: Some(BodyKind::EightBitMime),
            smtputf8: true,
            requiretls: true,
            ret: Some(Ret::Headers),
            envid: Some("QQ+".into()),
            auth: Some(String::new()),
            hold: Some(Hold::For(60)),
            deliver_by: Some(By {
                seconds: -5,
                return_after: false,
                trace: true
            }),
            priority: Some(-3),
        }
    );
    let Ok(Command::Rcpt {
        forward_path,
        params,
    }) = Command::parse(b"RCPT TO:<Postmaster> NOTIFY=success,DELAY ORCPT=rfc822;a+2Bb@c.example")
    else {
        panic!()
    };
    assert_eq!(forward_path, ForwardPath::Postmaster);
    assert_eq!(
        params.notify,
        Some(Notify::On {
            success: true,
            failure: false,
            delay: true
        })
    );
    assert_eq!(
        params.orcpt,
        Some(OriginalRecipient {
            address_type: "rfc822".into(),
            address: "a+b@c.example".into()
        })
    );
}

#[test]
fn faults_are_named() {
    let cases: &[(&str, CommandError)] = &[
        ("", CommandError::Unknown),
        ("MAI", CommandError::Unknown),
        ("MAIL\tFROM:<a@b.example>", CommandError::Unknown),
        (
            "MAIL FROM:<a@b.example> X=1",
            CommandError::UnknownParameter("X".into()),
        ),
        (
            "MAIL FROM:<a@b.example> SIZE=1 size=1",
            CommandError::DuplicateParameter("SIZE"),
        ),
        (
            "MAIL FROM:<a@b.example> SIZE=+1",
            CommandError::BadParameter("SIZE"),
        ),
        (
            "MAIL FROM:<a@b.example> SIZE",
            CommandError::BadParameter("SIZE"),
        ),
        (
            "MAIL FROM:<a@b.example> SMTPUTF8=1",
            CommandError::BadParameter("SMTPUTF8"),
        ),
        (
            "MAIL FROM:<a@b.example> BODY=9BIT",
            CommandError::BadParameter("BODY"),
        ),
        (
            "MAIL FROM:<a@b.example> MT-PRIORITY=10",
            CommandError::BadParameter("MT-PRIORITY"),
        ),
        (
            "MAIL FROM:<a@b.example> BY=0;R",
            CommandError::BadParameter("BY"),
        ),
        ("MAIL FROM:<@>", CommandError::Sender(AddressError::Empty)),
        (
            "RCPT TO:<a>",
            CommandError::Recipient(AddressError::NoDomain),
        ),
        (
            "RCPT TO:<a@b.example> NOTIFY=NEVER,DELAY",
            CommandError::BadParameter("NOTIFY"),
        ),
        (
            "RCPT TO:<a@b.example> ORCPT=a@b.example",
            CommandError::BadParameter("ORCPT"),
        ),
        ("DATA now", CommandError::Arguments("DATA")),
        ("BDAT 5 FIRST", CommandError::Arguments("BDAT size [LAST]")),
        (
            "BDAT 99999999999999999999 LAST",
            CommandError::Arguments("BDAT size [LAST]"),
        ),
        ("EHLO a b", CommandError::Arguments("EHLO domain")),
        ("NOOP \u{1b}[2J", CommandError::Unprintable),
    ];
    for (line, error) in cases {
        assert_eq!(
            Command::parse(line.as_bytes()),
            Err(error.clone()),
            "{line}"
        );
    }
    for line in [
        "MAIL FROM:a@b.example",
        "MAIL FROM <a@b.example>",
        "MAIL FROM:<a@b.example>SIZE=1",
        "MAIL FROM:<\"a@b.example>",
        "MAIL TO:<a@b.example>",
    ] {
        let error = Command::parse(line.as_bytes()).unwrap_err();
        assert_eq!(error.reply().code().value(), 501, "{line}");
    }
    assert_eq!(Command::parse(b"NOOP \xff"), Err(CommandError::Unprintable));
}

#[test]
fn each_command_has_its_own_longest_line() {
    let noop = |fill: usize| format!("NOOP {}", "x".repeat(fill)).into_bytes();
    assert_eq!(Command::parse(&noop(505)), Ok(Command::Noop));
    assert_eq!(Command::parse(&noop(506)), Err(CommandError::TooLong));
    let auth = format!("AUTH PLAIN {}", "A".repeat(10_000));
    assert!(Command::parse(auth.as_bytes()).is_ok());
}

/// RFC 2852 §4 and its range.
#[test]
fn a_time_to_deliver_by() {
    let by = |value: &str| {
        let line = format!("MAIL FROM:<a@b.example> BY={value}");
        match Command::parse(line.as_bytes()) {
            Ok(Command::Mail { params, .. }) => params.deliver_by.map(|by| by.to_string()),
            _ => None,
        }
    };
    for (given, read) in [
        ("120;R", "120;R"),
        ("+120;r", "120;R"),
        ("000000120;RT", "120;RT"),
        ("0;N", "0;N"),
        ("-999999999;NT", "-999999999;NT"),
        ("999999999;R", "999999999;R"),
    ] {
        assert_eq!(by(given).as_deref(), Some(read), "{given}");
    }
    for given in [
        "",
        "120",
        "120;",
        ";R",
        "0;R",
        "-0;R",
        "-1;R",
        "120;T",
        "120;TR",
        "120;RN",
        "1000000000;N",
        "1 ;N",
        "--1;N",
        "1.5;N",
        "120;R;",
    ] {
        assert_eq!(by(given), None, "{given}");
    }
}

/// What is left is said in whole seconds that there are, and what is over with how long it is (RFC 2852 §4.1.4).
#[test]
fn what_is_left_of_the_time() {
    let at = |millis: u64| Timestamp::from_millis(1_800_000_000_000 + millis);
    let given = By {
        seconds: 120,
        return_after: true,
        trace: true,
    };
    let deadline = given.from(at(0));
    assert_eq!(deadline.at, at(120_000));
    let left = |now| By::left(deadline, at(now)).seconds;
    assert_eq!((left(0), left(1), left(22_000)), (120, 119, 98));
    assert_eq!((left(119_001), left(120_000), left(120_001)), (0, 0, -1));
    assert_eq!((left(121_000), left(121_001)), (-1, -2));
    let late = By {
        seconds: -5,
        return_after: false,
        trace: false,
    };
    assert_eq!(By::left(late.from(at(9_000)), at(9_000)), late);
    let never = By {
        seconds: By::MOST,
        ..late
    };
    let deadline = DeliverBy {
        at: Timestamp::from_millis(u64::MAX),
        return_after: false,
        trace: false,
    };
    assert_eq!(By::left(deadline, at(0)), never);
}

proptest! {
    #[test]
    fn arbitrary_octets_never_panic_and_what_parses_prints_back(
        line in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..80),
            "(MAIL FROM:|RCPT TO:|BDAT |AUTH |EHLO |XFORWARD )[ -~]{0,60}".prop_map(String::into_bytes),
            "(MAIL FROM:<a@b.example> |RCPT TO:<a@b.example> )(SIZE=|BY=|ENVID=|ORCPT=|NOTIFY=|HOLDUNTIL=|AUTH=)[ -~]{0,30}"
                .prop_map(String::into_bytes),
            "XFORWARD( (NAME|ADDR|PORT|PROTO|HELO|IDENT|SOURCE)=([!-~]{0,12}|\\[UNAVAILABLE\\]|(\\+[0-7][0-9A-F]){1,6})){1,4}"
                .prop_map(String::into_bytes),
        ]
    ) {
        if let Ok(command) = Command::parse(&line) {
            let printed = command.to_string();
            prop_assert_eq!(Command::parse(printed.as_bytes()), Ok(command), "{}", printed);
        }
    }
}
