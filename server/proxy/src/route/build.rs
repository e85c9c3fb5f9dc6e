//! Makes a [`Tree`] of a configuration and of what its names resolved to.

use super::compile::{CompileError, Compiler};
use super::handles::big_value::BigValue;
use super::handles::logging::{LINES, Logging};
use super::node_set::NodeId;
use super::tree::Tree;
use crate::config::{Config, HandleId, Options, ResolvedPools, Rings};

impl Tree {
    /// Compiles `config`, with `resolved` in place of the members of the pools it names.
    ///
    /// # Errors
    /// The members that were found cannot make a ring.
    pub fn compile(config: &Config, resolved: &ResolvedPools) -> Result<Self, CompileError> {
        Self::compile_over(config, resolved, &Rings::default())
    }

    /// As [`Tree::compile`]; pools that have several rings in `rings` go from one to the next.
    ///
    /// # Errors
    /// As [`Tree::compile`].
    pub fn compile_over(
        config: &Config,
        resolved: &ResolvedPools,
        rings: &Rings,
    ) -> Result<Self, CompileError> {
        let mut compiler = Compiler::new(config, resolved, rings);
        for handle in &config.handles {
            compiler.compile(handle)?;
        }
        let mut known: Vec<(HandleId, NodeId)> = Vec::new();
        let mut roots: Vec<(String, NodeId)> = Vec::with_capacity(config.routes.len());
        for (prefix, handle) in &config.routes {
            // Routes with equal handles count as one for a `*`.
            let root = match known.iter().find(|(other, _)| other == handle) {
                Some(&(_, root)) => root,
                None => root(&mut compiler, *handle),
            };
            known.push((*handle, root));
            roots.push((prefix.clone(), root));
        }
        // The check saw to it that the default prefix is among the routes.
        let default_root =
            roots.iter().position(|(prefix, _)| *prefix == config.options.route_prefix).unwrap_or_default();
        let (nodes, destinations) = compiler.finish();
        Ok(Self {
            nodes,
            destinations,
            roots,
            default_root,
            send_invalid_route_to_default: config.options.send_invalid_route_to_default,
            miss_on_get_errors: config.options.miss_on_get_errors,
            miss_on_arithmetic_errors: config.options.miss_on_arithmetic_errors,
            group_errors: config.options.group_errors,
        })
    }
}

/// The handle of a route, below what the options put in front of it.
fn root(compiler: &mut Compiler, handle: HandleId) -> NodeId {
    let mut root = compiler.node(handle);
    let Options { big_value_threshold: threshold, big_value_batch: batch, log_all, .. } =
        compiler.config.options;
    if threshold > 0 {
        root = compiler.push(BigValue { target: root, threshold, batch });
    }
    if log_all {
        root = compiler.push(Logging { target: root, lines: LINES });
    }
    root
}
