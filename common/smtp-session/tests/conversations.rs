//! Plays every conversation with the machine alone, each packet whole and octet by octet.
//!
//! What the agents' policies decide is decided here by rules that give the same codes; the same files run over TCP with the
//! agents themselves (`tests/tests/journeys/conversations.rs`).

#[path = "support/machine.rs"]
mod machine;

use machine::Machine;
use postroad_conversations::{Action, Listener, PLACE_HOLDERS, Transcript};

fn transcripts() -> Vec<Transcript> {
    postroad_conversations::all().unwrap_or_else(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        panic!("{}", faults.join("\n"));
    })
}

#[test]
fn packet_by_packet() {
    play_all(usize::MAX);
}

#[test]
fn octet_by_octet() {
    play_all(1);
}

#[test]
fn every_place_holder_is_used() {
    let folder = postroad_conversations::folder();
    let read = |name: &String| std::fs::read_to_string(folder.join(name)).unwrap();
    let text: String = transcripts().iter().map(|t| read(&t.name)).collect();
    for holder in PLACE_HOLDERS {
        assert!(text.contains(holder), "no file has {holder}");
    }
}

fn play_all(step: usize) {
    let (mut played, mut failures) = (0, Vec::new());
    for transcript in transcripts() {
        // What a client sends too early shows only where it comes in one packet.
        if step == 1 && transcript.one_packet {
            continue;
        }
        for &listener in &transcript.listeners {
            played += 1;
            if let Err(failure) = play(&transcript, listener, step) {
                failures.push(failure);
            }
        }
    }
    assert!(played > 50, "only {played} conversations were found");
    assert!(
        failures.is_empty(),
        "{} of {played} conversations went otherwise:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

fn play(transcript: &Transcript, listener: Listener, step: usize) -> Result<(), String> {
    let mut player = transcript
        .player(listener)
        .map_err(|fault| fault.to_string())?;
    let mut peer = Machine::new(listener);
    peer.turn(&[]);
    let mut half_closed = false;
    while let Some(action) = player.next() {
        match action {
            Action::Send(octets) => {
                if let Some(surplus) = peer.line() {
                    return Err(player.failed("nothing", &surplus).to_string());
                }
                octets.chunks(step).for_each(|chunk| peer.turn(chunk));
            }
            Action::Hear => {
                let said = peer.line();
                player
                    .heard(said.as_deref())
                    .map_err(|bad| bad.to_string())?;
            }
            Action::StartTls => {
                if listener.begins_with_tls() || !std::mem::take(&mut peer.starting_tls) {
                    return Err(player.failed("a handshake", "no STARTTLS").to_string());
                }
                peer.session.tls_started();
            }
            Action::Mail(content, _) => {
                let last = peer.mails.last();
                if !last.is_some_and(|mail| mail.ends_with(&content)) {
                    let found =
                        last.map_or("no mail".into(), |mail| mail.escape_ascii().to_string());
                    let expected = content.escape_ascii().to_string();
                    return Err(player.failed(&expected, &found).to_string());
                }
            }
            Action::HalfClose => half_closed = true,
            Action::AwaitClose => {
                if !half_closed && !peer.session.is_closed() {
                    return Err(player.failed("the end", "the server goes on").to_string());
                }
            }
        }
    }
    match peer.line() {
        None => Ok(()),
        Some(surplus) => Err(player.failed("nothing", &surplus).to_string()),
    }
}
