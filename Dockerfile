# `iace` in an image: what is installed is the wheel of this tree with the versions of constraints.txt, and what builds
# it stays behind. How it is run: docker-compose.yml and docs/deploy.md.
FROM python:3.11.15-slim-bookworm AS builder
ENV PIP_CONSTRAINT=/src/constraints.txt \
    PIP_BUILD_CONSTRAINT=/src/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY controller controller
COPY metrics metrics
COPY qecs qecs
COPY state state
RUN pip wheel --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/iace \
    && pip --python /opt/iace/bin/python install --no-index --find-links /wheels /wheels/iace-*.whl

FROM python:3.11.15-slim-bookworm
# A volume that is mounted for the first time takes the owner of the directory that it covers.
RUN pip uninstall --yes --root-user-action ignore pip setuptools wheel \
    && groupadd --gid 10001 iace \
    && useradd --uid 10001 --gid iace --no-create-home --home-dir /var/lib/iace --shell /usr/sbin/nologin iace \
    && install --directory --owner=iace --group=iace --mode=0750 /var/lib/iace /var/lib/qecs /run/iace \
    && install --directory --owner=iace --group=iace --mode=0755 /run/iace-prometheus
COPY --from=builder /opt/iace /opt/iace
ENV PATH=/opt/iace/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/tmp/matplotlib
# The data directory (.iace) and the reports are below the working directory.
WORKDIR /var/lib/iace
USER 10001:10001
EXPOSE 8470
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8470/livez', timeout=4)"]
ENTRYPOINT ["iace"]
CMD ["govern"]
