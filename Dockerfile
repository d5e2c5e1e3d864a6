# Two stages: a builder with the toolchain, and an image with the binary alone. User, folders and command are those of
# prom/prometheus, so that the image's name is all that has to change: its volume is used as it is, what the other
# server stored in it stays, and ours goes to /prometheus/stint. A volume that belongs to somebody else is refused with
# a message that says what to do.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN cargo build --release --locked

FROM debian:bookworm-slim
# Certificates of public endpoints, for forwarding over TLS.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && ln -s /usr/local/bin/stint /bin/prometheus \
    && mkdir -p /prometheus /etc/prometheus && chown nobody:nogroup /prometheus \
    && printf '%s\n' 'global: {scrape_interval: 15s}' 'scrape_configs:' '- job_name: prometheus' \
       '  static_configs: [{targets: ["localhost:9090"]}]' > /etc/prometheus/prometheus.yml
COPY --from=build /src/target/release/stint /usr/local/bin/stint
COPY retention.toml /etc/prometheus/retention.toml
USER 65534
WORKDIR /prometheus
VOLUME /prometheus
EXPOSE 9090 4317 4318
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["stint", "health"]
ENTRYPOINT ["/usr/local/bin/stint"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
