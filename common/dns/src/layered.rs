//! A fixed zone above the real DNS.

use async_trait::async_trait;

use crate::zone::Found;
use crate::{AddressFamily, Answer, DnsError, FixedZone, HickoryResolver, HostName};
use crate::{Record, RecordType, Resolver};

/// The zone answers for every name it knows, with any type; name servers for all others.
pub(crate) struct ZoneFirst {
    pub(crate) zone: FixedZone,
    pub(crate) beneath: HickoryResolver,
}

#[async_trait]
impl Resolver for ZoneFirst {
    async fn lookup(&self, name: &HostName, kind: RecordType) -> Result<Answer<Record>, DnsError> {
        match self.zone.resolve(name, kind) {
            Found::Here(answer) => answer,
            // Not necessarily the name asked for: the zone may have followed an alias out of itself.
            Found::Elsewhere(unknown) => self.beneath.lookup(&unknown, kind).await,
        }
    }

    fn prefer(&self) -> AddressFamily {
        self.beneath.prefer()
    }

    fn forget(&self) {
        self.beneath.forget();
    }
}
