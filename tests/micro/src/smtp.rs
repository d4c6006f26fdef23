//! Conversations without sockets.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::BytesMut;
use postroad_address::{Domain, ForwardPath, ReversePath};
use postroad_envelope::BodyKind;
use postroad_smtp::HeloName;
use postroad_smtp_session::{
    ClientConfig, ClientSession, Event, Flavour, OutgoingMail, OutgoingRecipient, PolicyReply,
    Progress, ServerConfig, ServerSession,
};

use crate::{Step, mail};

const SIZE: usize = 5 << 10;

pub fn server() -> Result<Step> {
    let host = Domain::parse("mx.example")?;
    let mut config = ServerConfig::new(host, Flavour::Smtp);
    (config.require_tls, config.require_auth) = (false, false);
    let config = Arc::new(config);
    let content = [mail(SIZE), b".\r\n".to_vec()].concat();
    let said: [&[u8]; 4] = [
        b"EHLO client.example\r\n",
        b"MAIL FROM:<alice@client.example> SIZE=5120\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n",
        &content,
        b"QUIT\r\n",
    ];
    let said = said.map(<[u8]>::to_vec);
    Ok(Box::new(move || {
        let mut session = ServerSession::new(Arc::clone(&config), false);
        let (mut input, mut taken) = (BytesMut::with_capacity(8 << 10), 0);
        for piece in &said {
            input.extend_from_slice(piece);
            while let Some(event) = session.receive(&mut input) {
                match event {
                    Event::Content(octets) => taken += octets.len(),
                    Event::Closed(_) => {}
                    _ => session.answer(PolicyReply::Accept),
                }
            }
            let _ = session.take_output();
        }
        ensure!(
            session.is_closed() && taken >= SIZE,
            "the mail was taken: {taken}"
        );
        Ok(())
    }))
}

pub fn client() -> Result<Step> {
    let config = ClientConfig::new(HeloName::parse("mx.example").context("a name")?);
    let content = mail(SIZE);
    let outgoing = OutgoingMail {
        reverse_path: ReversePath::parse("alice@client.example")?,
        recipients: vec![OutgoingRecipient {
            forward_path: ForwardPath::parse("bob@example.net")?,
            notify: None,
            orcpt: None,
        }],
        size: u64::try_from(content.len())?,
        body: BodyKind::EightBitMime,
        smtputf8: false,
        utf8_header: false,
        requiretls: false,
        ret: None,
        envid: None,
        priority: 0,
        deliver_by: None,
        auth: None,
    };
    Ok(Box::new(move || {
        let mut session = ClientSession::new(config.clone(), false);
        let mut input = BytesMut::with_capacity(1 << 10);
        let mut replies = [
            &b"220 mx.example.net ESMTP\r\n"[..],
            b"250-mx.example.net\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n",
            b"250 2.1.0 go on\r\n250 2.1.5 go on\r\n354 end with a dot\r\n",
            b"250 2.0.0 taken as 4bXk2J\r\n",
            b"221 2.0.0 bye\r\n",
        ]
        .into_iter();
        loop {
            let progress = session.receive(&mut input)?;
            let _ = session.take_output();
            match progress {
                None => input.extend_from_slice(replies.next().context("nothing more is said")?),
                Some(Progress::Ready) => {
                    ensure!(
                        session.send(outgoing.clone()).is_none(),
                        "the host takes it"
                    );
                }
                Some(Progress::SendContent) => {
                    session.content(&content)?;
                    session.content_end()?;
                }
                Some(Progress::Done(_)) => session.quit(),
                Some(Progress::Closed) => return Ok(()),
                Some(Progress::StartTls) => bail!("TLS was not offered"),
            }
        }
    }))
}
