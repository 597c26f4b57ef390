# A JDK with Maven.
ARG WORKER_IMAGE=ghcr.io/hellblazer/hal-9000:worker-debian

FROM ${WORKER_IMAGE}
RUN apt-get -qq update \
  && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends \
    default-jdk-headless maven \
  && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
LABEL hal9000.smoke="java --version && javac --version && mvn --version"
