//! The nodes of a queue, and what people call them.

use postroad_daemon::{CommonConfig, QueueAddresses};

use crate::{Endpoint, Error};

/// One node of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is called in logs, errors, metrics and by who types commands: its host, or the path of its socket; with its
    /// port only where another node is on the same host. No two have the same.
    pub name: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// It gets no new mail, but keeps and gives out what it has.
    pub is_retiring: bool,
}

/// The nodes that `common.queue` lists, in its order; `common.retiring` are of these, and not all.
pub fn nodes(common: &CommonConfig) -> Result<Vec<Node>, Error> {
    let mut nodes = listed(&common.queue)?;
    for retiring in &common.retiring {
        let endpoint: Endpoint = retiring.parse()?;
        let node = nodes.iter_mut().find(|node| node.endpoint == endpoint);
        node.ok_or_else(|| Error::NotListed(retiring.clone()))?
            .is_retiring = true;
    }
    match nodes.iter().all(|node| node.is_retiring) {
        true => Err(Error::AllRetiring),
        false => Ok(nodes),
    }
}

fn listed(queue: &QueueAddresses) -> Result<Vec<Node>, Error> {
    let endpoints: Result<Vec<Endpoint>, Error> = queue.iter().map(str::parse).collect();
    Ok(named(endpoints?))
}

/// Names for these endpoints, each of which is there once.
fn named(endpoints: Vec<Endpoint>) -> Vec<Node> {
    let hosts: Vec<String> = endpoints.iter().map(host).collect();
    let nodes = endpoints.into_iter().zip(&hosts);
    let nodes = nodes.map(|(endpoint, name)| {
        let shared = hosts.iter().filter(|other| *other == name).count() > 1;
        let name = match (&endpoint, shared) {
            (Endpoint::Tcp { .. }, true) => endpoint.to_string().split_off("tcp:".len()),
            _ => name.clone(),
        };
        Node {
            name,
            endpoint,
            is_retiring: false,
        }
    });
    nodes.collect()
}

fn host(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Unix(path) => path.display().to_string(),
        Endpoint::Tcp { host, .. } => host.to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_called_by_its_host_and_by_its_port_where_there_are_two() {
        let listed = [
            "tcp:q1.example.net:7700",
            "tcp:Q2.example.net:7700",
            "tcp:[::1]:1",
            "tcp:[::1]:2",
            "unix:/run/postroad/queue.sock",
        ];
        let listed = QueueAddresses::several(listed.map(str::to_owned).to_vec()).unwrap();
        let nodes = super::listed(&listed).unwrap();
        let names: Vec<_> = nodes.iter().map(|node| node.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "q1.example.net",
                "q2.example.net",
                "[::1]:1",
                "[::1]:2",
                "/run/postroad/queue.sock"
            ]
        );
        assert_eq!(
            nodes[4].endpoint.to_string(),
            "unix:/run/postroad/queue.sock"
        );
    }

    #[test]
    fn one_that_is_no_address_is_told() {
        let error = listed(&QueueAddresses::from("q1.example.net")).unwrap_err();
        assert!(error.to_string().contains("\"q1.example.net\""), "{error}");
    }

    #[test]
    fn those_that_retire_are_of_the_list_and_not_all_of_it() {
        let addresses = ["tcp:q1:1", "tcp:q2:1"].map(str::to_owned);
        let mut common = CommonConfig {
            queue: QueueAddresses::several(addresses.to_vec()).unwrap(),
            retiring: addresses[..1].to_vec(),
            ..CommonConfig::default()
        };
        let retiring = nodes(&common).unwrap();
        let retiring: Vec<_> = retiring.iter().map(|node| node.is_retiring).collect();
        assert_eq!(retiring, [true, false]);
        common.retiring = addresses.to_vec();
        assert!(matches!(nodes(&common), Err(Error::AllRetiring)));
        common.retiring = vec!["tcp:q3:1".to_owned()];
        let error = nodes(&common).unwrap_err().to_string();
        assert!(error.contains("tcp:q3:1 is not in common.queue"), "{error}");
    }
}
