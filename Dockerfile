# One image for everything that runs in a container: the worker, and the `nameshot` command beside it.
#
#   docker build -t nameshot .
#   docker run --rm nameshot --help
#
# The build needs BuildKit, the default builder since Docker 23.
ARG PYTHON_VERSION=3.11

# ---- builder: one virtual environment with the versions of constraints.txt ----
FROM python:${PYTHON_VERSION}-slim AS builder
# A package index with another build of torch. If it is empty, the image gets the build in pip's usual index: on x86-64
# the CUDA build, which runs on NVIDIA GPUs and on CPUs and takes several GB. For a small image without GPU support,
# give the index of CPU builds that pytorch.org names under "Get Started":
#   docker build --build-arg TORCH_INDEX_URL=… .      or      TORCH_INDEX_URL=… docker compose build
ARG TORCH_INDEX_URL=""
# The folder of the code in the final image, to which the virtual environment refers.
WORKDIR /app
COPY pyproject.toml constraints.txt ./
# The editable install only refers to /app. So this layer, nearly all of the image, changes only when the version of a
# dependency changes, and not with every line of code. The empty files stand in for those that pyproject.toml names.
# To use a package mirror, run `docker build --secret id=pip_conf,src=pip.conf .`: the image does not contain pip.conf.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    mkdir nameshot producer worker \
    && touch README.md LICENSE NOTICE nameshot/__init__.py producer/__init__.py worker/__init__.py \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt \
       ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --editable '.[worker]'

# ---- the image ----
FROM python:${PYTHON_VERSION}-slim
# A volume for checkpoints is mounted on /models. Docker gives a new volume the owner of the folder that it covers.
RUN groupadd --gid 10001 nameshot \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin nameshot \
    && install --directory --owner 10001 --group 10001 /models
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY LICENSE NOTICE ./
COPY nameshot nameshot
COPY producer producer
COPY worker worker
# With a GPU, the NVIDIA Container Toolkit starts no container whose NVIDIA_REQUIRE_CUDA the driver does not satisfy.
# The package index's torch is built for CUDA 13 (drivers from 580 on, GPUs from Turing on). With another build from
# TORCH_INDEX_URL, also give --build-arg NVIDIA_REQUIRE_CUDA="cuda>=12.6", for example.
ARG NVIDIA_REQUIRE_CUDA="cuda>=13.0"
ENV PATH=/opt/venv/bin:$PATH \
    HF_HOME=/models \
    NVIDIA_REQUIRE_CUDA=$NVIDIA_REQUIRE_CUDA
# The image's user cannot write here, so compile the bytecode now. If the command does not start, fail the build.
RUN python -m compileall -q nameshot producer worker \
    && cd / && nameshot --help > /dev/null
# The user's number, because an orchestrator that refuses root cannot tell from a name whether the user is root.
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["nameshot"]
CMD ["worker"]
