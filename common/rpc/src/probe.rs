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

/// The message with what is at the bottom of it: that of a broken connection says little alone.
fn with_cause(status: &Status) -> String {
    let message = status.message();
    let causes = successors(status.source(), |&error| error.source());
    match causes.last().map(ToString::to_string) {
        Some(cause) if !message.contains(&cause) => format!("{message}: {cause}"),
        _ => message.to_owned(),
    }
}
