//! Asking a server whether it serves, by the health service that each of ours has.

use std::error::Error as _;
use std::iter::successors;

use tonic::Status;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Whether the server at the other end serves; if not, why, for a person.
pub async fn serves(channel: Channel) -> Result<(), String> {
    let whole = HealthCheckRequest {
        service: String::new(),
    };
    match HealthClient::new(channel).check(whole).await {
        Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => Ok(()),
        Ok(_) => Err("it is stopping".to_owned()),
        Err(status) => Err(with_cause(&status)),
    }
}

/// The message with what is behind it: that of a broken connection says little alone. Of its causes that is the outermost that
/// tells of the innermost, which alone may not say where it happened.
pub fn with_cause(status: &Status) -> String {
    let message = status.message();
    let causes = successors(status.source(), |&error| error.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    let innermost = causes.last().map_or("", String::as_str);
    let telling = causes.iter().find(|cause| cause.contains(innermost));
    match telling {
        Some(cause) if !message.contains(cause.as_str()) && !message.is_empty() => {
            format!("{message}: {cause}")
        }
        Some(cause) if message.is_empty() => cause.clone(),
        _ => message.to_owned(),
    }
}
