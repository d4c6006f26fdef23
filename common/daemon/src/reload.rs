//! SIGHUP: the configuration is read again while the process runs, all of it or nothing.
//!
//! A key is either live - its new value is in force at once for what begins from then on - or it needs a restart. The
//! agents list their live keys; any other needs a restart, so a new key is never by mistake taken for one that was put
//! into force.

mod compare;

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::common::CommonConfig;
use crate::config::{ConfigError, ConfigFile, EffectiveValue};
use crate::error::DaemonError;
use crate::logging::LogControl;
use crate::process::notify_supervisor;
use compare::InForce;

/// Of `[common]`; all else of it is what the process was built with.
const LIVE_COMMON: &[&str] = &["common.log"];

/// Puts a configuration into force that was found to be good.
pub struct Apply {
    run: Box<dyn FnOnce() + Send>,
    but: Vec<&'static str>,
}

impl Apply {
    /// Does so by `run`, which may not fail, and does not wait for a disk or a peer.
    pub fn new(run: impl FnOnce() + Send + 'static) -> Self {
        Self {
            run: Box::new(run),
            but: Vec::new(),
        }
    }

    /// All but these keys, or tables of keys, which are live at other times and need a restart this time.
    pub fn but(mut self, keys: impl IntoIterator<Item = &'static str>) -> Self {
        self.but.extend(keys);
        self
    }

    /// Now.
    pub fn run(self) {
        (self.run)();
    }
}

type Values = Box<dyn Fn(&ConfigFile) -> Result<Vec<EffectiveValue>, ConfigError> + Send + Sync>;
type Prepare = Box<dyn Fn(&ConfigFile, &CommonConfig) -> Result<Apply, ConfigError> + Send + Sync>;

/// An agent's share in a reload.
pub struct ReloadPart {
    live: &'static [&'static str],
    values: Values,
    prepare: Prepare,
}

impl ReloadPart {
    /// For the agent whose section is `section`. `live` are its keys, or tables of keys, that can change while it runs.
    /// `prepare` looks at a new configuration and says what is wrong with it, or how it is put into force; it may block.
    pub fn new<C>(
        section: &'static str,
        live: &'static [&'static str],
        prepare: impl Fn(&ConfigFile, &CommonConfig, C) -> Result<Apply, ConfigError>
        + Send
        + Sync
        + 'static,
    ) -> Self
    where
        C: DeserializeOwned + Serialize,
    {
        Self {
            live,
            values: Box::new(move |file| Ok(file.effective(section, &file.section::<C>(section)?))),
            prepare: Box::new(move |file, common| prepare(file, common, file.section(section)?)),
        }
    }
}

/// Waits for SIGHUP from the moment it is made.
pub struct Reload {
    file: ConfigFile,
    log: LogControl,
    hangups: Signal,
}

impl Reload {
    /// For a process that started with `file`; to be called inside a tokio runtime.
    pub fn new(file: ConfigFile, log: LogControl) -> Result<Self, DaemonError> {
        Ok(Self {
            file,
            log,
            hangups: signal(SignalKind::hangup()).map_err(DaemonError::software)?,
        })
    }

    /// Reads the configuration again with each SIGHUP, until `stop`.
    pub async fn serve(self, parts: Vec<ReloadPart>, stop: CancellationToken) {
        let Self {
            file,
            log,
            mut hangups,
        } = self;
        let mut house = House { file, log, parts };
        let mut in_force = match house.values(&house.file) {
            Ok(values) => InForce::new(values),
            // It was read before the start, so nothing is wrong with it.
            Err(error) => {
                error!(event = "fault", %error, "the configuration cannot be read again");
                return;
            }
        };
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                heard = hangups.recv() => if heard.is_none() { return },
            }
            tell(&reloading());
            let reloaded = spawn_blocking(move || {
                house.reload(&mut in_force);
                (house, in_force)
            });
            match reloaded.await {
                Ok(back) => (house, in_force) = back,
                Err(error) => {
                    error!(event = "fault", %error, "the configuration is not reloaded any more");
                    return;
                }
            }
            tell("READY=1");
        }
    }
}

/// What takes part in a reload.
struct House {
    file: ConfigFile,
    log: LogControl,
    parts: Vec<ReloadPart>,
}

impl House {
    fn reload(&self, in_force: &mut InForce) {
        match self.read() {
            Ok((file, values, apply)) => {
                let but: Vec<&str> = apply.iter().flat_map(|one| one.but.clone()).collect();
                apply.into_iter().for_each(Apply::run);
                let live = |key: &str| {
                    let parts = self.parts.iter().flat_map(|part| part.live);
                    let covers = |named: &&str| compare::covers(named, key);
                    parts.chain(LIVE_COMMON).any(&covers) && !but.iter().any(&covers)
                };
                let found = in_force.take(values, live);
                info!(
                    event = "reloaded",
                    path = %file.path().display(),
                    changed = (!found.changed.is_empty()).then(|| found.changed.join(",")),
                    restart = (!found.restart.is_empty()).then(|| found.restart.join(",")),
                    "{}",
                    found.words()
                );
            }
            Err(error) => error!(
                event = "reload_failed",
                path = %self.file.path().display(),
                "{error}; the configuration that was read before stays in force"
            ),
        }
    }

    /// Reads and checks everything; nothing is in force yet.
    fn read(&self) -> Result<(ConfigFile, Vec<EffectiveValue>, Vec<Apply>), ConfigError> {
        let file = ConfigFile::load(self.file.path())?;
        let values = self.values(&file)?;
        let common = file.common()?;
        let mut apply = vec![self.log.prepare(&common.log)?];
        for part in &self.parts {
            apply.push((part.prepare)(&file, &common)?);
        }
        Ok((file, values, apply))
    }

    fn values(&self, file: &ConfigFile) -> Result<Vec<EffectiveValue>, ConfigError> {
        let mut values = file.effective("common", &file.common()?);
        for part in &self.parts {
            values.extend((part.values)(file)?);
        }
        Ok(values)
    }
}

/// systemd.service(5), `Type=notify-reload`: when the reload began, by the clock that never jumps.
fn reloading() -> String {
    let now = clock_gettime(ClockId::Monotonic);
    let micros = now.tv_sec.saturating_mul(1_000_000) + now.tv_nsec / 1000;
    format!("RELOADING=1\nMONOTONIC_USEC={micros}")
}

fn tell(state: &str) {
    if let Err(error) = notify_supervisor(state) {
        warn!(%error, "cannot tell the supervisor of the reload");
    }
}
