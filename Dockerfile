# One image for the MLflow server and the dashboard; every dependency is pinned by hash.
FROM python:3.12-slim AS wheel
WORKDIR /source
COPY requirements-bootstrap.lock requirements-dev.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-bootstrap.lock
COPY . .
RUN uv build --wheel --build-constraints requirements-dev.lock --require-hashes --out-dir /wheel

FROM python:3.12-slim
RUN useradd --create-home --uid 1000 contrafact && install -d -o contrafact /data
COPY requirements-bootstrap.lock requirements.lock /tmp/
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements-bootstrap.lock \
 && uv pip install --system --no-cache --require-hashes -r /tmp/requirements.lock
COPY --from=wheel /wheel /tmp/wheel
RUN uv pip install --system --no-cache --no-deps /tmp/wheel/*.whl
USER contrafact
WORKDIR /data
ENV CONTRAFACT_WORKSPACE=/data
CMD ["contrafact", "--help"]
