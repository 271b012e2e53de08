# The trainer: data at /data (only read), runs and cache below /runs. How to use it: docs/containers.md
#   docker build -f docker/trainer.Dockerfile -t hoser-distill/trainer:cuda .

FROM python:3.11-slim AS build
# An index that is looked at for torch beside PyPI, whose own torch for x86-64 is the CUDA build of several GB.
ARG TORCH_INDEX=""
WORKDIR /src
RUN python -m venv /opt/venv
# torch alone, so that a change of the sources does not fetch it again. constraints.txt has the exact versions.
COPY constraints.txt ./
# hadolint ignore=DL3013
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install -c constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} torch
COPY pyproject.toml README.md LICENSE ./
COPY protos protos
COPY teacher_server teacher_server
COPY trainer trainer
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install -c constraints.txt . \
    && /opt/venv/bin/pip uninstall --yes pip setuptools \
    && find /opt/venv -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \) -prune -exec rm -r {} +

FROM python:3.11-slim
LABEL org.opencontainers.image.title="hoser-distill trainer" \
      org.opencontainers.image.description="Trains a HOSER student against a served teacher" \
      org.opencontainers.image.licenses="MIT"
# The mount points belong to the user, so that new volumes do.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp trainer \
    && install -d -o trainer -g trainer /data /runs
COPY --from=build /opt/venv /opt/venv
# Any user will do and the file system may be read-only: what a library wants to write goes below HOME, a tmpfs.
ENV PATH="/opt/venv/bin:$PATH" \
    HOME=/tmp \
    LOGNAME=trainer \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    XDG_CACHE_HOME=/runs/.cache
USER 10001:10001
WORKDIR /runs
STOPSIGNAL SIGTERM
HEALTHCHECK NONE
ENTRYPOINT ["trainer"]
CMD ["--help"]
