//! Where one recipient's mail goes, as the directory stands at the moment of delivery.

use postroad_address::Mailbox;
use postroad_directory::{Expanded, Resolution};
use postroad_envelope::{
    EditPlace, Envelope, HeaderEdit, Outcome, Recipient, StatusReport, StoreName,
};
use postroad_maildir::{DeliveryId, MaildirError, Target};
use postroad_message::{delivered_to, return_path};
use postroad_reply::*;

use crate::filing::Copy;

/// What is to be done for a recipient.
pub enum Place {
    /// File a copy.
    Mailbox(Copy),
    /// The account is of this store, which is not ours: it has moved.
    Elsewhere(StoreName),
    /// The address stands for others (by now): hand the mail on to them.
    Redirect(Vec<Expanded>),
    /// Nothing can be filed.
    Nowhere(Outcome),
}

/// The place of a recipient whose address was resolved to this, at the agent of a store.
pub fn place(
    resolution: Resolution,
    envelope: &Envelope,
    recipient: &Recipient,
    ours: &StoreName,
) -> Place {
    match resolution {
        Resolution::Local(targets) => match targets.as_slice() {
            [only] if only.local && only.store != *ours => Place::Elsewhere(only.store.clone()),
            [only] if only.local => copy(envelope, recipient, only.address.clone()),
            _ => Place::Redirect(targets),
        },
        Resolution::UnknownRecipient => Place::Nowhere(Outcome::Failed(StatusReport::local(
            BAD_MAILBOX_5_1_1,
            "there is no such mailbox here",
        ))),
        Resolution::Disabled => delayed(
            MAILBOX_DISABLED_4_2_1,
            "the mailbox takes no mail at the moment",
        ),
        // The queue has its own list of domains and routes anew at each requeue.
        Resolution::ForeignDomain => delayed(
            MISCONFIGURED_4_3_5,
            "the domain is not one of this delivery agent's",
        ),
        Resolution::AliasLoop | Resolution::TooManyTargets => delayed(
            MISCONFIGURED_4_3_5,
            "the aliases of this address cannot be followed",
        ),
    }
}

fn delayed(status: EnhancedStatusCode, text: &str) -> Place {
    Place::Nowhere(Outcome::Delayed(StatusReport::local(status, text)))
}

fn copy(envelope: &Envelope, recipient: &Recipient, account: Mailbox) -> Place {
    let target = Target::new(
        account.domain().a_label(),
        &account.local_part().folded(),
        recipient.target_folder.as_deref(),
    );
    let id = DeliveryId::new(&envelope.queue_id.to_string(), recipient.index.0);
    match (target, id) {
        (Ok(target), Ok(id)) => {
            let edits = edits(envelope, &account);
            let index = recipient.index;
            Place::Mailbox(Copy {
                index,
                id,
                target,
                edits,
            })
        }
        (Err(error), _) | (_, Err(error)) => Place::Nowhere(invalid(&error)),
    }
}

fn invalid(error: &MaildirError) -> Outcome {
    Outcome::Failed(StatusReport::local(
        BAD_ADDRESS_SYNTAX_5_1_3,
        error.to_string(),
    ))
}

/// Those of the envelope, then ours on top: Return-Path first, then Delivered-To (RFC 5321 §4.4, RFC 9228).
/// A Return-Path that came with the mail is somebody else's and goes.
fn edits(envelope: &Envelope, account: &Mailbox) -> Vec<HeaderEdit> {
    let top = |field| HeaderEdit::Add {
        place: EditPlace::Top,
        field,
    };
    let mut edits = envelope.header_edits.clone();
    edits.push(HeaderEdit::Remove {
        name: "Return-Path".to_owned(),
        occurrence: None,
    });
    edits.push(top(delivered_to(account)));
    edits.push(top(return_path(&envelope.reverse_path)));
    edits
}
