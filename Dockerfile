# Countersign in one image: the authorizer, and the small parts of the demo mesh (docker-compose.yml).
#
#   docker build -t countersign:local .     with a daemon and a registry
#   make image                              with neither: buildah, on a base of Debian packages
#
# Any base with Python >= 3.11, its venv module and libstdc++ will do; the same one builds and runs.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# Proxies and mirrors of the machine that builds; none of them stays in the image.
ARG PIP_CERT PIP_INDEX_URL
# Every file gets this time, so that what is built twice is the same twice.
ARG SOURCE_DATE_EPOCH=0
# Bytecode is compiled once below, that of Python's own library too, which the usual bases leave out: a read-only
# container could not keep what it compiles at start. It has a place of its own, the same in both stages.
ENV PYTHONPYCACHEPREFIX=/opt/countersign/bytecode
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_NO_COMPILE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONHASHSEED=0
WORKDIR /src
COPY deploy/image/build.lock deploy/image/requirements.lock ./
# pip and the build backend stay in this stage.
RUN python3 -m venv /opt/build \
 && /opt/build/bin/pip install --quiet --require-hashes --only-binary :all: -r build.lock \
 && python3 -m venv --without-pip /opt/countersign \
 && /opt/build/bin/pip --python /opt/countersign/bin/python install --quiet --require-hashes --only-binary :all: \
      -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY envoy ./envoy
COPY server ./server
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/build/bin/pip --python /opt/countersign/bin/python install --quiet --no-deps --no-index --find-links dist countersign
# What the image carries beside the base: CycloneDX, with licences and the graph of dependencies.
RUN install -d /opt/countersign/share/countersign \
 && /opt/build/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
      -o /opt/countersign/share/countersign/sbom.cdx.json /opt/countersign/bin/python
# Empty volumes take owner and mode of these directories, so that the unprivileged user can write into them.
RUN install -d -m 0700 /volumes/countersign /volumes/mesh/certs /volumes/issuer /volumes/decisions \
 && /opt/countersign/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/countersign/lib \
 && /opt/countersign/bin/python -m compileall -q --invalidation-mode unchecked-hash -x '/(test|tests|idlelib|lib2to3|tkinter|ensurepip|pydoc_data|turtledemo|site-packages|dist-packages)/' \
      "$(/opt/countersign/bin/python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && find /opt/countersign /volumes -exec touch -h -d "@${SOURCE_DATE_EPOCH}" {} +

# No RUN from here on: the image is the base and what is copied, whoever builds it.
FROM ${PYTHON_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Countersign" \
      org.opencontainers.image.description="Istio's security policies in front of any Envoy, with a reason for every decision" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/countersign /opt/countersign
COPY --from=build --chown=65532:65532 /volumes /run
ENV PATH=/opt/countersign/bin:/usr/local/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    PYTHONPYCACHEPREFIX=/opt/countersign/bytecode
USER 65532:65532
# gRPC, and probes; both listen on loopback unless told otherwise.
EXPOSE 9191 8282
HEALTHCHECK --interval=5s --timeout=2s --start-period=10s --retries=3 CMD ["countersign", "health"]
ENTRYPOINT ["countersign"]
CMD ["serve"]
