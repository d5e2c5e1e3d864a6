//! The ports of OTLP: where they are asked for, or on the loopback address of a server that is
//! started without any configuration.

use std::sync::Arc;

use stint_wire::otlp::{Options, Promotion, Strategy};

use super::Files;
use super::http::{HttpOptions, HttpServer, Listeners, Protocol};
use crate::api::{self, Api};
use crate::cli::flags::Flags;
use crate::config::{Otlp, Translation};

const GRPC_FLAG: &str = "otlp.grpc-listen-address";
const HTTP_FLAG: &str = "otlp.http-listen-address";
const GRPC_LOOPBACK: &str = "127.0.0.1:4317";
const HTTP_LOOPBACK: &str = "127.0.0.1:4318";

/// Sockets that are listened on and not served yet.
pub(super) struct Ports {
    grpc: Listeners,
    http: Listeners,
}

impl Ports {
    /// Listens where the flags say.
    ///
    /// # Errors
    /// Names the address that cannot be listened on.
    pub(super) async fn bind(flags: &Flags, files: &Files) -> anyhow::Result<Self> {
        let is_asked = !flags.otlp_grpc_listen_address.is_empty()
            || !flags.otlp_http_listen_address.is_empty();
        if is_asked || files.prometheus.is_some() {
            return Ok(Self {
                grpc: Listeners::bind(&flags.otlp_grpc_listen_address, GRPC_FLAG).await?,
                http: Listeners::bind(&flags.otlp_http_listen_address, HTTP_FLAG).await?,
            });
        }
        Ok(Self {
            grpc: usual(GRPC_LOOPBACK, GRPC_FLAG).await?,
            http: usual(HTTP_LOOPBACK, HTTP_FLAG).await?,
        })
    }

    /// Serves both.
    pub(super) fn serve(self, options: &HttpOptions, api: &Arc<Api>) -> [HttpServer; 2] {
        for (listeners, protocol) in [(&self.grpc, "grpc"), (&self.http, "http")] {
            for address in listeners.addresses() {
                tracing::info!(%address, protocol, "listening for OTLP");
            }
        }
        [
            self.grpc.serve(options, Protocol::Http2, &api::otlp::grpc_router(api)),
            self.http.serve(options, Protocol::Http1, &api::otlp::http_router(api)),
        ]
    }
}

/// Listens on an address that nobody asked for; where it is taken, a collector runs there.
async fn usual(address: &str, flag: &str) -> anyhow::Result<Listeners> {
    match Listeners::bind(&[address.to_owned()], flag).await {
        Ok(listeners) => Ok(listeners),
        Err(error) => {
            tracing::warn!("OTLP is not received there: {error:#}");
            Listeners::bind(&[], flag).await
        }
    }
}

/// How metrics become series, from the configuration.
pub(super) fn options(otlp: &Otlp) -> Options {
    Options {
        strategy: match otlp.translation_strategy {
            Translation::UnderscoresAndSuffixes => Strategy::UnderscoresAndSuffixes,
            Translation::Suffixes => Strategy::Suffixes,
            Translation::Underscores => Strategy::Underscores,
            Translation::None => Strategy::None,
        },
        promotion: if otlp.promote_all_resource_attributes {
            Promotion::AllBut(otlp.ignore_resource_attributes.clone())
        } else {
            Promotion::Only(otlp.promote_resource_attributes.clone())
        },
        keep_identifying_resource_attributes: otlp.keep_identifying_resource_attributes,
        convert_histograms_to_nhcb: otlp.convert_histograms_to_nhcb,
        promote_scope_metadata: otlp.promote_scope_metadata,
        label_name_underscore_sanitization: otlp.label_name_underscore_sanitization,
        label_name_preserve_multiple_underscores: otlp.label_name_preserve_multiple_underscores,
        resource_attributes: otlp.resource_attributes.clone(),
    }
}
