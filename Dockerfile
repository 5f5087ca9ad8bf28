# One image for everything that runs in a container: the worker, and the `nameshot` command beside it.
#
#   docker build -t nameshot .
#   docker run --rm nameshot --help
#
# It needs BuildKit, the default builder since Docker 23.
ARG PYTHON_VERSION=3.11

# ---- builder: one virtual environment with the versions of constraints.txt ----
FROM python:${PYTHON_VERSION}-slim AS builder
# Which build of torch the image gets. Empty: the one of the package index that pip uses, which on x86-64 is the
# CUDA build: it runs on NVIDIA GPUs and on CPUs, and takes several GB. For a small image without a GPU, give the
# index of CPU builds that pytorch.org names under "Get Started":
#   docker build --build-arg TORCH_INDEX_URL=… .      or      TORCH_INDEX_URL=… docker compose build
ARG TORCH_INDEX_URL=""
# Where the code will lie in the image: the environment refers to it.
WORKDIR /app
COPY pyproject.toml constraints.txt ./
# The project itself is installed as a reference to /app. So this layer, nearly all of the image, changes only when a
# version changes and not with every line of code. The empty files stand in for what pyproject.toml names.
# A mirror behind a firewall: `docker build --secret id=pip_conf,src=pip.conf .` leaves no trace of it in the image.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    mkdir nameshot producer worker \
    && touch README.md LICENSE NOTICE nameshot/__init__.py producer/__init__.py worker/__init__.py \
    && python3 -m venv /opt/venv \
    && /opt/venv/bin/python -m pip install --disable-pip-version-check --constraint constraints.txt \
       ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --editable '.[worker]'

# ---- the image ----
FROM python:${PYTHON_VERSION}-slim
# /models is where a volume goes; Docker gives a new volume the owner of the folder it covers.
RUN groupadd --gid 10001 nameshot \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin nameshot \
    && install --directory --owner 10001 --group 10001 /models
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY LICENSE NOTICE ./
COPY nameshot nameshot
COPY producer producer
COPY worker worker
# With a GPU the NVIDIA Container Toolkit refuses a driver that is too old for torch's CUDA, before anything starts. The
# package index's torch is built for CUDA 13 (drivers from 580 on, GPUs from Turing on); for another build from
# TORCH_INDEX_URL say --build-arg NVIDIA_REQUIRE_CUDA="cuda>=12.6", for example.
ARG NVIDIA_REQUIRE_CUDA="cuda>=13.0"
ENV PATH=/opt/venv/bin:$PATH \
    HF_HOME=/models \
    NVIDIA_REQUIRE_CUDA=$NVIDIA_REQUIRE_CUDA
# Who runs it cannot write here, so the bytecode is made now; and an image whose command does not start is no image.
RUN python -m compileall -q nameshot producer worker \
    && cd / && nameshot --help > /dev/null
# As numbers: an orchestrator that refuses root must be able to see that this is not root.
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["nameshot"]
CMD ["worker"]
