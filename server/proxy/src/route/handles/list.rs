//! The macro that turns the list of handles into enums over all of them, and into every dispatch over those
//! enums.

/// Makes the enums over all route handles. See the list itself, in `handles/mod.rs`.
macro_rules! handles {
    (
        handles { $($handle:ident: $handle_type:ty,)* }
        nodes { $($node:ident: $node_type:ty,)* }
        shared { $($shared:ident: $shared_type:ty,)* }
    ) => {
        /// A route handle, as parsed.
        #[derive(Clone, Debug)]
        pub(crate) enum Handle {
            $($handle($handle_type),)*
        }

        impl HandleSet for Handles {
            type Handle = Handle;
        }

        /// The names of all handles, as the configuration has them.
        pub fn handle_names() -> impl Iterator<Item = &'static str> {
            let names: &[&[&str]] = &[$(<$handle_type>::NAMES),*];
            names.iter().flat_map(|names| names.iter().copied())
        }

        impl Handle {
            /// Reads a handle and adds it to `builder`; `None` when no handle has that name.
            pub(crate) fn parse(builder: &mut Builder, written: &WrittenHandle) -> Checked<Option<HandleId>> {
                $(
                    if <$handle_type>::NAMES.contains(&written.name) {
                        return <$handle_type as RouteHandle>::parse(builder, written).map(Some);
                    }
                )*
                Ok(None)
            }

            /// Whether a handle has that name.
            pub(crate) fn is_known(name: &str) -> bool {
                $(<$handle_type>::NAMES.contains(&name) ||)* false
            }

            /// The key that the text after `|` is short for.
            pub(crate) fn short_key(name: &str) -> &'static str {
                $(
                    if <$handle_type>::NAMES.contains(&name) {
                        return <$handle_type>::SHORT_KEY;
                    }
                )*
                "target"
            }

            pub(crate) fn name(&self) -> &'static str {
                match self {
                    $(Self::$handle(handle) => handle.name(),)*
                }
            }

            pub(crate) fn children(&self) -> Vec<Child> {
                match self {
                    $(Self::$handle(handle) => handle.children(),)*
                }
            }

            pub(crate) fn show(&self, config: &Config) -> Value {
                match self {
                    $(Self::$handle(handle) => handle.show(config),)*
                }
            }

            pub(in crate::route) fn compile(&self, compiler: &mut Compiler) -> Compiled<NodeId> {
                match self {
                    $(Self::$handle(handle) => handle.compile(compiler),)*
                }
            }

            pub(crate) fn pool_use(&self) -> Option<PoolUse<'_>> {
                match self {
                    $(Self::$handle(handle) => handle.pool_use(),)*
                }
            }
        }

        $(
            impl From<$handle_type> for Handle {
                fn from(handle: $handle_type) -> Self {
                    Self::$handle(handle)
                }
            }
        )*

        /// One compiled handle.
        #[derive(Debug)]
        pub(in crate::route) enum Node {
            $($node($node_type),)*
        }

        /// What one shard keeps of a node.
        #[derive(Debug)]
        pub(in crate::route) enum NodeState {
            $($node(<$node_type as RouteNode>::State),)*
        }

        /// What a request remembers that waits at a node.
        #[derive(Debug)]
        #[allow(clippy::large_enum_variant)]
        pub(in crate::route) enum NodeProgress {
            $($node(<$node_type as RouteNode>::Progress),)*
            $($shared($shared_type),)*
        }

        impl NodeSet for Nodes {
            type Node = Node;
            type NodeState = NodeState;
            type Progress = NodeProgress;
        }

        impl Node {
            pub(in crate::route) fn state(&self) -> NodeState {
                match self {
                    $(Self::$node(node) => NodeState::$node(node.state()),)*
                }
            }

            /// `request` arrives at the node, which is `at` in the tree.
            pub(in crate::route) fn start(
                &self,
                step: &mut Step,
                at: NodeId,
                request: OwnedRequest,
                parent: Parent,
            ) {
                let routes = step.routes;
                match (self, &routes.states[at as usize]) {
                    $((Self::$node(node), NodeState::$node(state)) => {
                        node.start(state, step, at, request, parent);
                    })*
                    _ => unreachable!("the state of node {at} is that of another kind"),
                }
            }

            #[inline]
            pub(in crate::route) fn direct(&self, tree: &Tree, key: &[u8], operation: Operation) -> Next {
                match self {
                    $(Self::$node(node) => node.direct(tree, key, operation),)*
                }
            }

            pub(in crate::route) fn usual(&self, key: &[u8], operation: Operation) -> Next {
                match self {
                    $(Self::$node(node) => node.usual(key, operation),)*
                }
            }

            pub(in crate::route) fn late_delete(&self, key: &[u8], now_ms: u64) -> Next {
                match self {
                    $(Self::$node(node) => node.late_delete(key, now_ms),)*
                }
            }

            pub(in crate::route) fn ring_below(&self) -> RingBelow {
                match self {
                    $(Self::$node(node) => node.ring_below(),)*
                }
            }
        }

        #[allow(unreachable_patterns, unreachable_code)]
        impl NodeProgress {
            /// A reply to one of the requests of `frame`, which is in `slot`, has come.
            pub(in crate::route) fn replied(
                frame: &mut Frame,
                step: &mut Step,
                slot: SlotId,
                child: u32,
                reply: Reply,
            ) {
                let routes = step.routes;
                match &mut frame.progress {
                    $(Self::$node(_) => {
                        let (node, state) = <$node_type as Listed>::at(routes, frame.node);
                        node.replied(state, frame, step, slot, child, reply);
                    })*
                    $(Self::$shared(shared) => {
                        if let Some(answer) = shared.answer_to(&frame.request, frame.waiting, reply) {
                            frame.answer(step, answer);
                        }
                    })*
                }
            }

            /// The time has come at which `frame`, which is in `slot`, asked to be woken.
            pub(in crate::route) fn woken(frame: &mut Frame, step: &mut Step, slot: SlotId) {
                let routes = step.routes;
                match &frame.progress {
                    $(Self::$node(_) => {
                        let (node, state) = <$node_type as Listed>::at(routes, frame.node);
                        node.woken(state, frame, step, slot);
                    })*
                    $(Self::$shared(_) => {})*
                }
            }

            /// Whether the node of `frame` asks another child if the one that was asked last is busy.
            pub(in crate::route) fn has_another(frame: &Frame) -> bool {
                match &frame.progress {
                    $(Self::$node(progress) => {
                        let (node, _) = <$node_type as Listed>::at(&frame.routes, frame.node);
                        node.has_another(progress, &frame.request)
                    })*
                    $(Self::$shared(_) => false,)*
                }
            }
        }

        $(
            #[allow(unreachable_code)]
            impl Listed for $node_type {
                fn into_node(self) -> Node {
                    Node::$node(self)
                }

                fn in_node(node: &Node) -> Option<&Self> {
                    if let Node::$node(node) = node { Some(node) } else { None }
                }

                fn in_state(state: &NodeState) -> Option<&Self::State> {
                    if let NodeState::$node(state) = state { Some(state) } else { None }
                }

                fn waiting(progress: Self::Progress) -> NodeProgress {
                    NodeProgress::$node(progress)
                }

                fn in_progress(progress: &mut NodeProgress) -> Option<&mut Self::Progress> {
                    if let NodeProgress::$node(progress) = progress { Some(progress) } else { None }
                }
            }
        )*

        $(
            impl From<$shared_type> for NodeProgress {
                fn from(progress: $shared_type) -> Self {
                    Self::$shared(progress)
                }
            }
        )*
    };
}

pub(super) use handles;
