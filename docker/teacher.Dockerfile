# The teacher: serves the artifact at /artifact over gRPC (8001) and HTTP (8000). How to use it: docs/containers.md
#   docker build -f docker/teacher.Dockerfile --build-arg VARIANT=cpu -t hoser-distill/teacher:cpu .

FROM python:3.11-slim AS build
# An index that is looked at for torch beside PyPI, whose own torch for x86-64 is the CUDA build of several GB.
ARG TORCH_INDEX=""
# What of the project's extras is in it: server,kuberay for deploy/kubernetes/jobs/label-ray.
ARG EXTRAS=server
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
    /opt/venv/bin/pip install -c constraints.txt ".[${EXTRAS}]" \
    && /opt/venv/bin/pip uninstall --yes pip setuptools \
    && find /opt/venv -type d \( -name tests -o -path '*/torch/test' -o -path '*/torch/include' \) -prune -exec rm -r {} +

FROM python:3.11-slim
# cuda or cpu: the device that `serve` insists on, so that a container without its GPU says so and is not just slow.
ARG VARIANT=cuda
LABEL org.opencontainers.image.title="hoser-distill teacher" \
      org.opencontainers.image.description="Serves an LM-TAD teacher over gRPC and HTTP" \
      org.opencontainers.image.licenses="MIT" \
      variant="${VARIANT}"
# The mount points belong to the user, so that new volumes do.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp teacher \
    && install -d -o teacher -g teacher /artifact /data /runs
COPY --from=build /opt/venv /opt/venv
# Any user will do and the file system may be read-only: what a library wants to write goes below HOME, a tmpfs.
ENV PATH="/opt/venv/bin:$PATH" \
    HOME=/tmp \
    LOGNAME=teacher \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    XDG_CACHE_HOME=/runs/.cache \
    TEACHER_ARTIFACT=/artifact \
    TEACHER_DEVICE="${VARIANT}" \
    TEACHER_GRPC_ADDRESS=0.0.0.0:8001 \
    TEACHER_HTTP_ADDRESS=0.0.0.0:8000
USER 10001:10001
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=2m CMD ["teacher", "health"]
ENTRYPOINT ["teacher"]
CMD ["serve"]
