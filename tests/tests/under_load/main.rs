//! Journeys under load, beside which nothing else is measured: agents that are killed, restarted or short of room while mail comes in.

mod catches_up;
mod full_disk;
mod kill_nine;
mod killed_purges;
mod rolling_restart;
mod several_queues;
mod several_stores;
