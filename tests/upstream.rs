//! The upstream side against scripted servers: what real servers do wrong, and what is reported.

#[path = "upstream/chunks.rs"]
mod chunks;
#[path = "upstream/common.rs"]
mod common;
#[path = "upstream/connecting.rs"]
mod connecting;
#[path = "upstream/doubles.rs"]
mod doubles;
#[path = "upstream/encryption.rs"]
mod encryption;
#[path = "upstream/endpoint.rs"]
mod endpoint;
#[path = "upstream/late.rs"]
mod late;
#[path = "support/lines.rs"]
mod lines;
#[path = "upstream/networks.rs"]
mod networks;
#[path = "upstream/oauth.rs"]
mod oauth;
#[path = "upstream/octets.rs"]
mod octets;
#[path = "upstream/odd_tls.rs"]
mod odd_tls;
#[path = "upstream/old_tls.rs"]
mod old_tls;
#[path = "upstream/order.rs"]
mod order;
#[path = "upstream/pipelining.rs"]
mod pipelining;
#[path = "upstream/policies.rs"]
mod policies;
#[path = "upstream/refusals.rs"]
mod refusals;
#[path = "upstream/requiretls.rs"]
mod requiretls;
#[path = "upstream/server.rs"]
mod server;
#[path = "upstream/sessions.rs"]
mod sessions;
#[path = "upstream/step.rs"]
mod step;
#[path = "upstream/step_worlds.rs"]
mod step_worlds;
#[path = "upstream/stray.rs"]
mod stray;
#[path = "upstream/transactions.rs"]
mod transactions;
