# Countersign in one image: the authorizer, and the small parts of the demo mesh (docker-compose.yml).
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# Bytecode is compiled once below: a read-only container could not keep what it compiles at start.
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1
WORKDIR /src
RUN python -m venv /opt/countersign
COPY pyproject.toml README.md LICENSE ./
COPY server ./server
RUN /opt/countersign/bin/pip install --quiet . \
 && /opt/countersign/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/countersign/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="Countersign" \
      org.opencontainers.image.description="Istio's security policies in front of any Envoy, with a reason for every decision" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/countersign /opt/countersign
ENV PATH=/opt/countersign/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# Empty volumes take the owner of these directories, so that the unprivileged user can write into them.
RUN install -d -o 65532 -g 65532 -m 0700 /run/countersign /run/mesh/certs
USER 65532:65532
# gRPC, and probes; both listen on loopback unless told otherwise.
EXPOSE 9191 8282
HEALTHCHECK --interval=5s --timeout=2s --start-period=10s --retries=3 CMD ["countersign", "health"]
ENTRYPOINT ["countersign"]
CMD ["serve"]
