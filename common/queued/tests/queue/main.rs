//! The queue in one process: local object, sockets, restarts.

mod setup;

mod accounts;
mod backup;
mod causes;
mod conformance;
mod control;
mod corruption;
mod counters;
mod crashes;
mod disk;
mod export;
mod formats;
mod journeys;
mod kill;
mod methods;
mod names;
mod nodes;
mod purge;
mod quotas;
mod reload;
mod renewal;
mod reports;
mod resend;
mod retired;
mod roles;
mod rules;
mod sites;
mod stores;
mod suppression;
mod timeline;
mod together;
mod verify;
mod withdraw;
mod workers;
