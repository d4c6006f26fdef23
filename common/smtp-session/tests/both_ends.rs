//! Client and server machine speak to each other; what goes in comes out.

use std::sync::Arc;

use bytes::BytesMut;
use postroad_address::{Domain, ForwardPath, ReversePath};
use postroad_envelope::BodyKind;
use postroad_reply::*;
use postroad_smtp::HeloName;
use postroad_smtp_session::*;
use proptest::prelude::*;

/// Ends a conversation with `mails` and gives what the server took and what the client heard.
fn converse(
    flavour: Flavour,
    chunking: bool,
    mails: &[(Vec<&str>, String)],
    step: usize,
) -> (Vec<Vec<u8>>, Vec<Vec<bool>>) {
    let server_config = ServerConfig {
        require_tls: false,
        require_auth: false,
        ..ServerConfig::new(Domain::parse("mx.example").unwrap(), flavour)
    };
    let mut server = ServerSession::new(Arc::new(server_config), false);
    let mut client = ClientSession::new(
        ClientConfig {
            lmtp: flavour == Flavour::Lmtp,
            chunking,
            ..ClientConfig::new(HeloName::parse("client.example").unwrap())
        },
        false,
    );
    let (mut to_server, mut to_client) = (BytesMut::new(), BytesMut::new());
    let (mut content, mut taken, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    let mut waiting = mails.iter();
    let mut current = "";
    loop {
        while let Some(event) = server.receive(&mut to_server) {
            match event {
                Event::Content(octets) => content.extend_from_slice(&octets),
                Event::Closed(_) | Event::Reset | Event::ContentRefused(_) => content.clear(),
                Event::Rcpt(rcpt) if rcpt.forward_path.to_string().starts_with("nobody@") => {
                    server.answer(PolicyReply::Refuse(Reply::new(
                        MAILBOX_UNAVAILABLE_550,
                        BAD_MAILBOX_5_1_1,
                        "no such user",
                    )));
                }
                Event::ContentEnd => {
                    taken.push(std::mem::take(&mut content));
                    server.answer(PolicyReply::Accept);
                }
                _ => server.answer(PolicyReply::Accept),
            }
        }
        to_client.extend_from_slice(&server.take_output());
        let progress = client
            .receive(&mut to_client)
            .expect("the server speaks SMTP");
        match progress {
            Some(Progress::SendContent) => {
                current
                    .as_bytes()
                    .chunks(step)
                    .for_each(|piece| client.content(piece).unwrap());
                client.content_end().unwrap();
            }
            Some(Progress::Closed) => return (taken, heard),
            Some(Progress::StartTls) => panic!("not offered"),
            Some(Progress::Ready | Progress::Done(_)) => {
                if let Some(Progress::Done(results)) = progress {
                    let accepted = |result: &_| matches!(result, RecipientResult::Accepted(_));
                    heard.push(results.iter().map(accepted).collect());
                }
                match waiting.next() {
                    Some((recipients, text)) => {
                        current = text;
                        assert_eq!(client.send(outgoing(recipients, text)), None);
                    }
                    None => client.quit(),
                }
            }
            None => {}
        }
        to_server.extend_from_slice(&client.take_output());
    }
}

fn outgoing(recipients: &[&str], content: &str) -> OutgoingMail {
    OutgoingMail {
        reverse_path: ReversePath::Null,
        recipients: recipients
            .iter()
            .map(|text| OutgoingRecipient {
                forward_path: ForwardPath::parse(text).unwrap(),
                notify: None,
                orcpt: None,
            })
            .collect(),
        size: content.len() as u64,
        body: BodyKind::EightBitMime,
        smtputf8: false,
        utf8_header: false,
        requiretls: false,
        ret: None,
        envid: None,
        priority: 0,
        deliver_by: None,
        auth: None,
    }
}

proptest! {
    #[test]
    fn content_arrives_as_it_left_and_each_recipient_is_answered(
        lines in proptest::collection::vec("[.a]{0,3}", 0..6), lmtp: bool, chunking: bool, step in 1..5_usize,
    ) {
        let content: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let flavour = if lmtp { Flavour::Lmtp } else { Flavour::Smtp };
        let mails = [
            (vec!["b@mx.example", "nobody@mx.example", "c@mx.example"], content.clone()),
            (vec!["nobody@mx.example"], "not sent".to_owned()),
            (vec!["b@mx.example"], content.clone()),
        ];
        let (taken, heard) = converse(flavour, chunking, &mails, step);
        prop_assert_eq!(taken, [content.as_bytes(), content.as_bytes()]);
        prop_assert_eq!(heard, [vec![true, false, true], vec![false], vec![true]]);
    }
}

#[test]
fn large_content_in_many_chunks_and_a_thousand_recipients() {
    let content = "0123456789abcdef\r\n".repeat(100_000);
    let names: Vec<String> = (0..1000)
        .map(|index| format!("u{index}@mx.example"))
        .collect();
    let mails = [(names.iter().map(String::as_str).collect(), content.clone())];
    for chunking in [false, true] {
        let (taken, heard) = converse(Flavour::Smtp, chunking, &mails, 50_000);
        assert!(taken == [content.as_bytes()]);
        assert!(heard[0].len() == 1000 && heard[0].iter().all(|accepted| *accepted));
    }
}
