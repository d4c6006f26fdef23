use std::fs;

use postroad_diagnosis::Rules;

use super::Config;
use crate::ConfigError;

impl Config {
    /// The rules of causes, the file's first.
    pub(crate) fn causes(&self) -> Result<Rules, ConfigError> {
        let Some(path) = &self.cause_rules else {
            return Ok(Rules::builtin());
        };
        let wrong = |problem: String| ConfigError::CauseRules {
            path: path.clone(),
            problem,
        };
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        Rules::with_file(&text).map_err(|error| wrong(error.to_string()))
    }
}
