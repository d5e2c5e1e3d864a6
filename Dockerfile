# Two stages: a builder with the toolchain, and an image with the binary alone. It runs as user 65532: a volume for
# /stint/data that belongs to somebody else is refused with a message that says what to do.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN cargo build --release --locked

FROM debian:bookworm-slim
# Certificates of public endpoints, for forwarding over TLS.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 65532 --home-dir /stint stint \
    && mkdir -p /stint/data /etc/prometheus && chown -R stint /stint
COPY --from=build /src/target/release/stint /usr/local/bin/stint
COPY retention.toml /etc/prometheus/retention.toml
USER 65532
WORKDIR /stint
VOLUME /stint/data
EXPOSE 9090 4317 4318
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["stint", "health"]
ENTRYPOINT ["/usr/local/bin/stint"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/stint/data"]
