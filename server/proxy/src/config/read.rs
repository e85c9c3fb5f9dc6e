//! From the text of a configuration to [`Config`].

use std::collections::HashMap;

use super::build::Builder;
use super::checked::Config;
use super::error::ConfigError;
use super::json::{Json, JsonNode, Position, Sources};
use super::macros::{Import, Preprocessor};
use super::options::{Options, prefix_parts};

impl Config {
    /// Reads `text`, which came from `file`. `import` reads what `@import` names.
    ///
    /// # Errors
    /// The first thing that is wrong: where, what, and the remedy.
    pub fn parse(file: &str, text: &str, options: &Options, import: &Import) -> Result<Self, ConfigError> {
        let mut sources = Sources::default();
        let json = sources.read(file, text)?;
        let mut globals = HashMap::new();
        for (name, value) in &options.params {
            let node = value.parse().map_or_else(|_| JsonNode::String(value.clone()), JsonNode::Int);
            globals.insert(name.clone(), Json { position: Position::default(), node });
        }
        for (name, value) in
            ["default-region", "default-cluster"].iter().zip(prefix_parts(&options.route_prefix))
        {
            globals.insert((*name).into(), Json::string(Position::default(), value));
        }
        let expanded = Preprocessor::new(&mut sources, import, globals).run(&json)?;
        Builder::new(&sources, options).build(&expanded)
    }
}
